package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.util.context.Context;

/**
 * A subscriber for races: it may be cancelled while it is being subscribed, and watches that signals come one at a time
 * and end once, and what its pipeline drops.
 *
 * @param <T> what it receives
 */
final class Probe<T> implements CoreSubscriber<T> {

    private final Drops drops = new Drops();
    private final Context context = drops.watch(Context.empty());
    private final long demand;
    private final List<T> values = new CopyOnWriteArrayList<>();
    private final List<String> offences = new CopyOnWriteArrayList<>();
    private final AtomicInteger terminals = new AtomicInteger();
    private final AtomicBoolean busy = new AtomicBoolean();
    private volatile @Nullable Subscription subscription;
    private volatile @Nullable Throwable error;

    private Probe(long demand) {
        this.demand = demand;
    }

    /** Wants everything. */
    static <T> Probe<T> unbounded() {
        return new Probe<>(Long.MAX_VALUE);
    }

    /** Wants the given number of elements at first. */
    static <T> Probe<T> requesting(long demand) {
        return new Probe<>(demand);
    }

    @Override
    public Context currentContext() {
        return context;
    }

    @Override
    public void onSubscribe(Subscription s) {
        if (demand > 0) {
            s.request(demand);
        }
        subscription = s;
    }

    @Override
    public void onNext(T value) {
        signal("onNext", () -> values.add(value));
    }

    @Override
    public void onError(Throwable thrown) {
        error = thrown;
        signal("onError", terminals::incrementAndGet);
    }

    @Override
    public void onComplete() {
        signal("onComplete", terminals::incrementAndGet);
    }

    private void signal(String name, Runnable effect) {
        if (!busy.compareAndSet(false, true)) {
            offences.add(name + " while another signal was being delivered");
        }
        if (terminals.get() > 0) {
            offences.add(name + " after the end");
        }
        effect.run();
        busy.set(false);
    }

    private Subscription subscription() {
        Settling.await("onSubscribe was called", () -> subscription != null);
        return java.util.Objects.requireNonNull(subscription);
    }

    void cancel() {
        subscription().cancel();
    }

    void request(long n) {
        subscription().request(n);
    }

    List<T> values() {
        return values;
    }

    @Nullable
    Throwable error() {
        return error;
    }

    Drops drops() {
        return drops;
    }

    boolean isTerminated() {
        return terminals.get() > 0;
    }

    boolean isCompleted() {
        return isTerminated() && error == null;
    }

    Probe<T> awaitEnd() {
        Settling.await("the end", this::isTerminated);
        return this;
    }

    /** The signals were serial, and ended at most once. */
    void assertSound() {
        assertThat(offences).isEmpty();
    }
}
