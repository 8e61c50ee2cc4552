package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.Objects;
import java.util.function.Function;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * What runs inside a scope.
 *
 * @param opensFirst whether the connection is there before the pipeline is asked for, or opened at first use
 * @param pipeline makes the publisher, for each subscription
 * @param <T> what it emits
 */
record ScopeBody<T>(boolean opensFirst, Function<? super Scope, ? extends Publisher<? extends T>> pipeline) {

    /** Starts the subscriber on the body's publisher, now or when the connection is there. */
    void start(Scope scope, BodySubscriber<T> subscriber) {
        if (opensFirst) {
            subscriber.whenOpen(scope.session(), () -> pipeline.apply(scope));
        } else {
            subscriber.run(() -> pipeline.apply(scope));
        }
    }

    /** The same with an operator at its end, which is part of the scope. */
    <R> ScopeBody<R> through(Function<? super Publisher<? extends T>, ? extends Publisher<? extends R>> operator) {
        return new ScopeBody<>(opensFirst, scope -> operator.apply(pipeline.apply(scope)));
    }

    /** The upstream of an operator: the connection is opened at first use. */
    static <T> ScopeBody<T> upstream(Publisher<? extends T> source) {
        return new ScopeBody<>(false, scope -> source);
    }

    /** A closure: the connection is opened first. */
    static <T> ScopeBody<T> closure(Function<? super Connection, ? extends Publisher<? extends T>> closure) {
        return new ScopeBody<>(
                true,
                scope -> Objects.requireNonNull(
                        closure.apply(new ScopedConnection(scope)), "The scope's function returned a null publisher"));
    }

    /** A closure of which the first element is wanted. */
    static <T> ScopeBody<T> firstOf(Function<? super Connection, ? extends Publisher<? extends T>> closure) {
        return closure(connection -> {
            Publisher<? extends T> publisher =
                    Objects.requireNonNull(closure.apply(connection), "The scope's function returned a null publisher");
            return publisher instanceof Mono<? extends T> mono
                    ? mono
                    : Flux.<T>from(publisher).next();
        });
    }
}
