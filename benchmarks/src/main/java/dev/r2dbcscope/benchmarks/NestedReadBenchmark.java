package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryType;
import java.time.Duration;
import java.util.Locale;
import reactor.core.publisher.Flux;

/**
 * Memory and speed of a read with a nested query for each of its rows on the same connection: in a read-only transaction, and
 * through a holdable cursor outside one. To be run with {@code -Xmx64m}; prints the most memory that the garbage collector has
 * left in use, for 10,000 rows, for 100,000 and so on up to the argument (1000000).
 */
public final class NestedReadBenchmark {

    private static final Duration LONG = Duration.ofHours(1);
    private static final int FETCH_SIZE = 500;
    private static final int CONCURRENCY = 16;

    private NestedReadBenchmark() {}

    public static void main(String[] args) throws Exception {
        int most = args.length > 0 ? Integer.parseInt(args[0]) : 1_000_000;
        try (EmbeddedPostgres server =
                EmbeddedPostgres.builder().setServerConfig("fsync", "off").start()) {
            ConnectionScopes scopes =
                    ConnectionScopes.of(new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                            .host("localhost")
                            .port(server.getPort())
                            .username("postgres")
                            .password("postgres")
                            .database("postgres")
                            .build()));
            ConnectionScopes readOnly =
                    scopes.transactions(TransactionOptions.defaults().withReadOnly(true));
            ConnectionScopes held = scopes.with(ScopeOptions.defaults().withHoldableCursors(true));
            for (int rows = 10_000; rows <= most; rows *= 10) {
                int outer = rows;
                measure("read-only transaction", outer, readOnly.inTransactionMany(c -> nested(c, outer)));
                measure("holdable cursor", outer, held.withConnectionMany(c -> nested(c, outer)));
            }
        }
        System.exit(0);
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

    private static void measure(String way, int rows, Flux<Integer> read) {
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
                .blockOptional(LONG)
                .orElseThrow();
        double seconds = (System.nanoTime() - start) / 1e9;
        if (count != rows) {
            throw new IllegalStateException(way + ": " + count + " rows instead of " + rows);
        }
        System.out.printf(
                Locale.ROOT,
                "%-22s %,9d rows with a nested query each: %6.1f s, %,6.0f rows/s, %5.1f MB in use at most after a"
                        + " collection, heap of %d MB%n",
                way,
                rows,
                seconds,
                rows / seconds,
                most[0] / 1e6,
                Runtime.getRuntime().maxMemory() / 1_000_000);
    }

    private static long inUseAfterCollection() {
        return ManagementFactory.getMemoryPoolMXBeans().stream()
                .filter(pool -> pool.getType() == MemoryType.HEAP && pool.getCollectionUsage() != null)
                .mapToLong(pool -> pool.getCollectionUsage().getUsed())
                .sum();
    }
}
