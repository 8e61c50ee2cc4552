package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/**
 * A transaction's COMMIT was sent, or may have been, and no answer to it came: the connection was lost meanwhile, or the
 * release timeout expired. The work may be durable or not, so it is never retried automatically; ask the database for a
 * trace of the transaction before doing it again. The physical connection was destroyed.
 *
 * <p>A COMMIT that the database refuses is not of this kind: its error is passed on as it is, and the transaction was
 * rolled back. One that could not even be sent is a {@link ScopeReleaseException}.
 */
public final class CommitOutcomeUnknownException extends ScopeException {

    private static final long serialVersionUID = 1L;

    CommitOutcomeUnknownException(String problem, ScopeLabel scope, @Nullable Throwable cause) {
        super(
                problem + ", so whether the transaction was committed is not known; ask the database before doing the"
                        + " work again",
                scope,
                null,
                cause);
    }
}
