package dev.r2dbcscope;

import java.time.Duration;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;

/** What the gate and the exchanges that pass it need to know of the scope that they belong to. */
interface GateOwner {

    /** The error for those who come after the end. */
    RuntimeException closedError();

    /** The error for a result that was read ahead beyond the bound. */
    RuntimeException overflowError(String openSql, String waitingSql);

    /** The error for a statement that found too many waiting. */
    RuntimeException tooManyError(String sql);

    /** The error for a statement that waited too long behind a transaction that holds the connection. */
    RuntimeException heldError(String waitingSql, String holder);

    /** How long a statement may wait behind such a transaction. */
    Duration longestHold();

    /** Whether the connection is destroyed, or will be, so that nothing may be sent on it. */
    boolean isLost();

    /** The connection's dialect. */
    Dialect dialect();

    /** The options of the scope. */
    ScopeOptions options();

    /** Whether an error of a statement would do harm to others than the statement itself. */
    boolean isInTransaction();

    /** Whether its transaction is rolled back even if its pipeline completes. */
    boolean willRollBack();

    /**
     * Asks the database to cancel what the connection runs; {@code null} if it cannot be asked. Completes when nothing later
     * can be hit, takes no longer than the release timeout, and is never cancelled.
     */
    @Nullable
    Mono<Void> cancelRequest();

    /** Ends when a fetch that was cancelled is over, see {@link Dialect#afterCancelledFetch}; {@code null} if never. */
    @Nullable
    Mono<Void> afterCancelledFetch();

    /** Takes notice that the database was asked, so long after the statement was sent, and has answered or not. */
    void cancelRequested(String sql, long ran, long took, @Nullable Throwable error);

    /** A request may still come to the database: the connection cannot be used any more. What to tell the exit. */
    Throwable cancelFailed(Throwable error);

    /** The connection cannot be used any more. */
    void condemn();

    /** Takes notice of an error of the database. */
    void databaseFailed(Throwable error);

    /** The error of a statement as its subscriber gets it, so long after the statement went to the driver. */
    Throwable shown(Throwable error, String sql, long nanos);

    /** Takes notice that a statement ended. */
    void statementEnded(String sql, long nanos, long rows, @Nullable Throwable error);
}
