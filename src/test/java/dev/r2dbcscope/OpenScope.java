package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import reactor.core.Exceptions;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.ContextView;

/**
 * A scope that stays open until the test ends it, for code that knows nothing of the Reactor Context.
 *
 * <p>Every subscription to {@code create()} is made inside the scope, with the Context that its pipeline sees, so the
 * caller gets what {@code scopes.connectionFactory()} gives to code of the scope, and nothing else.
 */
final class OpenScope implements ConnectionFactory {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final ConnectionFactory inside;
    private final Sinks.One<ContextView> context = Sinks.one();
    private final Sinks.Empty<Void> end = Sinks.empty();
    private final Sinks.Empty<Void> ended = Sinks.empty();
    private final AtomicBoolean told = new AtomicBoolean();

    private OpenScope(ConnectionScopes scopes, UnaryOperator<Mono<Void>> operator) {
        this.inside = scopes.connectionFactory();
        Mono<Void> body = Mono.deferContextual(view -> {
            context.tryEmitValue(view);
            return end.asMono();
        });
        body.as(operator).subscribe(null, error -> ended.tryEmitError(error), () -> ended.tryEmitEmpty());
    }

    static OpenScope connected(ConnectionScopes scopes) {
        return new OpenScope(scopes, scopes::connected);
    }

    static OpenScope transactional(ConnectionScopes scopes) {
        return new OpenScope(scopes, scopes::transactional);
    }

    @Override
    public Mono<Connection> create() {
        return context.asMono()
                .flatMap(view -> Mono.<Connection>from(inside.create()).contextWrite(view));
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return inside.getMetadata();
    }

    /** Lets the scope complete and awaits its end; fails as the scope does, unless somebody was told already. */
    void complete() {
        Throwable error = completeWithError();
        if (error != null) {
            throw Exceptions.propagate(error);
        }
    }

    /** Lets the scope complete and returns the error with which it ends, if it does; tells it once. */
    @Nullable
    Throwable completeWithError() {
        end.tryEmitEmpty();
        Throwable error = ended.asMono()
                .then(Mono.<Throwable>empty())
                .onErrorResume(Mono::just)
                .block(BOUND);
        return told.getAndSet(true) ? null : error;
    }
}
