package dev.r2dbcscope.benchmarks;

import io.r2dbc.spi.Connection;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import reactor.core.publisher.Flux;

/** What it costs to run a query when the database costs nothing: assembly, subscription, and every signal until the end. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class OperatorBenchmark {

    /** How many rows the query answers; without any, there is no query. */
    @Param({"0", "1", "1000"})
    public int rows;

    private Sides sides;
    private String sql;

    @Setup
    public void prepare() {
        sides = new Sides();
        sql = "select " + rows;
    }

    @Benchmark
    public Object heldConnection() {
        return Sides.rows(sides.held, rows).blockLast();
    }

    @Benchmark
    public Object usingWhen() {
        return Flux.usingWhen(sides.factory.create(), c -> Sides.rows(c, rows), Connection::close)
                .blockLast();
    }

    @Benchmark
    public Object withConnectionMany() {
        return sides.scopes.withConnectionMany(c -> Sides.rows(c, rows)).blockLast();
    }

    /** Spring's client, which takes a connection for each call. */
    @Benchmark
    public Object inConnectionMany() {
        return sides.client.inConnectionMany(c -> Sides.rows(c, rows)).blockLast();
    }

    @Benchmark
    public Object databaseClientSql() {
        return sides.client.sql(sql).map(row -> row.get(0, Integer.class)).all().blockLast();
    }

    @Benchmark
    public Object jooq() {
        return Flux.from(sides.jooq.resultQuery(sql)).blockLast();
    }

    @Benchmark
    public Object usingWhenInTransaction() {
        return Sides.transactionByHand(sides.factory, c -> Sides.rows(c, rows)).blockLast();
    }

    @Benchmark
    public Object inTransactionMany() {
        return sides.scopes.inTransactionMany(c -> Sides.rows(c, rows)).blockLast();
    }

    /** Spring's transaction around the same client. */
    @Benchmark
    public Object transactionalOperator() {
        return sides.transactions
                .transactional(sides.client.inConnectionMany(c -> Sides.rows(c, rows)))
                .blockLast();
    }
}
