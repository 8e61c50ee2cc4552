package dev.r2dbcscope;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;

/**
 * The outer half of the guard around {@code usingWhen}: stands between usingWhen and the scope's subscriber.
 *
 * <p>It passes on the COMMIT's own error where usingWhen wraps it, throws a Mono's value away that usingWhen would
 * deliver after a cancel, and answers a request that is not positive with the error that the Reactive Streams
 * specification asks for (3.9).
 *
 * <p>It hands usingWhen a resource that is already there, the {@link Scope}. That is the one case in which
 * {@code Flux.usingWhen} and {@code Mono.usingWhen} wire the body directly to the subscriber; with an asynchronous
 * resource they miss a cancel while a synchronous body emits, and commit. The connection is acquired inside the body.
 *
 * <p>Under {@link OnCancel#COMPLETE} it keeps the cancel to itself, and throws away what the pipeline still emits.
 *
 * @param <T> what the scope emits
 */
final class ScopeSubscriber<T> implements CoreSubscriber<T>, Subscription {

    @SuppressWarnings("rawtypes")
    private static final AtomicIntegerFieldUpdater<ScopeSubscriber> CANCELLED =
            AtomicIntegerFieldUpdater.newUpdater(ScopeSubscriber.class, "cancelled");

    private final CoreSubscriber<? super T> actual;
    private final Scope scope;
    private final ScopeBody<T> body;
    private @Nullable Subscription upstream;
    private volatile @Nullable BodySubscriber<T> bodySubscriber;
    private volatile int cancelled;
    private volatile boolean ended;
    private volatile @Nullable Disposable deadline;

    ScopeSubscriber(CoreSubscriber<? super T> actual, Scope scope, ScopeBody<T> body) {
        this.actual = actual;
        this.scope = scope;
        this.body = body;
    }

    void subscribeMono() {
        Mono.usingWhen(Mono.just(scope), resource -> new BodyMono<>(this), this::complete, Scope::fail, Scope::cancel)
                .subscribe(this);
    }

    void subscribeFlux() {
        Flux.usingWhen(Mono.just(scope), resource -> new BodyFlux<>(this), Scope::complete, Scope::fail, Scope::cancel)
                .subscribe(this);
    }

    private Mono<Void> complete(Scope completed) {
        BodySubscriber<T> subscriber = bodySubscriber;
        if (subscriber != null) {
            subscriber.completionWon();
        }
        return completed.complete();
    }

    private void start(CoreSubscriber<? super T> usingWhen, boolean isMono) {
        Context context = scope.session().root().with(scope, actual.currentContext());
        boolean limited = scope.hasTimeLimits() || scope.completesWithoutSubscriber();
        BodySubscriber<T> subscriber = new BodySubscriber<>(usingWhen, context, isMono, limited);
        bodySubscriber = subscriber;
        scope.failsBy(subscriber::failUnlessEnded);
        if (limited) {
            scope.expiresBy(subscriber::expire);
        }
        usingWhen.onSubscribe(subscriber);
        body.start(scope, subscriber);
    }

    @Override
    public Context currentContext() {
        return actual.currentContext();
    }

    @Override
    public void onSubscribe(Subscription s) {
        if (Operators.validate(upstream, s)) {
            upstream = s;
            actual.onSubscribe(this);
        }
    }

    @Override
    public void onNext(T value) {
        if (isCancelled()) {
            Operators.onDiscard(value, currentContext());
        } else {
            actual.onNext(value);
        }
    }

    @Override
    public void onError(Throwable error) {
        over();
        Throwable own = scope.endingError();
        Throwable unwrapped = own != null && error.getCause() == own ? own : error;
        if (isCancelled()) {
            BodySubscriber<T> body = bodySubscriber;
            if (deadline != null || body == null || !body.expiredWith(error)) {
                Operators.onErrorDropped(unwrapped, currentContext());
            }
        } else {
            actual.onError(unwrapped);
        }
    }

    @Override
    public void onComplete() {
        over();
        if (!isCancelled()) {
            actual.onComplete();
        }
    }

    @Override
    public void request(long n) {
        Subscription s = upstream;
        if (n > 0 && s != null) {
            s.request(n);
            return;
        }
        BodySubscriber<T> subscriber = bodySubscriber;
        if (subscriber != null) {
            subscriber.rejectRequest(n);
        }
    }

    private boolean isCancelled() {
        return cancelled != 0;
    }

    @Override
    public void cancel() {
        Subscription s = upstream;
        if (!CANCELLED.compareAndSet(this, 0, 1) || s == null) {
            return;
        }
        BodySubscriber<T> body = bodySubscriber;
        if (body == null || !body.hasStarted() || !scope.completesWithoutSubscriber()) {
            scope.cancelling();
            s.cancel();
        } else if (!body.hasEnded()) {
            detach(s, body);
        }
    }

    /** Lets the body go on, bounded in time, while everything that it emits is thrown away. */
    private void detach(Subscription s, BodySubscriber<T> body) {
        scope.session().report().detached();
        Disposable.Swap timer = Disposables.swap();
        deadline = timer;
        timer.update(Schedulers.parallel()
                .schedule(
                        () -> body.expire(scope.detachedTooLongError()),
                        scope.completionTimeout().toNanos(),
                        TimeUnit.NANOSECONDS));
        if (ended) {
            timer.dispose();
        }
        s.request(Long.MAX_VALUE);
    }

    private void over() {
        ended = true;
        Disposable timer = deadline;
        if (timer != null) {
            timer.dispose();
        }
    }

    /** The body as usingWhen's Mono sees it. */
    private static final class BodyMono<T> extends Mono<T> {

        private final ScopeSubscriber<T> parent;

        BodyMono(ScopeSubscriber<T> parent) {
            this.parent = parent;
        }

        @Override
        public void subscribe(CoreSubscriber<? super T> usingWhen) {
            parent.start(usingWhen, true);
        }
    }

    /** The body as usingWhen's Flux sees it. */
    private static final class BodyFlux<T> extends Flux<T> {

        private final ScopeSubscriber<T> parent;

        BodyFlux(ScopeSubscriber<T> parent) {
            this.parent = parent;
        }

        @Override
        public void subscribe(CoreSubscriber<? super T> usingWhen) {
            parent.start(usingWhen, false);
        }
    }
}
