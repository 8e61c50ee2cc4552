package dev.r2dbcscope.etl;

import dev.r2dbcscope.postgresql.BulkWriteException;
import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.RejectedRow;
import io.r2dbc.spi.R2dbcException;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** Why a row was not accepted. */
record Refusal(
        @Nullable String sqlState,
        String reason,
        @Nullable String column,
        @Nullable String constraint) {

    private static final int LONGEST_CHAIN = 16;

    /** Data, constraints, the check option of views, what triggers raise, and rows that meet each other in an upsert. */
    private static final Set<String> CLASSES = Set.of("21", "22", "23", "44", "P0");

    static Refusal of(RejectedRow row) {
        return new Refusal(
                row.sqlState(),
                row.detail() == null ? row.message() : row.message() + " (" + row.detail() + ")",
                row.column(),
                row.constraint());
    }

    static Refusal of(Throwable error) {
        Throwable last = error;
        for (int i = 0; i < LONGEST_CHAIN && last.getCause() != null; i++) {
            last = last.getCause();
        }
        String reason = last.getMessage() == null ? last.toString() : last.getMessage();
        String column = error instanceof CopyException copy
                ? copy.column()
                : error instanceof BulkWriteException bulk ? bulk.column() : null;
        return new Refusal(
                sqlState(error), reason, column, error instanceof CopyException copy ? copy.constraint() : null);
    }

    /** Whether an error is one of the rows, so that it may not be there without some of them. */
    static boolean isAboutRows(Throwable error) {
        String state = sqlState(error);
        return state == null ? isAboutOneRow(error) : state.length() == 5 && CLASSES.contains(state.substring(0, 2));
    }

    /** Whether it is about one row, which was not even sent. */
    private static boolean isAboutOneRow(Throwable error) {
        if (error instanceof CopyException copy) {
            return copy.row() > 0;
        }
        return error instanceof BulkWriteException bulk && bulk.firstRow() == bulk.lastRow();
    }

    private static @Nullable String sqlState(Throwable error) {
        Throwable link = error;
        for (int i = 0; i < LONGEST_CHAIN && link != null; i++) {
            if (link instanceof R2dbcException known && known.getSqlState() != null) {
                return known.getSqlState();
            }
            link = link.getCause();
        }
        return null;
    }
}
