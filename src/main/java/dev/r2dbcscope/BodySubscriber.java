package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReferenceFieldUpdater;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/**
 * The inner half of the guard around {@code usingWhen}: stands between the body and usingWhen's own subscriber.
 *
 * <p>It gives usingWhen a subscription before the connection or the body is there, so that a cancel is heard at any
 * time; takes the body's cancel and error paths even where the body throws from {@code cancel()} or the subscriber from
 * {@code onNext}, which would make usingWhen skip its ending; discards a Mono's value that usingWhen holds when it is
 * cancelled; and sends what the body emits too late to the discard and
 * drop hooks, except that a cancelled body finds its scope closed, which is no news. Its Context carries the scope.
 *
 * @param <T> what the body emits
 */
final class BodySubscriber<T> implements CoreSubscriber<T>, Subscription {

    @SuppressWarnings("rawtypes")
    private static final AtomicReferenceFieldUpdater<BodySubscriber, @Nullable Object> HELD =
            AtomicReferenceFieldUpdater.newUpdater(BodySubscriber.class, Object.class, "held");

    private final CoreSubscriber<? super T> actual;
    private final Context context;
    private final LateSubscription upstream = new LateSubscription();
    private final AtomicBoolean terminated = new AtomicBoolean();
    private final boolean isMono;
    private final @Nullable Turns turns;
    private volatile @Nullable Object held;
    private volatile @Nullable Throwable expired;
    private volatile boolean ended;
    private volatile boolean cancelled;
    private volatile boolean started;

    BodySubscriber(CoreSubscriber<? super T> actual, Context context, boolean isMono, boolean limited) {
        this.actual = actual;
        this.context = context;
        this.isMono = isMono;
        this.turns = limited ? new Turns() : null;
    }

    /** Starts the body. */
    void run(Supplier<? extends Publisher<? extends T>> body) {
        if (cancelled || terminated.get()) {
            return;
        }
        started = true;
        try {
            body.get().subscribe(this);
        } catch (Throwable e) {
            fail(e);
        }
    }

    /** Whether the body was started, and may have ended since. */
    boolean hasStarted() {
        return started;
    }

    boolean hasEnded() {
        return terminated.get();
    }

    /**
     * Starts the body when the session is open. The wait is never cancelled: the session ends it, and an error that met a
     * cancelled subscription would be dropped noisily.
     */
    void whenOpen(Session session, Supplier<? extends Publisher<? extends T>> body) {
        if (cancelled) {
            return;
        }
        Mono<Void> open = session.opening(context);
        if (open == Completion.NOW) {
            run(body);
        } else {
            open.subscribe(null, this::openingFailed, () -> run(body), context);
        }
    }

    private void openingFailed(Throwable error) {
        if (!cancelled && !terminated.get()) {
            fail(error);
        }
    }

    @Override
    public Context currentContext() {
        return context;
    }

    @Override
    public void onSubscribe(Subscription s) {
        upstream.arrive(s);
    }

    @Override
    public void onNext(T value) {
        if (isOver()) {
            Operators.onDiscard(value, context);
            return;
        }
        if (terminated.get()) {
            Operators.onNextDropped(value, context);
            return;
        }
        if (turns == null) {
            deliver(value);
        } else if (!turns.begin()) {
            Operators.onDiscard(value, context);
        } else {
            deliver(value);
            if (turns.end()) {
                signalExpiry();
            }
        }
    }

    private void deliver(T value) {
        if (isMono) {
            held = value;
        }
        try {
            actual.onNext(value);
        } catch (Throwable e) {
            fail(e);
        }
        if (cancelled) {
            discardHeld();
        }
    }

    /** Whether what the body still does is of no interest: it was told to stop. */
    private boolean isOver() {
        return cancelled || turns != null && terminated.get() && !ended;
    }

    @Override
    public void onError(Throwable error) {
        if (!cancelled && terminated.compareAndSet(false, true)) {
            ended = true;
            letGo();
            actual.onError(error);
        } else if (!isOver() || !(error instanceof ScopeClosedException)) {
            Operators.onErrorDropped(error, context);
        }
    }

    @Override
    public void onComplete() {
        if (!cancelled && terminated.compareAndSet(false, true)) {
            ended = true;
            upstream.ended();
            actual.onComplete();
        }
    }

    /** The completion has won against a cancel: usingWhen will emit the value itself. */
    void completionWon() {
        held = null;
    }

    /** Whoever still holds the subscription of an ended scope holds nothing of the body. */
    private void letGo() {
        upstream.ended();
        held = null;
    }

    /** Ends the body from outside: cancels it and takes the error path. */
    void fail(Throwable error) {
        cancelUpstream();
        onError(error);
    }

    /** Ends the body from outside, unless it has ended: then nobody can be told. */
    void failUnlessEnded(Throwable error) {
        if (!cancelled && !terminated.get()) {
            fail(error);
        } else {
            Operators.onErrorDropped(error, context);
        }
    }

    /**
     * Ends the body from another thread than its own, unless it has ended. If it is emitting at that moment, the error waits
     * for that, because signals come one at a time.
     */
    void expire(Throwable error) {
        if (cancelled || turns == null) {
            return;
        }
        expired = error;
        if (terminated.compareAndSet(false, true)) {
            cancelUpstream();
            if (turns.close()) {
                signalExpiry();
            }
        }
    }

    private void signalExpiry() {
        Throwable error = expired;
        if (error != null) {
            letGo();
            actual.onError(error);
        }
    }

    /** Whether that is the error with which a time limit ended the body. */
    boolean expiredWith(Throwable error) {
        return expired == error;
    }

    /** Answers a request that is not positive, unless it comes after the end. */
    void rejectRequest(long n) {
        if (!terminated.get()) {
            fail(new IllegalArgumentException(
                    "Reactive Streams specification rule 3.9: the number of requested elements must be positive: "
                            + n));
        }
    }

    @Override
    public void request(long n) {
        upstream.request(n);
    }

    @Override
    public void cancel() {
        cancelled = true;
        cancelUpstream();
        discardHeld();
    }

    /** Called by a cancel that has won, so usingWhen emits no value any more, and by whoever handed it one meanwhile. */
    private void discardHeld() {
        Object discarded = HELD.getAndSet(this, null);
        if (discarded != null) {
            Operators.onDiscard(discarded, context);
        }
    }

    private void cancelUpstream() {
        try {
            upstream.cancel();
        } catch (Throwable e) {
            Operators.onErrorDropped(e, context);
        }
    }
}
