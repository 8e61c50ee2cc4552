package dev.r2dbcscope.postgresql;

import org.jspecify.annotations.Nullable;

/**
 * A row that a table did not accept. What the database says about it may quote its values.
 *
 * @param row its number among the rows that were to be written, from 1
 * @param sqlState why, as a code
 * @param message why, in the database's words
 * @param detail more of them, or {@code null}
 * @param column the column, or {@code null} if it is not a matter of one
 * @param constraint the constraint that was violated, or {@code null} if it was none
 */
public record RejectedRow(
        long row,
        String sqlState,
        String message,
        @Nullable String detail,
        @Nullable String column,
        @Nullable String constraint) {

    /** The same, if some rows before it were not counted. */
    RejectedRow behind(long others) {
        return new RejectedRow(row + others, sqlState, message, detail, column, constraint);
    }

    /** Without what may quote values. */
    @Override
    public String toString() {
        return "RejectedRow[" + row + ", " + sqlState + (constraint == null ? "" : ", " + constraint) + "]";
    }
}
