package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import org.springframework.transaction.support.DefaultTransactionDefinition;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The readers that use the R2DBC driver, by one pool of one connection. A fetch size of 0 is none; with one, they read in a transaction. */
final class R2dbcReaders {

    private final ConnectionPool pool;
    private final ConnectionScopes scopes;
    private final DatabaseClient client;
    private final TransactionalOperator transactional;

    R2dbcReaders(ConnectionPool pool) {
        this.pool = pool;
        this.scopes = ConnectionScopes.of(pool)
                .transactions(TransactionOptions.defaults().withReadOnly(true));
        this.client = DatabaseClient.create(pool);
        DefaultTransactionDefinition readOnly = new DefaultTransactionDefinition();
        readOnly.setReadOnly(true);
        this.transactional = TransactionalOperator.create(new R2dbcTransactionManager(pool), readOnly);
    }

    /** The connection is that of the pool, which has nothing to do but to hand it out. */
    RowReader driver(int fetchSize) {
        return (rows, tally) -> read(
                Flux.usingWhen(
                        pool.create(),
                        c -> fetchSize == 0
                                ? orders(c, rows, fetchSize)
                                : Mono.from(c.beginTransaction()).thenMany(orders(c, rows, fetchSize)),
                        c -> fetchSize == 0
                                ? c.close()
                                : Mono.from(c.commitTransaction()).then(Mono.from(c.close())),
                        (c, error) -> c.close(),
                        Connection::close),
                tally);
    }

    RowReader databaseClient(int fetchSize) {
        return (rows, tally) -> {
            Flux<Order> orders = client.sql(OrderTable.SELECT)
                    .filter((Statement statement) -> statement.fetchSize(fetchSize))
                    .bind(0, (long) rows)
                    .map(Order::of)
                    .all();
            read(fetchSize == 0 ? orders : orders.as(transactional::transactional), tally);
        };
    }

    RowReader scope(int fetchSize) {
        return (rows, tally) -> read(
                fetchSize == 0
                        ? scopes.withConnectionMany(c -> orders(c, rows, fetchSize))
                        : scopes.inTransactionMany(c -> orders(c, rows, fetchSize)),
                tally);
    }

    private static Flux<Order> orders(Connection connection, int rows, int fetchSize) {
        return Flux.from(connection
                        .createStatement(OrderTable.SELECT)
                        .bind(0, (long) rows)
                        .fetchSize(fetchSize)
                        .execute())
                .flatMap(result -> result.map(Order::of));
    }

    private static void read(Flux<Order> orders, RowTally tally) {
        orders.doOnNext(tally::row).then().block(Server.LONG);
    }
}
