package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.BiFunction;
import java.util.function.Function;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;

/**
 * Many pipelines on a pool of four, each with a query for every row of a query, one to three levels deep. All of them together
 * ask for as many leaves, however they are spread. A side that has not finished within the deadline counts what has.
 */
final class FanOutBenchmark implements Part {

    private static final int POOL = 4;
    private static final int LEAVES = 16_000;
    private static final int BRANCHES = 8;
    private static final int CONCURRENCY = 16;
    private static final Duration DEADLINE = Duration.ofSeconds(15);
    private static final Duration DISPOSAL = Duration.ofSeconds(2);

    /** Of a side that is stuck: it does not give its connections back. */
    private static final String TERMINATE_OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity"
            + " where backend_type = 'client backend' and pid <> pg_backend_pid()";

    /** Runs a query for the numbers from 1 to n. */
    private interface Numbers {
        Flux<Integer> upTo(int n);
    }

    /** Makes one pipeline of that many levels and rows. */
    private interface Side {
        Flux<Integer> pipeline(int depth, int rows);
    }

    @Override
    public String name() {
        return "fanout";
    }

    @Override
    public String question() {
        return "Pipelines with a query for each row, on a pool of " + POOL;
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        List<Integer> depths = extent.quick() ? List.of(1) : List.of(1, 2, 3);
        try (Server server = Server.start()) {
            for (int depth : depths) {
                for (int pipelines : new int[] {8, 32, 256}) {
                    int rows = Math.max(BRANCHES * BRANCHES, LEAVES / pipelines);
                    contest(report, server, new Work(depth, pipelines, rows), extent.rounds());
                }
            }
        }
    }

    /** The first round warms up. A side that does not come to its end is not given another chance. */
    private static void contest(Report report, Server server, Work work, int rounds) {
        Set<String> stuck = new HashSet<>();
        for (int round = 0; round <= rounds; round++) {
            for (String side : sides(null).keySet()) {
                if (!stuck.contains(side) && !measure(report, server, work, side, round)) {
                    stuck.add(side);
                }
            }
        }
    }

    private record Work(int depth, int pipelines, int rows) {

        String group() {
            return pipelines + " pipelines, depth " + depth;
        }
    }

    private static Map<String, Side> sides(ConnectionPool pool) {
        Map<String, Side> sides = new LinkedHashMap<>();
        ConnectionFactory factory = pool;
        sides.put(
                "collectList at each level, by hand",
                (depth, rows) -> usingWhen(factory, c -> collected(on(c), depth, rows)));
        sides.put("a scope", (depth, rows) -> scopes(pool).withConnectionMany(c -> tree(on(c), depth, rows)));
        sides.put("a scope around DatabaseClient", (depth, rows) -> {
            ConnectionScopes scopes = scopes(pool);
            return tree(by(DatabaseClient.create(scopes.connectionFactory())), depth, rows)
                    .as(scopes::connected);
        });
        sides.put("usingWhen around the pipeline", (depth, rows) -> usingWhen(factory, c -> tree(on(c), depth, rows)));
        sides.put(
                "usingWhen around each query",
                (depth, rows) -> tree(n -> usingWhen(factory, c -> on(c).upTo(n)), depth, rows));
        sides.put("DatabaseClient", (depth, rows) -> tree(by(DatabaseClient.create(factory)), depth, rows));
        sides.put(
                "DatabaseClient in a transaction",
                (depth, rows) -> TransactionalOperator.create(new R2dbcTransactionManager(factory))
                        .transactional(tree(by(DatabaseClient.create(factory)), depth, rows)));
        return sides;
    }

    private static ConnectionScopes scopes(ConnectionPool pool) {
        return ConnectionScopes.of(pool).with(ScopeOptions.defaults().withAcquireTimeout(DEADLINE));
    }

    private static Flux<Integer> usingWhen(ConnectionFactory factory, Function<Connection, Flux<Integer>> work) {
        return Flux.usingWhen(factory.create(), work, Connection::close);
    }

    private static Numbers on(Connection connection) {
        return n -> {
            Statement statement =
                    connection.createStatement("select generate_series(1, $1)").bind(0, n);
            return Flux.from(statement.execute()).flatMap(result -> result.map(row -> row.get(0, Integer.class)));
        };
    }

    private static Numbers by(DatabaseClient client) {
        return n -> client.sql("select generate_series(1, $1)")
                .bind(0, n)
                .map(row -> row.get(0, Integer.class))
                .all();
    }

    private static Flux<Integer> tree(Numbers numbers, int depth, int rows) {
        return levels(depth, rows, numbers::upTo, (parents, child) -> parents.flatMap(child, CONCURRENCY));
    }

    /** The next level begins when all rows of the one before are there: what people write whose pipeline hung. */
    private static Flux<Integer> collected(Numbers numbers, int depth, int rows) {
        return levels(
                depth,
                rows,
                numbers::upTo,
                (parents, child) ->
                        parents.collectList().flatMapMany(Flux::fromIterable).flatMap(child, CONCURRENCY));
    }

    private static Flux<Integer> levels(
            int depth,
            int rows,
            Function<Integer, Flux<Integer>> query,
            BiFunction<Flux<Integer>, Function<Integer, Flux<Integer>>, Flux<Integer>> each) {
        int above = depth > 1 ? BRANCHES : 1;
        return each.apply(
                query.apply(rows / above), i -> depth == 1 ? query.apply(1) : levels(depth - 1, BRANCHES, query, each));
    }

    /** Says whether all pipelines have finished. */
    private static boolean measure(Report report, Server server, Work work, String name, int round) {
        int pipelines = work.pipelines();
        ConnectionPool pool = server.pool(POOL);
        Side side = sides(pool).get(name);
        Queue<Double> finished = new ConcurrentLinkedQueue<>();
        long start = System.nanoTime();
        Flux.range(0, pipelines)
                .flatMap(
                        i -> side.pipeline(work.depth(), work.rows())
                                .count()
                                .doOnNext(leaves -> {
                                    if (leaves > 0) {
                                        finished.add((System.nanoTime() - start) / 1e9);
                                    }
                                })
                                .onErrorComplete(),
                        pipelines)
                .then()
                .timeout(DEADLINE)
                .onErrorComplete()
                .block();
        List<Double> ends = finished.stream().sorted().toList();
        boolean all = ends.size() == pipelines;
        if (!all) {
            server.execute(TERMINATE_OTHERS);
        }
        pool.disposeLater().timeout(DISPOSAL).onErrorComplete().block();
        if (round > 0 || !all) {
            report.add(work.group(), name, "% of the pipelines finished", round, 100.0 * ends.size() / pipelines);
            if (all) {
                double last = ends.get(pipelines - 1);
                report.add(work.group(), name, "s until all have finished", round, last);
                report.add(work.group(), name, "last by first finisher", round, last / ends.get(0));
            }
        }
        return all;
    }
}
