package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Result;
import java.util.function.Function;
import java.util.regex.Pattern;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A snapshot of the database that several transactions share. */
final class Snapshot {

    private static final Pattern IDENTIFIER = Pattern.compile("[0-9A-Fa-f-]+");

    private static final TransactionOptions READ_ONLY = TransactionOptions.defaults()
            .withIsolation(IsolationLevel.REPEATABLE_READ)
            .withReadOnly(true);

    private Snapshot() {}

    /** A transaction of its own whose snapshot can be exported. */
    static <T> Flux<T> exporting(
            ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<? extends T>> body) {
        return scopes.transactions(READ_ONLY.withPropagation(Propagation.REQUIRES_NEW))
                .inTransactionMany(body);
    }

    /**
     * A transaction of its own that has not taken a snapshot yet. The settings and time limits of a scope are set by a query,
     * which would take one; so they are those of a plain scope around the transaction.
     */
    static <T> Flux<T> reading(
            ConnectionScopes scopes, Function<? super Connection, ? extends Publisher<? extends T>> body) {
        ConnectionScopes inside = scopes.with(ScopeOptions.defaults().withName("snapshot"))
                .transactions(READ_ONLY.withPropagation(Propagation.REQUIRED));
        return scopes.transactions(Propagation.NOT_SUPPORTED)
                .inTransactionMany(connection -> inside.inTransactionMany(body));
    }

    /** Exports the snapshot of the connection's transaction; it is there until that ends. */
    static Mono<String> export(Connection connection) {
        return Flux.defer(() -> Flux.from(connection
                        .createStatement("select pg_catalog.pg_export_snapshot()")
                        .execute()))
                .concatMap(result -> result.map((row, metadata) -> String.valueOf(row.get(0, String.class))))
                .single();
    }

    /** Imports a snapshot; this must be the transaction's first statement. */
    static Mono<Void> use(Connection connection, String snapshot) {
        if (!IDENTIFIER.matcher(snapshot).matches()) {
            return Mono.error(() -> new IllegalArgumentException("Not the identifier of a snapshot: " + snapshot));
        }
        return Flux.defer(() -> Flux.from(connection
                        .createStatement("set transaction snapshot '" + snapshot + "'")
                        .execute()))
                .concatMap(Result::getRowsUpdated)
                .then();
    }
}
