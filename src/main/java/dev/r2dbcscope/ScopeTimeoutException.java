package dev.r2dbcscope;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/**
 * A scope exceeded one of its time limits. The message says which, and what the scope was doing.
 *
 * <p>{@link Limit#HOLD}, {@link Limit#IDLE} and {@link Limit#COMPLETION} end the scope's pipeline, whatever it does; the exit
 * then runs as after any other error. {@link Limit#STATEMENT} and {@link Limit#LOCK_WAIT} are the error of one statement, which
 * the database ended; its own error is the cause. {@link Limit#HOOK} is told to the listeners only. {@link #getSql()} is the
 * statement, if one was in flight.
 */
public final class ScopeTimeoutException extends ScopeException {

    private static final long serialVersionUID = 1L;

    /** The limits of a scope. */
    public enum Limit {
        /** How long it may hold its connection, see {@link ScopeOptions#withMaxHold(Duration)}. */
        HOLD,
        /** How long it may hold its connection without using it, see {@link ScopeOptions#withMaxIdle(Duration)}. */
        IDLE,
        /** How long the database may work on a statement, see {@link ScopeOptions#withStatementTimeout(Duration)}. */
        STATEMENT,
        /**
         * How long a statement may wait for a lock, see {@link ScopeOptions#withLockWaitTimeout(Duration)} and {@link
         * TransactionOptions#withLockWaitTimeout(Duration)}.
         */
        LOCK_WAIT,
        /** How long a hook may take, see {@link ScopeOptions#withHookTimeout(Duration)}. */
        HOOK,
        /**
         * How long the pipeline, or code that it started, may go on without its subscriber, see {@link
         * TransactionOptions#withCompletionTimeout(Duration)}.
         */
        COMPLETION
    }

    /** Which limit. */
    private final Limit limit;

    /** The limit's bound. */
    private final Duration bound;

    /** What the scope was doing. */
    private final ScopeState state;

    private ScopeTimeoutException(
            Limit limit,
            Duration bound,
            String problem,
            LiveScope scope,
            ScopeLabel label,
            @Nullable String sql,
            @Nullable Throwable cause) {
        super(problem + "; " + doing(scope), label, sql, cause);
        this.limit = limit;
        this.bound = bound;
        this.state = scope.state();
    }

    static ScopeTimeoutException hold(Duration bound, LiveScope scope, ScopeLabel label) {
        return new ScopeTimeoutException(
                Limit.HOLD,
                bound,
                "The scope held its connection for longer than its bound of " + bound
                        + " (ScopeOptions.withMaxHold) and was ended",
                scope,
                label,
                scope.statement(),
                null);
    }

    static ScopeTimeoutException idle(Duration bound, Pause pause, LiveScope scope, ScopeLabel label) {
        String what = pause.sql() == null
                ? "no statement was in flight"
                : "nobody asked for the rows of \"" + pause.sql() + "\"";
        return new ScopeTimeoutException(
                Limit.IDLE,
                bound,
                "The scope held its connection without using it for longer than its bound of " + bound
                        + " (ScopeOptions.withMaxIdle) and was ended: " + what
                        + "; do slow work before or after the scope, or read the rows into memory first",
                scope,
                label,
                pause.sql(),
                null);
    }

    static ScopeTimeoutException statement(
            Duration bound, String sql, Duration took, LiveScope scope, ScopeLabel label, Throwable cause) {
        return new ScopeTimeoutException(
                Limit.STATEMENT,
                bound,
                "\"" + sql + "\" exceeded the scope's statement timeout of " + bound
                        + " (ScopeOptions.withStatementTimeout): the database ended it after " + took.toMillis()
                        + " ms",
                scope,
                label,
                sql,
                cause);
    }

    static ScopeTimeoutException lockWait(
            Duration bound, String sql, Duration took, LiveScope scope, ScopeLabel label, Throwable cause) {
        return new ScopeTimeoutException(
                Limit.LOCK_WAIT,
                bound,
                "\"" + sql + "\" waited for a lock for longer than the lock wait timeout of " + bound
                        + " (withLockWaitTimeout): the database ended it after " + took.toMillis() + " ms",
                scope,
                label,
                sql,
                cause);
    }

    static ScopeTimeoutException hook(Duration bound, LiveScope scope, ScopeLabel label) {
        return new ScopeTimeoutException(
                Limit.HOOK,
                bound,
                "A hook had not ended after the hook timeout of " + bound
                        + " and was cancelled; make it shorter, or raise ScopeOptions.withHookTimeout",
                scope,
                label,
                null,
                null);
    }

    static ScopeTimeoutException completion(Duration bound, String what, LiveScope scope, ScopeLabel label) {
        return new ScopeTimeoutException(
                Limit.COMPLETION,
                bound,
                what + " not ended when the completion timeout of " + bound
                        + " expired; let it end sooner, or raise TransactionOptions.withCompletionTimeout",
                scope,
                label,
                scope.statement(),
                null);
    }

    private static String doing(LiveScope scope) {
        return "the scope was " + scope.state() + (scope.statement() == null ? "" : " \"" + scope.statement() + "\"")
                + " and had started " + scope.statements() + " statements, of which " + scope.statementsInFlight()
                + " were in flight while " + scope.statementsWaiting() + " waited; it had held its connection for "
                + scope.held().toMillis() + " ms and spent "
                + scope.inDatabase().toMillis()
                + " ms of that in the database";
    }

    /**
     * Returns which limit was exceeded.
     *
     * @return the limit
     */
    public Limit limit() {
        return limit;
    }

    /**
     * Returns the bound that was exceeded.
     *
     * @return the bound
     */
    public Duration bound() {
        return bound;
    }

    /**
     * Returns what the scope was doing when the limit was found to be exceeded.
     *
     * @return its state
     */
    public ScopeState state() {
        return state;
    }
}
