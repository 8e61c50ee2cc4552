package dev.r2dbcscope.etl;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Rows that are written in one transaction.
 *
 * @param number counted from 1
 * @param firstRow the number of its first row in the source, from 1
 * @param rows at least one
 * @param positions those of the rows, or none if the source has none
 */
record Chunk<T>(long number, long firstRow, List<T> rows, List<String> positions) {

    @Nullable
    String firstPosition() {
        return position(0);
    }

    @Nullable
    String lastPosition() {
        return position(rows.size() - 1);
    }

    private @Nullable String position(int index) {
        return positions.isEmpty() ? null : positions.get(index);
    }

    Reject<T> reject(int index, Refusal refusal) {
        return new Reject<>(
                rows.get(index),
                firstRow + index,
                position(index),
                refusal.sqlState(),
                refusal.reason(),
                refusal.column(),
                refusal.constraint());
    }

    long lastRow() {
        return firstRow + rows.size() - 1;
    }

    /** Which one, for a message; without the positions, which are values. */
    String which() {
        return "Chunk " + number + ", rows " + firstRow + " to " + lastRow();
    }
}
