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
 * @param <T> what it emits
 */
interface ScopeBody<T> {

    /** Starts the subscriber on the body's publisher, now or when the connection is there. */
    void start(Scope scope, BodySubscriber<T> subscriber);

    /** The upstream of an operator: the connection is opened at first use. */
    static <T> ScopeBody<T> upstream(Publisher<? extends T> source) {
        return (scope, subscriber) -> subscriber.run(() -> source);
    }

    /** A closure: the connection is opened first. */
    static <T> ScopeBody<T> closure(Function<? super Connection, ? extends Publisher<? extends T>> closure) {
        return (scope, subscriber) -> subscriber.whenOpen(
                scope.session().open(subscriber.currentContext()),
                session -> Objects.requireNonNull(
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
