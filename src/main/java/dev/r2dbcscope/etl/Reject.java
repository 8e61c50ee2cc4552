package dev.r2dbcscope.etl;

import org.jspecify.annotations.Nullable;

/**
 * A row that the database did not accept, and why.
 *
 * @param row the row
 * @param number its number in the source, from 1
 * @param position its position, or {@code null} if the source has none
 * @param sqlState why, as a code; {@code null} if it was found before it was sent
 * @param reason why, in the words of the database or of the library; may quote the row's values
 * @param column the column, or {@code null} if it is not a matter of one
 * @param constraint the constraint that was violated, or {@code null} if it was none
 * @param <T> the type of the row
 */
public record Reject<T>(
        T row,
        long number,
        @Nullable String position,
        @Nullable String sqlState,
        String reason,
        @Nullable String column,
        @Nullable String constraint) {

    /** Without what may quote values. */
    @Override
    public String toString() {
        return "Reject[row " + number + ", " + sqlState + (constraint == null ? "" : ", " + constraint) + "]";
    }
}
