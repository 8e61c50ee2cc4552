package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.function.Function;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The eight ways to open a scope, so that one test can be run for each. */
enum ScopeShape {
    WITH_CONNECTION(true, false, ConnectionScopes::withConnection),
    WITH_CONNECTION_MANY(false, false, ConnectionScopes::withConnectionMany),
    IN_TRANSACTION(true, true, ConnectionScopes::inTransaction),
    IN_TRANSACTION_MANY(false, true, ConnectionScopes::inTransactionMany),
    CONNECTED_MONO(true, false, (scopes, body) -> scopes.connected(mono(scopes, body))),
    CONNECTED_FLUX(false, false, (scopes, body) -> scopes.connected(flux(scopes, body))),
    TRANSACTIONAL_MONO(true, true, (scopes, body) -> scopes.transactional(mono(scopes, body))),
    TRANSACTIONAL_FLUX(false, true, (scopes, body) -> scopes.transactional(flux(scopes, body)));

    /** Whether it emits at most one element, after the exit. */
    final boolean single;

    final boolean transactional;
    private final Assembly assembly;

    private interface Assembly {
        Publisher<Integer> assemble(
                ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<Integer>> body);
    }

    ScopeShape(boolean single, boolean transactional, Assembly assembly) {
        this.single = single;
        this.transactional = transactional;
        this.assembly = assembly;
    }

    /** A scope of this shape around the body. */
    Flux<Integer> around(ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<Integer>> body) {
        return Flux.from(assembly.assemble(scopes, body));
    }

    /** What a cancel sends on the first connection after it was opened. */
    String[] rolledBack() {
        return transactional
                ? new String[] {"create", "begin#1", "rollback#1", "close#1"}
                : new String[] {"create", "close#1"};
    }

    private static Mono<Integer> mono(
            ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<Integer>> body) {
        return Mono.from(scopes.connectionFactory().create()).flatMap(connection -> Mono.from(body.apply(connection)));
    }

    private static Flux<Integer> flux(
            ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<Integer>> body) {
        return Mono.from(scopes.connectionFactory().create()).flatMapMany(body);
    }
}
