package dev.r2dbcscope;

/**
 * What a transaction does when its subscriber cancels before the pipeline has ended.
 *
 * @see TransactionOptions#withOnCancel(OnCancel)
 */
public enum OnCancel {
    /** Rolls back. */
    ROLLBACK,

    /**
     * Commits what was done, if the pipeline is between statements: no statement waits to be sent or to be answered. A
     * result whose rows are being read counts as answered and is read to its end first. Otherwise it rolls back. This makes
     * {@code take(n)}, {@code next()} and {@code Mono.from} downstream of a transactional {@code Flux} safe.
     */
    COMMIT,

    /**
     * Lets the pipeline finish without its subscriber, and commits if it completes: for work that must not be lost when a
     * client hangs up. Its elements are discarded, its error goes to Reactor's {@code onErrorDropped} hook, and the
     * listeners hear of it by {@link ScopeEvent.Detached}. A pipeline that was still waiting for the connection to start
     * with has done nothing that could be lost, and is cancelled. Bounded by {@link TransactionOptions#withCompletionTimeout}. It is
     * not tried again after the cancel, whatever {@link TransactionOptions#withRetry} says. It needs a connection of the
     * scope's own: a scope that joins another one, or is a transaction or savepoint inside it, rolls back instead.
     */
    COMPLETE
}
