package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.HdrHistogram.Histogram;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * How long it takes from the cancel of a pipeline until the next borrower of the connection has its answer, through a pool of
 * one. The driver itself reads what was cancelled to its end, so its sides are tried less often.
 */
final class CancelBenchmark implements Part {

    /** Runs a query of numbers on a connection of the side's own. */
    private interface Side {
        Flux<Integer> run(Function<Connection, Flux<Integer>> work);
    }

    @Override
    public String name() {
        return "cancel";
    }

    @Override
    public String question() {
        return "From a cancel until the next borrower of the connection has its answer";
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        int trials = extent.of(200);
        try (Server server = Server.start()) {
            ConnectionPool pool = server.pool(1);
            try {
                for (boolean transactional : new boolean[] {false, true}) {
                    String in = transactional ? ", in a transaction" : "";
                    Map<String, Side> sides = sides(pool, transactional);
                    int many = extent.of(20_000_000);
                    measure(report, "10 of 20,000,000 rows" + in, sides, trials, 2, c -> rows(c, many, 0), null);
                    measure(
                            report,
                            "10 of 20,000,000 rows, fetch size 1,000" + in,
                            sides,
                            trials,
                            extent.quick() ? 2 : 50,
                            c -> rows(c, many, 1_000),
                            null);
                    measure(
                            report,
                            "pg_sleep(5), left after 20 ms" + in,
                            sides,
                            trials,
                            2,
                            CancelBenchmark::sleep,
                            Duration.ofMillis(20));
                }
            } finally {
                pool.disposeLater().block(Server.LONG);
            }
        }
    }

    private static Map<String, Side> sides(ConnectionPool pool, boolean transactional) {
        Map<String, Side> sides = new LinkedHashMap<>();
        ConnectionScopes scopes = ConnectionScopes.of(pool);
        DatabaseClient client = DatabaseClient.create(pool);
        TransactionalOperator spring = TransactionalOperator.create(new R2dbcTransactionManager(pool));
        if (transactional) {
            sides.put("a scope", scopes::inTransactionMany);
            sides.put("usingWhen", work -> Sides.transactionByHand(pool, work));
            sides.put("Spring", work -> spring.transactional(client.inConnectionMany(work::apply)));
        } else {
            sides.put("a scope", scopes::withConnectionMany);
            sides.put("usingWhen", work -> Flux.usingWhen(pool.create(), work, Connection::close));
            sides.put("Spring", work -> client.inConnectionMany(work::apply));
        }
        return sides;
    }

    private static Flux<Integer> rows(Connection connection, int many, int fetchSize) {
        return Flux.from(connection
                        .createStatement("select generate_series(1, $1)")
                        .bind(0, many)
                        .fetchSize(fetchSize)
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, Integer.class)));
    }

    private static Flux<Integer> sleep(Connection connection) {
        return Flux.from(connection
                        .createStatement("select 1 from pg_sleep($1)")
                        .bind(0, 5)
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, Integer.class)));
    }

    /** Cancels it after ten elements, or if there is a patience, when that is over; returns when that was. */
    private static long leave(Flux<Integer> pipeline, Duration patience) {
        if (patience == null) {
            pipeline.take(10).blockLast(Server.LONG);
        } else {
            Disposable running = pipeline.subscribe();
            Mono.delay(patience).block();
            running.dispose();
        }
        return System.nanoTime();
    }

    private static void measure(
            Report report,
            String group,
            Map<String, Side> sides,
            int trials,
            int trialsOfOthers,
            Function<Connection, Flux<Integer>> query,
            Duration patience) {
        sides.forEach((name, side) -> {
            boolean ours = name.equals("a scope");
            Histogram micros = new Histogram(TimeUnit.MINUTES.toMicros(5), 3);
            // the first ones warm up
            int warmUp = ours ? Math.max(1, trials / 10) : 0;
            for (int trial = 0; trial < warmUp + (ours ? trials : trialsOfOthers); trial++) {
                long left = leave(side.run(query), patience);
                side.run(c -> rows(c, 1, 0)).blockLast(Server.LONG);
                if (trial >= warmUp) {
                    micros.recordValue(TimeUnit.NANOSECONDS.toMicros(System.nanoTime() - left));
                }
            }
            report.add(group, name, "p50 ms", 1, micros.getValueAtPercentile(50) / 1e3);
            report.add(group, name, "p99 ms", 1, micros.getValueAtPercentile(99) / 1e3);
        });
    }
}
