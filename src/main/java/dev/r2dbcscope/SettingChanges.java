package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/**
 * What code inside a scope changed of its connection by way of the SPI, so that the exit can undo it. A transaction
 * inside a scope leaves that scope what it had set itself.
 */
final class SettingChanges {

    private final @Nullable SettingChanges outer;
    private volatile @Nullable IsolationLevel isolationBefore;
    private volatile boolean isolation;
    private volatile @Nullable IsolationLevel begunAs;
    private volatile boolean timeouts;
    private volatile @Nullable Duration statementTimeout;
    private volatile @Nullable Duration lockWaitTimeout;

    SettingChanges(@Nullable SettingChanges outer) {
        this.outer = outer;
    }

    /** A transaction is about to begin, in which drivers answer with its own level. */
    void beginning(Connection connection) {
        if (isolationBefore == null) {
            isolationBefore = connection.getTransactionIsolationLevel();
        }
    }

    /** The isolation level is about to change. */
    void isolation(Connection connection) {
        beginning(connection);
        isolation = true;
        begunAs = null;
    }

    /** The transaction begins by SQL, of which the driver learns nothing, at the given level if there is one. */
    void begunAs(@Nullable IsolationLevel level) {
        begunAs = level;
    }

    /** The isolation level that is in effect. */
    IsolationLevel isolationNow(Connection connection) {
        IsolationLevel known = begunAs;
        return known != null || outer == null
                ? known == null ? connection.getTransactionIsolationLevel() : known
                : outer.isolationNow(connection);
    }

    /** The statement timeout is about to change. */
    void statementTimeout(Duration timeout) {
        statementTimeout = timeout;
        timeouts = true;
    }

    /** The lock wait timeout is about to change. */
    void lockWaitTimeout(Duration timeout) {
        lockWaitTimeout = timeout;
        timeouts = true;
    }

    /** The scope has set timeouts itself, and takes them back itself: what a scope inside it changes goes back to them. */
    void timeoutsOfTheScope(Duration statement, Duration lockWait) {
        if (!statement.isZero()) {
            statementTimeout = statement;
        }
        if (!lockWait.isZero()) {
            lockWaitTimeout = lockWait;
        }
    }

    /** Whether that is the statement timeout now, as far as it was set by a scope or by way of the SPI. */
    boolean isStatementTimeout(Duration timeout) {
        Duration own = statementTimeout;
        return own != null ? own.equals(timeout) : outer == null || outer.isStatementTimeout(timeout);
    }

    /** Whether that is the lock wait timeout now. */
    boolean isLockWaitTimeout(Duration timeout) {
        Duration own = lockWaitTimeout;
        return own != null ? own.equals(timeout) : outer == null || outer.isLockWaitTimeout(timeout);
    }

    boolean isEmpty() {
        return isolationBefore == null && !timeouts;
    }

    /** Sets everything back; fails if the dialect cannot. */
    Mono<Void> undo(Connection connection, Dialect dialect, Mono<Void> impossible) {
        return undoIsolation(connection).then(undoTimeouts(connection, dialect, impossible));
    }

    private Mono<Void> undoIsolation(Connection connection) {
        IsolationLevel before = isolationBefore;
        return before == null || !isolation && before.equals(connection.getTransactionIsolationLevel())
                ? Mono.empty()
                : Shield.lazily(() -> connection.setTransactionIsolationLevel(before));
    }

    private Mono<Void> undoTimeouts(Connection connection, Dialect dialect, Mono<Void> impossible) {
        if (!timeouts) {
            return Mono.empty();
        }
        Publisher<Void> reset = dialect.resetTimeouts(connection);
        if (outer == null) {
            return reset == null ? impossible : Shield.lazily(() -> reset);
        }
        if (reset == null) {
            outer.timeouts = true;
            return Mono.empty();
        }
        Duration statement = outer.statementTimeoutNow();
        Duration lockWait = outer.lockWaitTimeoutNow();
        outer.timeouts |= statement != null || lockWait != null;
        return Shield.lazily(() -> reset)
                .then(again(statement, connection::setStatementTimeout))
                .then(again(lockWait, connection::setLockWaitTimeout));
    }

    private @Nullable Duration statementTimeoutNow() {
        Duration own = statementTimeout;
        return own != null || outer == null ? own : outer.statementTimeoutNow();
    }

    private @Nullable Duration lockWaitTimeoutNow() {
        Duration own = lockWaitTimeout;
        return own != null || outer == null ? own : outer.lockWaitTimeoutNow();
    }

    private static Mono<Void> again(@Nullable Duration timeout, Function<Duration, Publisher<Void>> setting) {
        return timeout == null ? Mono.empty() : Shield.lazily(() -> setting.apply(timeout));
    }
}
