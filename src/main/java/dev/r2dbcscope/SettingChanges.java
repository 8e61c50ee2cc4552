package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** What code inside a scope changed of its connection by way of the SPI, so that the exit can undo it. */
final class SettingChanges {

    private volatile @Nullable IsolationLevel isolationBefore;
    private volatile boolean timeouts;

    /** The isolation level is about to change from this one. */
    void isolation(IsolationLevel before) {
        if (isolationBefore == null) {
            isolationBefore = before;
        }
    }

    /** The statement timeout or the lock wait timeout is about to change. */
    void timeouts() {
        timeouts = true;
    }

    boolean isEmpty() {
        return isolationBefore == null && !timeouts;
    }

    /** Sets everything back; fails if the dialect cannot. */
    Mono<Void> undo(Connection connection, Dialect dialect, Mono<Void> impossible) {
        IsolationLevel before = isolationBefore;
        Mono<Void> isolation =
                before == null ? Mono.empty() : Shield.lazily(() -> connection.setTransactionIsolationLevel(before));
        if (!timeouts) {
            return isolation;
        }
        Publisher<Void> reset = dialect.resetTimeouts(connection);
        return reset == null ? impossible : isolation.then(Shield.lazily(() -> reset));
    }
}
