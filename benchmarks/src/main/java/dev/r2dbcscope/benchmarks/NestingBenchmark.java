package dev.r2dbcscope.benchmarks;

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

/** What transactions inside a transaction cost, which join it. The innermost has a query of one row. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
public class NestingBenchmark {

    /** How many transactions there are, one in the other. */
    @Param({"1", "2", "4", "8"})
    public int depth;

    private Sides sides;

    @Setup
    public void prepare() {
        sides = new Sides();
    }

    @Benchmark
    public Object inTransactionMany() {
        return scope(depth).blockLast();
    }

    private Flux<Integer> scope(int levels) {
        return sides.scopes.inTransactionMany(c -> levels == 1 ? Sides.rows(c, 1) : scope(levels - 1));
    }

    @Benchmark
    public Object transactionalOperator() {
        Flux<Integer> work = sides.client.inConnectionMany(c -> Sides.rows(c, 1));
        for (int level = 0; level < depth; level++) {
            work = sides.transactions.transactional(work);
        }
        return work.blockLast();
    }
}
