package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * Subscribes the connection factory for one session, and never cancels it.
 *
 * <p>A connection that arrives after a cancel is lost in most acquisition chains, and r2dbc-pool takes a connection back
 * that was already delivered if its publisher is cancelled then (r2dbc-pool#211). So the acquisition always runs to its
 * end; what arrives and is not wanted, because the session is over, because it is a second one, or because an error came
 * first, is released here or by the session.
 *
 * <p>A connection that is delivered while {@code subscribe} has not returned is handed on only afterwards, and one from
 * another thread by way of a scheduler: either way the scope's body does not run inside the pool's delivery loop.
 */
final class Acquisition implements CoreSubscriber<Connection> {

    /** Stands for "subscribe has returned". */
    private static final Object RETURNED = new Object();

    private final FactorySupply supply;
    private final Entry entry;
    private final Context context;
    private final Context acquiring;
    private final AtomicReference<@Nullable Object> early = new AtomicReference<>();
    private final Thread subscriber = Thread.currentThread();
    private @Nullable Subscription subscription;
    private boolean done;

    Acquisition(FactorySupply supply, Entry entry, ContextView context) {
        this.supply = supply;
        this.entry = entry;
        this.context = Context.of(context);
        this.acquiring = CurrentScope.acquiring(entry.scope(), this.context);
    }

    /** Hands on what came while subscribing. */
    void afterSubscribe() {
        Object connection = early.getAndSet(RETURNED);
        if (connection instanceof Connection arrived) {
            entry.received(arrived, context);
        }
    }

    /** The factory may want to know who asks. */
    @Override
    public Context currentContext() {
        return acquiring;
    }

    @Override
    public void onSubscribe(Subscription s) {
        if (Operators.validate(subscription, s)) {
            subscription = s;
            s.request(Long.MAX_VALUE);
        }
    }

    @Override
    public void onNext(Connection connection) {
        if (done) {
            if (supply.claim(connection)) {
                supply.release(connection).subscribe(null, e -> Operators.onErrorDropped(e, context), null, context);
            }
            return;
        }
        done = true;
        if (!supply.claim(connection)) {
            entry.failed(entry.acquisitionError(
                    "The connection factory handed out a connection that another live scope still holds (" + connection
                            + "); it must give every subscriber a connection of its own"));
            return;
        }
        if (Thread.currentThread() == subscriber && early.compareAndSet(null, connection)) {
            return;
        }
        FactorySupply.leaveDelivery(connection, () -> entry.received(connection, context));
    }

    @Override
    public void onError(Throwable error) {
        if (done) {
            Operators.onErrorDropped(error, context);
            return;
        }
        done = true;
        entry.failed(error);
    }

    @Override
    public void onComplete() {
        if (!done) {
            done = true;
            entry.failed(entry.acquisitionError("The connection factory completed without a connection"));
        }
    }
}
