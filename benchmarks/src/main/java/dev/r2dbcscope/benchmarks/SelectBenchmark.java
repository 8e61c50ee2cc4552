package dev.r2dbcscope.benchmarks;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executors;
import java.util.function.Supplier;

/**
 * Reads one row by its primary key, with a bound parameter, through pools of eight connections: callers in a closed loop, then
 * calls that arrive at a fixed rate. Each row is checked.
 */
final class SelectBenchmark implements Part {

    private static final int CONNECTIONS = 8;
    private static final List<Integer> CALLERS = List.of(1, 8, 32, 256);

    /** Whose calls a second decide on the rate of the open loop. */
    private static final int TYPICAL_CALLERS = 32;

    private static final List<String> OPEN_LOOP_SIDES =
            List.of(R2dbcSelects.RAW, R2dbcSelects.DATABASE_CLIENT, R2dbcSelects.SCOPE);

    @Override
    public String name() {
        return "select";
    }

    @Override
    public String question() {
        return "One row by its primary key, through a pool of eight connections";
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        try (Server server = Server.start()) {
            Notes.create(server);
            try (EventLoops colocated = EventLoops.byDefault(server, CONNECTIONS);
                    EventLoops others = EventLoops.notColocated(server, CONNECTIONS);
                    VertxSelect vertx = new VertxSelect(server.port(), CONNECTIONS);
                    JdbcSelect jdbc = new JdbcSelect(server.port(), CONNECTIONS)) {
                R2dbcSelects byDefault = new R2dbcSelects(colocated.pool());
                R2dbcSelects notColocated = new R2dbcSelects(others.pool());
                for (int callers : extent.quick() ? List.of(1, TYPICAL_CALLERS) : CALLERS) {
                    Callers them = new Callers(extent, report, callers);
                    them.plain(byDefault, vertx, jdbc);
                    them.plain(notColocated, others.suffix());
                    them.transactional(byDefault, colocated.suffix());
                    them.transactional(notColocated, others.suffix());
                }
                int rate = rate(report, byDefault, colocated.suffix(), others.suffix());
                openLoop(extent, report, rate, byDefault, colocated.suffix());
                openLoop(extent, report, rate, notColocated, others.suffix());
                report.note(
                        "the rows of R2DBC came on " + byDefault.threads() + " threads with the default loops, and on "
                                + notColocated.threads() + " with those that are not colocated");
            }
        }
    }

    private static String group(int callers) {
        return callers == 1 ? "1 caller" : callers + " callers";
    }

    /** The closed loops of so many callers. */
    private record Callers(Extent extent, Report report, int callers) {

        void plain(R2dbcSelects reactive, VertxSelect vertx, JdbcSelect jdbc) throws Exception {
            Contest contest = new Contest(report, group(callers), "calls/s");
            reactive.plain().forEach((side, call) -> add(contest, side, new AsyncLoop(call)));
            add(contest, "Vert.x", new AsyncLoop(vertx::exclusive));
            add(contest, "Vert.x, pipelined", new AsyncLoop(vertx::pipelined));
            add(contest, "JDBC, platform threads", new ThreadLoop(jdbc::select, Executors::newCachedThreadPool));
            VirtualThreads.perTask()
                    .ifPresent(threads -> add(contest, "JDBC, virtual threads", new ThreadLoop(jdbc::select, threads)));
            contest.run(extent.rounds());
        }

        void plain(R2dbcSelects reactive, String suffix) throws Exception {
            run(group(callers) + suffix, reactive.plain());
        }

        void transactional(R2dbcSelects reactive, String suffix) throws Exception {
            run(group(callers) + ", in a transaction" + suffix, reactive.transactional());
        }

        private void run(String group, Map<String, Supplier<CompletionStage<String>>> sides) throws Exception {
            Contest contest = new Contest(report, group, "calls/s");
            sides.forEach((side, call) -> add(contest, side, new AsyncLoop(call)));
            contest.run(extent.rounds());
        }

        private void add(Contest contest, String side, ClosedLoop loop) {
            Duration duration = Duration.ofMillis(extent.quick() ? 50 : 2_000);
            contest.addDetailed(side, details -> {
                Load load = loop.run(callers, ClosedLoop.during(duration));
                details.accept("p99 ms", load.millis(99));
                return load.callsPerSecond();
            });
        }
    }

    /** Half of what the slowest reactive side has reached, to the hundred. */
    private static int rate(Report report, R2dbcSelects reactive, String... suffixes) {
        double slowest = Double.POSITIVE_INFINITY;
        for (String suffix : suffixes) {
            for (String side : reactive.plain().keySet()) {
                slowest = Math.min(slowest, report.median(group(TYPICAL_CALLERS) + suffix, side, "calls/s"));
            }
        }
        return Math.max(100, (int) Math.round(slowest / 200) * 100);
    }

    private static void openLoop(Extent extent, Report report, int rate, R2dbcSelects reactive, String suffix)
            throws Exception {
        Duration duration = Duration.ofMillis(extent.quick() ? 200 : 5_000);
        Contest contest = new Contest(report, "open loop, " + rate + " calls/s" + suffix, "p50 ms");
        for (String side : OPEN_LOOP_SIDES) {
            OpenLoop loop = new OpenLoop(reactive.plain().get(side));
            contest.addDetailed(side, details -> {
                Load load = loop.run(rate, duration);
                details.accept("p99 ms", load.millis(99));
                details.accept("p99.9 ms", load.millis(99.9));
                return load.millis(50);
            });
        }
        contest.run(extent.rounds());
    }
}
