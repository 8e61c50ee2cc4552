package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
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
 * @param <T> what the scope emits
 */
final class ScopeSubscriber<T> implements CoreSubscriber<T>, Subscription {

    private final CoreSubscriber<? super T> actual;
    private final Scope scope;
    private final ScopeBody<T> body;
    private @Nullable Subscription upstream;
    private volatile @Nullable BodySubscriber<T> bodySubscriber;
    private volatile boolean cancelled;

    ScopeSubscriber(CoreSubscriber<? super T> actual, Scope scope, ScopeBody<T> body) {
        this.actual = actual;
        this.scope = scope;
        this.body = body;
    }

    void subscribeMono() {
        Mono.usingWhen(Mono.just(scope), resource -> new BodyMono<>(this), Scope::complete, Scope::fail, Scope::cancel)
                .subscribe(this);
    }

    void subscribeFlux() {
        Flux.usingWhen(Mono.just(scope), resource -> new BodyFlux<>(this), Scope::complete, Scope::fail, Scope::cancel)
                .subscribe(this);
    }

    private void start(CoreSubscriber<? super T> usingWhen, boolean isMono) {
        Context context = scope.session().root().with(scope, actual.currentContext());
        boolean limited = scope.hasTimeLimits();
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
        if (cancelled) {
            Operators.onDiscard(value, currentContext());
        } else {
            actual.onNext(value);
        }
    }

    @Override
    public void onError(Throwable error) {
        if (cancelled) {
            if (bodySubscriber == null || !bodySubscriber.expiredWith(error)) {
                Operators.onErrorDropped(error, currentContext());
            }
        } else {
            Throwable own = scope.endingError();
            actual.onError(own != null && error.getCause() == own ? own : error);
        }
    }

    @Override
    public void onComplete() {
        if (!cancelled) {
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

    @Override
    public void cancel() {
        cancelled = true;
        Subscription s = upstream;
        if (s != null) {
            s.cancel();
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
