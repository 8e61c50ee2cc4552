package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.r2dbc.core.binding.BindMarkersFactory;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What a scope costs when the database costs nothing: assembly, subscription, and every signal until the end. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class ScopeOverheadBenchmark {

    /** What runs on the connection. */
    @Param({"nothing", "statement"})
    public String body;

    private ConnectionFactory factory;
    private ConnectionScopes scopes;
    private DatabaseClient client;
    private TransactionalOperator transactions;
    private boolean statement;

    @Setup
    public void prepare() {
        factory = new NoopConnectionFactory();
        scopes = ConnectionScopes.of(factory);
        client = DatabaseClient.builder()
                .connectionFactory(factory)
                .bindMarkers(BindMarkersFactory.indexed("$", 1))
                .build();
        transactions = TransactionalOperator.create(new R2dbcTransactionManager(factory));
        statement = body.equals("statement");
    }

    @Benchmark
    public Long usingWhen() {
        return Mono.usingWhen(factory.create(), this::work, Connection::close).block();
    }

    /** The usual transaction by hand: commit, rollback on error and on cancel, each followed by close. */
    @Benchmark
    public Long usingWhenInTransaction() {
        return Mono.usingWhen(
                        Mono.from(factory.create())
                                .flatMap(connection ->
                                        Mono.from(connection.beginTransaction()).thenReturn(connection)),
                        this::work,
                        connection -> Mono.from(connection.commitTransaction()).then(Mono.from(connection.close())),
                        (connection, error) ->
                                Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())),
                        connection ->
                                Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())))
                .block();
    }

    @Benchmark
    public Long withConnection() {
        return scopes.withConnection(this::work).block();
    }

    @Benchmark
    public Long inTransaction() {
        return scopes.inTransaction(this::work).block();
    }

    /** Spring's client, which takes a connection for each call. */
    @Benchmark
    public Long databaseClient() {
        return client.inConnection(this::work).block();
    }

    /** Spring's transaction around the same client. */
    @Benchmark
    public Long transactionalOperator() {
        return transactions.transactional(client.inConnection(this::work)).block();
    }

    private Mono<Long> work(Connection connection) {
        return statement
                ? Flux.from(connection.createStatement("update t set n = 1").execute())
                        .flatMap(result -> result.getRowsUpdated())
                        .next()
                : Mono.just(1L);
    }
}
