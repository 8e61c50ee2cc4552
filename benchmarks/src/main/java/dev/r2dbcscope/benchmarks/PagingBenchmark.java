package dev.r2dbcscope.benchmarks;

import com.sun.management.OperatingSystemMXBean;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.time.Instant;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * How fast a large result is read page by page through a cursor (plain SPI code with a fetch size, in a scope that is a
 * read-only transaction), beside the driver's own fetch size in a transaction; with and without added round-trip time, with text
 * and with binary values. One server, all ways in turn, medians.
 *
 * <p>Arguments: rows (1000000), rows at 5 ms (200000), rounds (5), fetch size (1000).
 */
public final class PagingBenchmark {

    private static final Duration LONG = Duration.ofMinutes(10);

    private PagingBenchmark() {}

    public static void main(String[] args) throws Exception {
        int rows = args.length > 0 ? Integer.parseInt(args[0]) : 1_000_000;
        int distantRows = args.length > 1 ? Integer.parseInt(args[1]) : 200_000;
        int rounds = args.length > 2 ? Integer.parseInt(args[2]) : 5;
        int fetchSize = args.length > 3 ? Integer.parseInt(args[3]) : 1000;
        try (EmbeddedPostgres server =
                EmbeddedPostgres.builder().setServerConfig("fsync", "off").start()) {
            ConnectionPool plain = pool(server.getPort(), false);
            try {
                Mono.usingWhen(plain.create(), c -> table(c, Math.max(rows, distantRows)), Connection::close)
                        .block(LONG);
            } finally {
                plain.disposeLater().block(LONG);
            }
            for (boolean binary : new boolean[] {false, true}) {
                contest("loopback", server.getPort(), binary, rows, rounds, fetchSize);
                try (DelayingProxy network = new DelayingProxy(server.getPort(), 5)) {
                    contest("5 ms", network.port(), binary, distantRows, rounds, fetchSize);
                }
            }
        }
        System.exit(0);
    }

    private static Mono<Void> table(Connection connection, int rows) {
        return Flux.from(connection
                        .createStatement("create table orders as select i::bigint id, i % 1000 quantity,"
                                + " 'order number ' || i || ' of a benchmark' note,"
                                + " timestamptz '2024-01-01' + i * interval '1 second' created, i * 0.25::float8 price"
                                + " from generate_series(1, " + rows + ") i")
                        .execute())
                .flatMap(result -> result.getRowsUpdated())
                .thenMany(connection.createStatement("vacuum analyze orders").execute())
                .flatMap(result -> result.getRowsUpdated())
                .then();
    }

    private static void contest(String network, int port, boolean binary, int rows, int rounds, int fetchSize)
            throws Exception {
        System.out.println(
                network + ", " + (binary ? "binary" : "text") + ", " + rows + " rows, fetch size " + fetchSize);
        ConnectionPool pool = pool(port, binary);
        try {
            ConnectionScopes reads = ConnectionScopes.of(pool)
                    .transactions(TransactionOptions.defaults().withReadOnly(true));
            Contest contest = new Contest()
                    .add("driver's fetch size", () -> driver(pool, rows, fetchSize))
                    .add("scope, paged", () -> count(reads.inTransactionMany(c -> read(c, rows, fetchSize))))
                    .run(rounds);
            contest.print();
            contest.compare("scope, paged", "driver's fetch size");
            System.out.printf(
                    "client's CPU time: %d ns a row by the driver, %d in a scope%n",
                    cpu(() -> driver(pool, rows, fetchSize)),
                    cpu(() -> count(reads.inTransactionMany(c -> read(c, rows, fetchSize)))));
        } finally {
            pool.disposeLater().block(LONG);
        }
    }

    /** Nanoseconds of all threads of this process for each row; hardly depends on what else the machine does. */
    private static long cpu(Contest.Way way) throws Exception {
        OperatingSystemMXBean process = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long before = process.getProcessCpuTime();
        long rows = way.run();
        return (process.getProcessCpuTime() - before) / rows;
    }

    private static long driver(ConnectionPool pool, int rows, int fetchSize) {
        return count(Flux.usingWhen(
                pool.create(),
                c -> Mono.from(c.beginTransaction()).thenMany(read(c, rows, fetchSize)),
                c -> Mono.from(c.commitTransaction()).then(Mono.from(c.close())),
                (c, error) -> Mono.from(c.close()),
                c -> Mono.from(c.close())));
    }

    private static Flux<Long> read(Connection connection, int rows, int fetchSize) {
        return Flux.from(connection
                        .createStatement("select id, quantity, note, created, price from orders where id <= $1")
                        .bind(0, (long) rows)
                        .fetchSize(fetchSize)
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, Long.class)
                        + row.get(1, Integer.class)
                        + row.get(2, String.class).length()
                        + row.get(3, Instant.class).getEpochSecond()
                        + row.get(4, Double.class).longValue()));
    }

    private static long count(Flux<Long> rows) {
        return rows.count().blockOptional(LONG).orElseThrow();
    }

    private static ConnectionPool pool(int port, boolean binary) {
        return new ConnectionPool(ConnectionPoolConfiguration.builder(
                        new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                                .host("localhost")
                                .port(port)
                                .username("postgres")
                                .password("postgres")
                                .database("postgres")
                                .forceBinary(binary)
                                .build()))
                .initialSize(0)
                .maxSize(2)
                .build());
    }
}
