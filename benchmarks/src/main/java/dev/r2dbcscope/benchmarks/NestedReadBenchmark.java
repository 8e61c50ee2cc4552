package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryType;
import java.util.List;
import java.util.Locale;
import reactor.core.publisher.Flux;

/**
 * Memory and speed of a read with a nested query for each of its rows on the same connection: in a read-only transaction, and
 * through a holdable cursor outside one. "In use" is the most that a garbage collection has left.
 */
final class NestedReadBenchmark implements Part {

    private static final int FETCH_SIZE = 500;
    private static final int CONCURRENCY = 16;

    @Override
    public String name() {
        return "nested";
    }

    @Override
    public String question() {
        return "A query for each row of a query on one connection, in a heap of 64 MB";
    }

    @Override
    public List<String> jvmOptions() {
        return List.of("-Xmx64m", "-XX:+UseSerialGC");
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        try (Server server = Server.start()) {
            ConnectionScopes scopes = ConnectionScopes.of(
                    new PostgresqlConnectionFactory(server.configuration().build()));
            ConnectionScopes readOnly =
                    scopes.transactions(TransactionOptions.defaults().withReadOnly(true));
            ConnectionScopes held = scopes.with(ScopeOptions.defaults().withHoldableCursors(true));
            for (int rows = 10_000; rows <= extent.of(1_000_000); rows *= 10) {
                int outer = rows;
                measure(report, "read-only transaction", outer, readOnly.inTransactionMany(c -> nested(c, outer)));
                measure(report, "holdable cursor", outer, held.withConnectionMany(c -> nested(c, outer)));
            }
        }
    }

    private static Flux<Integer> nested(Connection connection, int rows) {
        return ints(connection
                        .createStatement("select i from generate_series(1, $1::int) i")
                        .bind(0, rows)
                        .fetchSize(FETCH_SIZE))
                .flatMap(
                        i -> ints(
                                connection.createStatement("select $1::int + 1").bind(0, i)),
                        CONCURRENCY);
    }

    private static Flux<Integer> ints(io.r2dbc.spi.Statement statement) {
        return Flux.from(statement.execute()).flatMap(result -> result.map(row -> row.get(0, Integer.class)));
    }

    private static void measure(Report report, String side, int rows, Flux<Integer> read) {
        System.gc();
        ManagementFactory.getMemoryPoolMXBeans().forEach(MemoryPoolMXBean::resetPeakUsage);
        long[] most = {0};
        long start = System.nanoTime();
        long count = read.doOnNext(i -> {
                    if (i % 1000 == 0) {
                        most[0] = Math.max(most[0], inUseAfterCollection());
                    }
                })
                .count()
                .blockOptional(Server.LONG)
                .orElseThrow();
        double seconds = (System.nanoTime() - start) / 1e9;
        if (count != rows) {
            throw new IllegalStateException(side + ": " + count + " rows instead of " + rows);
        }
        String group = String.format(Locale.ROOT, "%,d rows", rows);
        report.add(group, side, "rows/s", 1, rows / seconds);
        report.add(group, side, "MB in use", 1, most[0] / 1e6);
    }

    private static long inUseAfterCollection() {
        return ManagementFactory.getMemoryPoolMXBeans().stream()
                .filter(pool -> pool.getType() == MemoryType.HEAP && pool.getCollectionUsage() != null)
                .mapToLong(pool -> pool.getCollectionUsage().getUsed())
                .sum();
    }
}
