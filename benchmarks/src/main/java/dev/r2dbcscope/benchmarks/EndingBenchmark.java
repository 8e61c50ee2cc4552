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

/** What a transaction with a query of one row costs, by how it ends. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class EndingBenchmark {

    private static final RuntimeException OF_THE_USER = new RuntimeException("the user's", null, false, false) {};

    /** Commit, or rollback after an error or a cancel. */
    @Param({"commit", "error", "cancel"})
    public String ending;

    private Sides sides;

    @Setup
    public void prepare() {
        sides = new Sides();
    }

    private Flux<Integer> work(Connection connection) {
        Flux<Integer> row = Sides.rows(connection, 1);
        return switch (ending) {
            case "error" -> row.concatWith(Flux.error(OF_THE_USER));
            case "cancel" -> row.concatWith(Flux.never());
            default -> row;
        };
    }

    private Object end(Flux<Integer> transaction) {
        return switch (ending) {
            case "error" -> transaction.onErrorReturn(0).blockLast();
            case "cancel" -> transaction.take(1).blockLast();
            default -> transaction.blockLast();
        };
    }

    @Benchmark
    public Object usingWhen() {
        return end(Sides.transactionByHand(sides.factory, this::work));
    }

    @Benchmark
    public Object inTransactionMany() {
        return end(sides.scopes.inTransactionMany(this::work));
    }

    @Benchmark
    public Object transactionalOperator() {
        return end(sides.transactions.transactional(sides.client.inConnectionMany(this::work)));
    }
}
