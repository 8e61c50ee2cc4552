package dev.r2dbcscope.benchmarks;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.BenchmarkResult;
import org.openjdk.jmh.results.Result;
import org.openjdk.jmh.results.RunResult;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;

/**
 * Runs JMH once for each side and round, each in a JVM of its own, so that the sides take turns. Bytes are those that JMH's GC
 * profiler counts on all threads.
 */
final class OperatorCost implements Part {

    private record Benchmark(Class<?> type, String parameter, List<String> values, int threads, List<String> sides) {}

    private static final List<Benchmark> BENCHMARKS = List.of(
            new Benchmark(
                    OperatorBenchmark.class,
                    "rows",
                    List.of("0", "1", "1000"),
                    1,
                    List.of(
                            "usingWhen",
                            "heldConnection",
                            "withConnectionMany",
                            "inConnectionMany",
                            "databaseClientSql",
                            "jooq",
                            "usingWhenInTransaction",
                            "inTransactionMany",
                            "transactionalOperator")),
            new Benchmark(
                    OperatorBenchmark.class,
                    "rows",
                    List.of("1"),
                    4,
                    List.of(
                            "usingWhen",
                            "withConnectionMany",
                            "inConnectionMany",
                            "inTransactionMany",
                            "transactionalOperator")),
            new Benchmark(
                    EndingBenchmark.class,
                    "ending",
                    List.of("commit", "error", "cancel"),
                    1,
                    List.of("usingWhen", "inTransactionMany", "transactionalOperator")),
            new Benchmark(
                    NestingBenchmark.class,
                    "depth",
                    List.of("1", "2", "4", "8"),
                    1,
                    List.of("inTransactionMany", "transactionalOperator")));

    @Override
    public String name() {
        return "operators";
    }

    @Override
    public String question() {
        return "What an operator costs when the database costs nothing";
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        for (Benchmark benchmark : BENCHMARKS) {
            for (String value : benchmark.values()) {
                String group = benchmark.parameter() + " " + value
                        + (benchmark.threads() > 1 ? ", " + benchmark.threads() + " threads" : "");
                for (int round = 1; round <= extent.rounds(); round++) {
                    for (String side : benchmark.sides()) {
                        // jOOQ has no query without rows, and Spring's client none without a statement
                        boolean needsQuery = side.equals("jooq") || side.equals("databaseClientSql");
                        if (!needsQuery || !value.equals("0")) {
                            measure(extent, report, benchmark, group, value, side, round);
                        }
                    }
                }
            }
        }
    }

    private static void measure(
            Extent extent, Report report, Benchmark benchmark, String group, String value, String side, int round)
            throws Exception {
        TimeValue time = TimeValue.milliseconds(extent.quick() ? 50 : 500);
        ChainedOptionsBuilder options = new OptionsBuilder()
                .include("^" + benchmark.type().getName().replace(".", "\\.") + "\\." + side + "$")
                .param(benchmark.parameter(), value)
                .threads(benchmark.threads())
                .forks(1)
                .warmupIterations(4)
                .warmupTime(time)
                .measurementIterations(4)
                .measurementTime(time)
                .addProfiler(GCProfiler.class)
                .shouldFailOnError(true);
        for (RunResult run : quietly(new OptionsBuilder().parent(options.build()))) {
            BenchmarkResult result = run.getAggregatedResult();
            report.add(group, side, "ns/op", round, result.getPrimaryResult().getScore());
            Result<?> bytes = result.getSecondaryResults().get("gc.alloc.rate.norm");
            if (bytes != null) {
                report.add(group, side, "B/op", round, bytes.getScore());
            }
        }
    }

    /** JMH prints more than one wants to read; what it has printed is shown if it fails. */
    private static Iterable<RunResult> quietly(ChainedOptionsBuilder options) throws Exception {
        PrintStream out = System.out;
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
        try {
            return new Runner(options.build()).run();
        } catch (Exception e) {
            out.println(printed.toString(StandardCharsets.UTF_8));
            throw e;
        } finally {
            System.setOut(out);
        }
    }
}
