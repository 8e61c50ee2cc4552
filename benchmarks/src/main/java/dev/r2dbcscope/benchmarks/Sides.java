package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import org.jooq.DSLContext;
import org.jooq.SQLDialect;
import org.jooq.impl.DSL;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.r2dbc.core.binding.BindMarkersFactory;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Ways to run code on a connection of a factory without a database. */
final class Sides {

    final ConnectionFactory factory = new NoopConnectionFactory();
    final Connection held = new NoopConnection();
    final ConnectionScopes scopes = ConnectionScopes.of(factory);
    final DatabaseClient client = DatabaseClient.builder()
            .connectionFactory(factory)
            .bindMarkers(BindMarkersFactory.indexed("$", 1))
            .build();
    final TransactionalOperator transactions = TransactionalOperator.create(new R2dbcTransactionManager(factory));
    final DSLContext jooq = DSL.using(factory, SQLDialect.POSTGRES);

    /** Executes a statement that answers that many rows; none at all for no rows. */
    static Flux<Integer> rows(Connection connection, int rows) {
        return rows == 0
                ? Flux.empty()
                : Flux.from(connection.createStatement("select " + rows).execute())
                        .flatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class)));
    }

    /** The usual transaction by hand: commit, rollback on error and on cancel, each followed by close. */
    static <T> Flux<T> transactionByHand(
            ConnectionFactory factory, java.util.function.Function<Connection, Flux<T>> work) {
        return Flux.usingWhen(
                Mono.from(factory.create())
                        .flatMap(connection ->
                                Mono.from(connection.beginTransaction()).thenReturn(connection)),
                work,
                connection -> Mono.from(connection.commitTransaction()).then(Mono.from(connection.close())),
                (connection, error) ->
                        Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())),
                connection -> Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())));
    }
}
