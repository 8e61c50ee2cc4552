package dev.r2dbcscope.postgresql;

import io.r2dbc.postgresql.api.ErrorDetails;
import io.r2dbc.postgresql.api.PostgresqlException;
import io.r2dbc.spi.R2dbcException;
import org.jspecify.annotations.Nullable;

/**
 * Rows that could not be written in bulk: which ones, to which table, and the column, if that is known.
 *
 * <p>The message holds no values. That of the cause, if there is one, is the server's, and may hold some.
 *
 * <p>What does not have to do with the rows comes as the driver's own error instead: a lost connection, a serialization
 * failure, a deadlock, a lack of resources, a cancelled statement.
 */
public final class BulkWriteException extends R2dbcException {

    private static final long serialVersionUID = 1L;

    /** The table, quoted. */
    private final String table;

    /** The number of the first row, from 1. */
    private final long firstRow;

    /** The number of the last row. */
    private final long lastRow;

    /** The column, if it is known. */
    private final @Nullable String column;

    private BulkWriteException(
            String table,
            long firstRow,
            long lastRow,
            @Nullable String column,
            String problem,
            @Nullable String sqlState,
            @Nullable Throwable cause) {
        super(message(table, firstRow, lastRow, column) + problem, sqlState, 0, null, cause);
        this.table = table;
        this.firstRow = firstRow;
        this.lastRow = lastRow;
        this.column = column;
    }

    private static String message(String table, long firstRow, long lastRow, @Nullable String column) {
        String rows = firstRow == lastRow ? "Row " + firstRow : "One of the rows " + firstRow + " to " + lastRow;
        return rows + " could not be written to " + table + (column == null ? "" : ", column \"" + column + "\"")
                + ": ";
    }

    /** Found before the rows were sent. */
    static BulkWriteException ofRow(
            String table, long row, @Nullable String column, String problem, @Nullable Throwable cause) {
        return new BulkWriteException(table, row, row, column, problem, null, cause);
    }

    /** Rows with the same key, which the server would refuse with the same SQLSTATE. */
    static BulkWriteException duplicate(String table, long first, long row) {
        return new BulkWriteException(
                table,
                row,
                row,
                null,
                "row " + first + " has the same key; see OnConflict.withDuplicates",
                "21000",
                null);
    }

    /** Wraps what the server says about rows; other errors stay as they are. */
    static Throwable ofServer(String table, long firstRow, long lastRow, Throwable error) {
        if (!(error instanceof R2dbcException refused) || !isAboutRows(refused.getSqlState())) {
            return error;
        }
        ErrorDetails details = error instanceof PostgresqlException known ? known.getErrorDetails() : null;
        String column = details == null ? null : details.getColumnName().orElse(null);
        String constraint = details == null
                ? ""
                : details.getConstraintName()
                        .map(name -> ", constraint \"" + name + "\"")
                        .orElse("");
        return new BulkWriteException(
                table,
                firstRow,
                lastRow,
                column,
                "the server refused it with SQLSTATE " + refused.getSqlState() + constraint + "; see the cause",
                refused.getSqlState(),
                error);
    }

    /** Cardinality, data, integrity, names and types, WITH CHECK OPTION, and what triggers raise. */
    private static boolean isAboutRows(@Nullable String sqlState) {
        if (sqlState == null || sqlState.length() != 5) {
            return false;
        }
        return switch (sqlState.substring(0, 2)) {
            case "21", "22", "23", "42", "44", "P0" -> true;
            default -> false;
        };
    }

    /**
     * Returns the table.
     *
     * @return its name, quoted, with its schema if that was given
     */
    public String table() {
        return table;
    }

    /**
     * Returns the number of the first row that may be the one.
     *
     * @return its number in the source, from 1
     */
    public long firstRow() {
        return firstRow;
    }

    /**
     * Returns the number of the last row that may be the one.
     *
     * @return its number in the source; that of the first one, if it is known which row it was
     */
    public long lastRow() {
        return lastRow;
    }

    /**
     * Returns the column.
     *
     * @return its name, or {@code null} if the server does not say or it is not a matter of one column
     */
    public @Nullable String column() {
        return column;
    }
}
