package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.IntFunction;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import org.springframework.transaction.support.DefaultTransactionDefinition;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The ways of R2DBC to make a transaction. */
final class R2dbcTransactions implements TransactionSide {

    private static final Duration TIMEOUT = Duration.ofSeconds(30);

    private final String name;
    private final ConnectionPool pool;
    private final BiFunction<Long, Integer, Mono<Long>> transaction;

    /** The transaction gets its key and how many lines to insert, and gives how many it has inserted. */
    private R2dbcTransactions(
            String name, int port, Function<ConnectionPool, BiFunction<Long, Integer, Mono<Long>>> transaction) {
        this.name = name;
        this.pool = Server.pool(Server.configuration(port), 1);
        this.transaction = transaction.apply(pool);
    }

    static R2dbcTransactions raw(int port) {
        return new R2dbcTransactions(
                "r2dbc-pool, usingWhen",
                port,
                pool -> (id, lines) -> Mono.usingWhen(
                        pool.create(),
                        connection -> Mono.from(connection.beginTransaction()).then(inserts(connection, id, lines)),
                        connection -> Mono.from(connection.commitTransaction()).then(Mono.from(connection.close())),
                        (connection, error) ->
                                Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())),
                        connection ->
                                Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close()))));
    }

    static R2dbcTransactions spring(int port) {
        return spring("TransactionalOperator", port, new DefaultTransactionDefinition());
    }

    static R2dbcTransactions springWithTimeout(int port) {
        DefaultTransactionDefinition definition = new DefaultTransactionDefinition();
        definition.setTimeout((int) TIMEOUT.toSeconds());
        return spring("TransactionalOperator, timeout", port, definition);
    }

    private static R2dbcTransactions spring(String name, int port, DefaultTransactionDefinition definition) {
        return new R2dbcTransactions(name, port, pool -> {
            DatabaseClient client = DatabaseClient.create(pool);
            TransactionalOperator operator =
                    TransactionalOperator.create(new R2dbcTransactionManager(pool), definition);
            return (id, lines) ->
                    inserts(lines, line -> insert(client, id, line)).as(operator::transactional);
        });
    }

    static R2dbcTransactions scope(int port) {
        return scope("scope", port, ScopeOptions.defaults());
    }

    static R2dbcTransactions scopeWithTimeout(int port) {
        return scope("scope, statement timeout", port, ScopeOptions.defaults().withStatementTimeout(TIMEOUT));
    }

    /** By default that is so only where a round trip takes long. */
    static R2dbcTransactions scopePipelined(int port) {
        return scope("scope, pipelined", port, ScopeOptions.defaults().withPipelinedBegin(Duration.ZERO));
    }

    private static R2dbcTransactions scope(String name, int port, ScopeOptions options) {
        return new R2dbcTransactions(name, port, pool -> {
            ConnectionScopes scopes = ConnectionScopes.of(pool).with(options);
            return (id, lines) -> scopes.inTransaction(connection -> inserts(connection, id, lines));
        });
    }

    private static Mono<Long> inserts(Connection connection, long id, int lines) {
        return inserts(lines, line -> insert(connection, id, line));
    }

    /** One after the other; fails within the transaction if not all were inserted. */
    private static Mono<Long> inserts(int lines, IntFunction<Mono<Long>> insert) {
        return Flux.range(1, lines)
                .concatMap(line -> insert.apply(line))
                .reduce(0L, Long::sum)
                .map(inserted -> Entries.require(lines, inserted));
    }

    private static Mono<Long> insert(Connection connection, long id, int line) {
        return Flux.from(connection
                        .createStatement(Entries.INSERT)
                        .bind(0, id)
                        .bind(1, line)
                        .bind(2, "line " + line)
                        .execute())
                .flatMap(Result::getRowsUpdated)
                .single();
    }

    private static Mono<Long> insert(DatabaseClient client, long id, int line) {
        return client.sql(Entries.INSERT)
                .bind(0, id)
                .bind(1, line)
                .bind(2, "line " + line)
                .fetch()
                .rowsUpdated();
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public ClosedLoop transactions(int statements) {
        return new AsyncLoop(
                () -> transaction.apply(Entries.nextId(), statements).toFuture());
    }

    @Override
    public void close() {
        pool.disposeLater().block(Server.LONG);
    }
}
