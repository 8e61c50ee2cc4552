package dev.r2dbcscope;

import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcRollbackException;
import org.jspecify.annotations.Nullable;

/**
 * Why the database will not commit a transaction: the last error of one of its statements.
 *
 * <p>If the code swallows that error, all that comes of it is a statement that is refused because the transaction has
 * failed already, or a COMMIT that is answered with ROLLBACK. Neither says why.
 */
final class AbortReason {

    /** How a failed transaction refuses statements on PostgreSQL and what descends from it. */
    private static final String IN_FAILED_TRANSACTION = "25P02";

    /** Longer chains of causes are circular. */
    static final int LONGEST_CHAIN = 64;

    private volatile @Nullable R2dbcException reason;

    /** Takes notice of a statement's error. */
    void failed(Throwable error) {
        if (error instanceof R2dbcException known
                && known.getSqlState() != null
                && !IN_FAILED_TRANSACTION.equals(known.getSqlState())) {
            reason = known;
        }
    }

    /** The error behind one that says no more than that the transaction has failed; {@code null} if there is none. */
    @Nullable
    R2dbcException behind(Throwable error) {
        Throwable link = error;
        for (int i = 0; i < LONGEST_CHAIN && link != null; i++) {
            if (link instanceof R2dbcException known && isConsequence(known)) {
                return reason;
            }
            link = link.getCause();
        }
        return null;
    }

    /** That a COMMIT was answered with ROLLBACK is found out by the driver, which makes up an SQLSTATE or leaves it out. */
    private static boolean isConsequence(R2dbcException error) {
        String sqlState = error.getSqlState();
        return IN_FAILED_TRANSACTION.equals(sqlState)
                || error instanceof R2dbcRollbackException && (sqlState == null || !sqlState.startsWith("40"));
    }
}
