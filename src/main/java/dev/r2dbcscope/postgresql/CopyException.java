package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.R2dbcException;
import org.jspecify.annotations.Nullable;

/**
 * A row could not be written by {@link CopyIn}: the server refused it, or PostgreSQL cannot store one of its values.
 *
 * <p>The message names the table and, as far as they are known, the row, the column, the SQLSTATE and the constraint, and never
 * a value. The cause, if there is one, is the driver's own error; <em>its</em> message and details may quote values of the row.
 */
public final class CopyException extends R2dbcException {

    private static final long serialVersionUID = 1L;

    /** The table. */
    private final String table;

    /** The number of the row, or 0. */
    private final long row;

    /** The name of the column. */
    private final @Nullable String column;

    /** The name of the constraint. */
    private final @Nullable String constraint;

    private CopyException(
            String problem,
            String table,
            long row,
            @Nullable String column,
            @Nullable String constraint,
            @Nullable String sqlState,
            int errorCode,
            @Nullable Throwable cause) {
        super(
                "COPY " + table + (row > 0 ? ", row " + row : "") + (column == null ? "" : ", column " + column) + ": "
                        + problem,
                sqlState,
                errorCode,
                null,
                cause);
        this.table = table;
        this.row = row;
        this.column = column;
        this.constraint = constraint;
    }

    /** A value that cannot be sent. */
    static CopyException unsent(String problem, String table, long row, @Nullable String column) {
        return new CopyException(problem, table, row, column, null, null, 0, null);
    }

    /** An error of the server. */
    static CopyException refused(
            String problem,
            String table,
            long row,
            @Nullable String column,
            @Nullable String constraint,
            R2dbcException cause) {
        return new CopyException(
                problem, table, row, column, constraint, cause.getSqlState(), cause.getErrorCode(), cause);
    }

    /**
     * Returns the table.
     *
     * @return its name, with its schema if that was given
     */
    public String table() {
        return table;
    }

    /**
     * Returns which row it was.
     *
     * @return its position in the source, from 1 on, or 0 if the error is not about one row
     */
    public long row() {
        return row;
    }

    /**
     * Returns which column it was.
     *
     * @return its name, or {@code null} if the error is not about one column or the server does not say
     */
    public @Nullable String column() {
        return column;
    }

    /**
     * Returns which constraint was violated.
     *
     * @return its name, or {@code null} if it was none or the server does not say
     */
    public @Nullable String constraint() {
        return constraint;
    }
}
