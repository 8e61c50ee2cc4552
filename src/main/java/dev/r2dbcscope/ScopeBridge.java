package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.Objects;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.FluxSink;
import reactor.core.publisher.Mono;
import reactor.core.publisher.MonoSink;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * Bridges to code that leaves the Reactor world: futures and callbacks, as functions for the closures of {@link
 * ConnectionScopes}.
 *
 * <pre>{@code
 * Mono<Receipt> paid = scopes.inTransaction(ScopeBridge.stage(connection -> legacy.payAsync(connection, order)));
 * }</pre>
 *
 * <p>Such code cannot be cancelled: cancelling a {@code CompletableFuture} only hides that it goes on. So a scope holds its
 * connection until bridged code has really ended, that is until the stage completed or the callback called {@code success},
 * {@code error} or {@code complete} on its sink. When the subscriber cancels or another part of the pipeline fails before,
 * the code may go on using the connection, and the scope's exit runs when it has ended. The scopes around it on the same
 * connection wait for it as well. The wait is bounded by {@link TransactionOptions#withCompletionTimeout}, which counts for
 * plain scopes too; after that the exit runs, a pipeline that had completed fails with {@link ScopeTimeoutException}, and
 * whatever the code still asks of the connection fails with {@link ScopeClosedException}.
 *
 * <p>A value that comes after the cancel goes to Reactor's discard hook, an error to {@code onErrorDropped}. Only the
 * connection of a scope is held: with another one, the functions do no more than {@link Mono#create} and {@link
 * Flux#create}.
 */
public final class ScopeBridge {

    private ScopeBridge() {}

    /**
     * Returns a function that calls code with a connection and emits what its stage completes with.
     *
     * <p>The code is called at each subscription. It uses the connection by itself, so what it runs in an inner {@code
     * subscribe()} or {@code toFuture()} has no Reactor Context: statements of the given connection belong to its scope all
     * the same, whereas scopes and connections that are opened there do not join it.
     *
     * @param function starts the work; the stage must not complete before all of it has ended
     * @param <T> the type of the value
     * @return a function whose {@code Mono} emits the value of the stage, or completes empty if that is {@code null}; fails
     *     with the error of the stage, freed of a {@link CompletionException} around it, or with what the function throws
     */
    public static <T> Function<Connection, Mono<T>> stage(
            Function<? super Connection, ? extends CompletionStage<? extends T>> function) {
        Objects.requireNonNull(function, "function");
        return callback((connection, sink) -> Objects.requireNonNull(
                        function.apply(connection), "The bridged function returned a null stage")
                .whenComplete((value, error) -> {
                    if (error == null) {
                        sink.success(value);
                    } else {
                        sink.error(unwrapped(error));
                    }
                }));
    }

    /**
     * Returns a function that calls code with a connection and a sink for its answer, as {@link Mono#create(Consumer)} does.
     *
     * @param callback starts the work and lets it answer by the sink, once. It must do so after a cancel too, of which the
     *     sink's {@code onCancel} and {@code onDispose} tell
     * @param <T> the type of the value
     * @return a function whose {@code Mono} emits what the sink gets
     */
    public static <T> Function<Connection, Mono<T>> callback(
            BiConsumer<? super Connection, ? super MonoSink<T>> callback) {
        Objects.requireNonNull(callback, "callback");
        return connection -> Mono.deferContextual(context -> {
            BridgedCode code = new BridgedCode(connection, Context.of(context));
            return Mono.<T>create(sink -> {
                        MonoSink<T> bridged = new BridgedMonoSink<>(sink, code);
                        code.start(() -> callback.accept(connection, bridged), sink::error);
                    })
                    .doOnCancel(code::cancelled);
        });
    }

    /**
     * Returns a function that calls code with a connection and a sink for its answers, as {@link Flux#create(Consumer)}
     * does: what the subscriber has not asked for is buffered without a bound.
     *
     * @param callback starts the work and lets it answer by the sink. It must end with {@code complete} or {@code error},
     *     after a cancel too, of which the sink's {@code onCancel} and {@code onDispose} tell
     * @param <T> the type of the elements
     * @return a function whose {@code Flux} emits what the sink gets
     * @see #callbackMany(BiConsumer, FluxSink.OverflowStrategy) for another way to treat what was not asked for
     */
    public static <T> Function<Connection, Flux<T>> callbackMany(
            BiConsumer<? super Connection, ? super FluxSink<T>> callback) {
        return callbackMany(callback, FluxSink.OverflowStrategy.BUFFER);
    }

    /**
     * Returns a function that calls code with a connection and a sink for its answers, as {@link Flux#create(Consumer,
     * FluxSink.OverflowStrategy)} does.
     *
     * @param callback starts the work and lets it answer by the sink. It must end with {@code complete} or {@code error},
     *     after a cancel too, of which the sink's {@code onCancel} and {@code onDispose} tell
     * @param overflow what becomes of elements that the subscriber has not asked for
     * @param <T> the type of the elements
     * @return a function whose {@code Flux} emits what the sink gets
     */
    public static <T> Function<Connection, Flux<T>> callbackMany(
            BiConsumer<? super Connection, ? super FluxSink<T>> callback, FluxSink.OverflowStrategy overflow) {
        Objects.requireNonNull(callback, "callback");
        Objects.requireNonNull(overflow, "overflow");
        return connection -> Flux.deferContextual(context -> {
            BridgedCode code = new BridgedCode(connection, Context.of(context));
            return Flux.<T>create(
                            sink -> {
                                FluxSink<T> bridged = new BridgedFluxSink<>(sink, code);
                                code.start(() -> callback.accept(connection, bridged), sink::error);
                            },
                            overflow)
                    .doOnCancel(code::cancelled);
        });
    }

    private static Throwable unwrapped(Throwable error) {
        Throwable cause = error.getCause();
        return error instanceof CompletionException && cause != null ? cause : error;
    }

    /** The scope whose connection this is, or the one inside it in which the given Context is. */
    static @Nullable Scope scopeOf(Connection connection, ContextView context) {
        ScopedConnection scoped = ScopedConnection.in(connection);
        return scoped == null ? null : scoped.scope().scopeFor(context);
    }
}
