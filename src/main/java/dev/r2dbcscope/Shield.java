package dev.r2dbcscope;

import java.time.Duration;
import java.util.Objects;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * Runs a driver's or pool's publisher to its end, whoever stops listening.
 *
 * <p>Cancelling a driver in the middle of BEGIN, COMMIT or a release leaves connections half-open in the pool, so
 * whatever belongs to the life of a connection is subscribed here, once, with unbounded demand, and never cancelled. The
 * returned {@code Mono} only listens. A publisher that is {@code null}, throws, or breaks the protocol after its first
 * terminal signal ends as one error or one completion; later errors go to {@code onErrorDropped}. An {@code
 * onErrorContinue} somewhere downstream does not reach it: it would turn a failed COMMIT into a success.
 */
final class Shield implements CoreSubscriber<Object> {

    private final Completion end = new Completion();
    private final Context context;
    private @Nullable Subscription subscription;
    private volatile @Nullable Disposable timer;
    private volatile boolean done;

    private Shield(ContextView context) {
        this.context = Context.of(context);
    }

    /** Starts the publisher when the returned {@code Mono} is first subscribed to. */
    static Mono<Void> lazily(Supplier<? extends Publisher<?>> source) {
        return new Lazy(source);
    }

    /** Starts the publisher now; {@link Completion#NOW} if it has completed at once. */
    static Mono<Void> start(Supplier<? extends Publisher<?>> source, ContextView context) {
        return subscribe(source, context).end.asMono();
    }

    private static Shield subscribe(Supplier<? extends Publisher<?>> source, ContextView context) {
        Shield shield = new Shield(context);
        try {
            Publisher<?> publisher = publisher(source);
            if (publisher instanceof Lazy shielded) {
                publisher = publisher(shielded.source);
            }
            if (publisher == Completion.NOW) {
                shield.end.complete();
            } else {
                Flux.<Object>from(publisher).onErrorStop().subscribe(shield);
            }
        } catch (Throwable error) {
            shield.onError(error);
        }
        return shield;
    }

    private static Publisher<?> publisher(Supplier<? extends Publisher<?>> source) {
        return Objects.requireNonNull(source.get(), "The driver returned a null publisher");
    }

    /**
     * Starts the publisher when the returned {@code Mono} is first subscribed to, and fails when it takes longer than the
     * bound. What ends at once needs no timer: arming one wakes a thread, which costs more than most of these steps.
     */
    static Mono<Void> bounded(
            Supplier<? extends Publisher<?>> source, Duration bound, Supplier<? extends Throwable> tooLate) {
        return Mono.deferContextual(context -> startBounded(source, bound, tooLate, context));
    }

    /** The same, started now. */
    static Mono<Void> startBounded(
            Supplier<? extends Publisher<?>> source,
            Duration bound,
            Supplier<? extends Throwable> tooLate,
            ContextView context) {
        Shield shield = subscribe(source, context);
        if (!shield.end.hasEnded()) {
            shield.endBy(bound, tooLate);
        }
        return shield.end.asMono();
    }

    private void endBy(Duration bound, Supplier<? extends Throwable> tooLate) {
        Disposable armed;
        try {
            armed = Timers.after(bound, () -> end.fail(tooLate.get()));
        } catch (Throwable rejected) { // what cannot be bounded is given up, for the step has begun
            end.fail(tooLate.get());
            return;
        }
        timer = armed;
        if (done || end.hasEnded()) {
            armed.dispose();
        }
    }

    private void over() {
        Disposable armed = timer;
        if (armed != null) {
            armed.dispose();
        }
    }

    @Override
    public Context currentContext() {
        return context;
    }

    @Override
    public void onSubscribe(Subscription s) {
        if (Operators.validate(subscription, s)) {
            subscription = s;
            s.request(Long.MAX_VALUE);
        }
    }

    @Override
    public void onNext(Object value) {
        Operators.onDiscard(value, context);
    }

    @Override
    public void onError(Throwable error) {
        if (done) {
            Operators.onErrorDropped(error, context);
            return;
        }
        done = true;
        over();
        end.fail(error);
    }

    @Override
    public void onComplete() {
        if (!done) {
            done = true;
            over();
            end.complete();
        }
    }

    /** What {@link #lazily} returns: one shield is enough for what is subscribed to by another. */
    private static final class Lazy extends Mono<Void> {

        private final Supplier<? extends Publisher<?>> source;

        Lazy(Supplier<? extends Publisher<?>> source) {
            this.source = source;
        }

        @Override
        public void subscribe(CoreSubscriber<? super Void> actual) {
            start(source, actual.currentContext()).subscribe(actual);
        }
    }
}
