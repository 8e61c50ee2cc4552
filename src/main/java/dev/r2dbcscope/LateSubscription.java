package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.publisher.Operators;

/**
 * A subscription to a publisher that has not called {@code onSubscribe} yet.
 *
 * <p>Demand that comes early is added up and handed over serially once the subscription arrives: {@code request} is
 * never called from two threads at once during the hand-over, and demand that a synchronous source provokes while it is
 * being served is handed over by the same loop, so the stack does not grow. Cancellation takes its own path and reaches
 * the source at once, also in the middle of a hand-over; that is what {@code Operators.DeferredSubscription} does not
 * do, and why {@code Flux.usingWhen} with an asynchronous resource misses a cancel while its body emits synchronously.
 */
class LateSubscription implements Subscription {

    private static final long HANDED_OVER = -1;

    private static final Subscription CANCELLED = Operators.cancelledSubscription();

    private static final AtomicLongFieldUpdater<LateSubscription> REQUESTED =
            AtomicLongFieldUpdater.newUpdater(LateSubscription.class, "requested");

    private volatile long requested;

    private volatile @Nullable Subscription arrived;

    private boolean cancelled;

    /**
     * Accepts the subscription, unless it was cancelled before, in which case it is cancelled, or one arrived before.
     */
    final void arrive(Subscription subscription) {
        boolean accepted;
        synchronized (this) {
            accepted = !cancelled && arrived == null;
            if (accepted) {
                arrived = subscription;
            }
        }
        if (accepted) {
            handOver(subscription);
        } else {
            subscription.cancel();
        }
    }

    private void handOver(Subscription subscription) {
        long handed = 0;
        while (true) {
            long total = requested;
            if (total > handed) {
                subscription.request(total == Long.MAX_VALUE ? Long.MAX_VALUE : total - handed);
                handed = total;
            }
            if (REQUESTED.compareAndSet(this, total, HANDED_OVER)) {
                return;
            }
        }
    }

    @Override
    public void request(long n) {
        while (true) {
            long total = requested;
            if (total == HANDED_OVER) {
                Subscription subscription = arrived;
                if (subscription != null) {
                    subscription.request(n);
                }
                return;
            }
            if (REQUESTED.compareAndSet(this, total, Operators.addCap(total, n))) {
                return;
            }
        }
    }

    /** Lets go of the source, which has ended: whoever still holds this holds nothing of it. */
    final void ended() {
        synchronized (this) {
            cancelled = true;
            arrived = CANCELLED;
        }
    }

    @Override
    public void cancel() {
        Subscription subscription;
        synchronized (this) {
            if (cancelled) {
                return;
            }
            cancelled = true;
            subscription = arrived;
            arrived = CANCELLED;
        }
        if (subscription != null) {
            subscription.cancel();
        }
    }
}
