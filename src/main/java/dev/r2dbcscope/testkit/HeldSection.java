package dev.r2dbcscope.testkit;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.CurrentScope;
import io.r2dbc.spi.Connection;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * A transactional scope that begins and ends when it is told to: the shape of a pipeline given to what has none, such as the
 * transaction of a connection. It owns the subscription, so whoever waits for its beginning or end may leave.
 */
final class HeldSection {

    private final Sinks.One<ContextView> opened = Sinks.one();
    private final Sinks.Empty<Void> end = Sinks.empty();
    private final Sinks.Empty<Void> ended = Sinks.empty();
    private final AtomicBoolean ending = new AtomicBoolean();
    private final Disposable.Swap subscription = Disposables.swap();
    private volatile @Nullable CurrentScope scope;
    private volatile @Nullable Connection connection;

    /** Begins; what it opens is a savepoint if there is a transaction of the same scopes in the Context. */
    Mono<ContextView> begin(ConnectionScopes scopes, ContextView around) {
        return begin(scopes, around, UnaryOperator.identity());
    }

    /** Begins inside what the operator makes of it. */
    Mono<ContextView> begin(ConnectionScopes scopes, ContextView around, UnaryOperator<Mono<Void>> operator) {
        if (ending.get()) {
            opened.tryEmitError(new SandboxClosedException("The connection was closed", null));
            return opened.asMono();
        }
        subscription.update(operator.apply(scopes.transactional(body(scopes)))
                .contextWrite(empty -> empty.putAll(around))
                .subscribe(null, this::failed, ended::tryEmitEmpty));
        return opened.asMono();
    }

    private Mono<Void> body(ConnectionScopes scopes) {
        return Mono.deferContextual(context -> {
            scope = CurrentScope.from(context);
            return Mono.from(scopes.connectionFactory().create()).flatMap(arrived -> {
                connection = arrived;
                opened.tryEmitValue(Context.of(context));
                return end.asMono();
            });
        });
    }

    private void failed(Throwable error) {
        opened.tryEmitError(error);
        ended.tryEmitError(error);
    }

    /** The Context of the scope, when it has begun. */
    Mono<ContextView> context() {
        return opened.asMono();
    }

    /** The scope's connection, once it has begun. */
    @Nullable
    Connection connection() {
        return connection;
    }

    /** Keeps what was done. Fails as a commit does, or if it was ended before. */
    Mono<Void> commit() {
        if (ending.compareAndSet(false, true)) {
            end.tryEmitEmpty();
        }
        return ended.asMono();
    }

    /** Undoes what was done, after what was sent before has come to its end. */
    Mono<Void> rollback() {
        CurrentScope begun = scope;
        if (begun == null || !ending.compareAndSet(false, true)) {
            return ended.asMono();
        }
        begun.setRollbackOnly();
        end.tryEmitEmpty();
        return ended.asMono();
    }

    /** Undoes what was done, without waiting for what is under way; takes it back if it has not begun. */
    Mono<Void> abort() {
        ending.set(true);
        subscription.dispose();
        CurrentScope begun = scope;
        return begun == null
                ? Mono.empty()
                : begun.released().doFinally(over -> {
                    opened.tryEmitError(new SandboxClosedException("The connection was closed", null));
                    ended.tryEmitEmpty();
                });
    }
}
