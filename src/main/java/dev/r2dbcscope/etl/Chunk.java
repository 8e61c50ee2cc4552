package dev.r2dbcscope.etl;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Rows that are written in one transaction.
 *
 * @param number counted from 1
 * @param firstRow the number of its first row in the source, from 1
 * @param rows at least one
 * @param firstPosition of the first row, if the source has positions
 * @param lastPosition of the last row, if the source has positions
 */
record Chunk<T>(
        long number,
        long firstRow,
        List<T> rows,
        @Nullable String firstPosition,
        @Nullable String lastPosition) {

    long lastRow() {
        return firstRow + rows.size() - 1;
    }

    /** Which one, for a message; without the positions, which are values. */
    String which() {
        return "Chunk " + number + ", rows " + firstRow + " to " + lastRow();
    }
}
