package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/**
 * One run of code outside the Reactor world: holds the scope from the start of the code until its end, whoever cancels
 * meanwhile.
 */
final class BridgedCode {

    private final Connection connection;
    private final Context context;
    private final AtomicBoolean ended = new AtomicBoolean();
    private volatile boolean cancelled;
    private volatile @Nullable Scope held;

    BridgedCode(Connection connection, Context context) {
        this.connection = connection;
        this.context = context;
    }

    /** Starts the code, unless the scope has ended; what it throws is its end too. */
    void start(Runnable code, Consumer<Throwable> failed) {
        try {
            Scope scope = ScopeBridge.scopeOf(connection, context);
            if (scope != null) {
                if (!scope.hold(this)) {
                    throw scope.closedError();
                }
                held = scope;
            }
            code.run();
        } catch (Throwable e) {
            end(() -> fail(e, failed));
        }
    }

    /** The subscriber has left; the code goes on. */
    void cancelled() {
        cancelled = true;
    }

    /**
     * The code has ended: lets go of the scope, then passes the signal on. In this order, a pipeline that ends with the
     * signal finds nothing to wait for.
     */
    void end(Runnable signal) {
        if (ended.compareAndSet(false, true)) {
            giveUp();
        }
        signal.run();
    }

    /** No scope waits for it any longer. */
    void giveUp() {
        Scope scope = held;
        if (scope != null) {
            scope.letGo(this);
        }
    }

    void succeed(@Nullable Object value, Runnable emit) {
        if (cancelled) {
            Operators.onDiscard(value, context);
        } else {
            emit.run();
        }
    }

    void fail(Throwable error, Consumer<Throwable> emit) {
        if (cancelled) {
            Operators.onErrorDropped(error, context);
        } else {
            emit.accept(error);
        }
    }
}
