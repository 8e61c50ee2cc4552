package dev.r2dbcscope.benchmarks;

import com.sun.management.OperatingSystemMXBean;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.TransactionOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import java.lang.management.ManagementFactory;
import java.time.Instant;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * How fast a large result is read page by page through a cursor (plain SPI code with a fetch size, in a scope that is a
 * read-only transaction), beside the driver's own fetch size in a transaction; with and without added round-trip time, with text
 * and with binary values. One server, all ways in turn, medians.
 */
final class PagingBenchmark implements Part {

    private static final int FETCH_SIZE = 1_000;

    @Override
    public String name() {
        return "paging";
    }

    @Override
    public String question() {
        return "A large result read page by page, in a read-only transaction";
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        int rows = extent.of(1_000_000);
        int distantRows = extent.of(200_000);
        try (Server server = Server.start()) {
            ConnectionPool plain = server.pool(1);
            try {
                Mono.usingWhen(plain.create(), c -> table(c, rows), Connection::close)
                        .block(Server.LONG);
            } finally {
                plain.disposeLater().block(Server.LONG);
            }
            for (boolean binary : new boolean[] {false, true}) {
                contest(extent, report, "loopback", server.port(), binary, rows);
                try (DelayingProxy network = new DelayingProxy(server.port(), 5)) {
                    contest(extent, report, "5 ms", network.port(), binary, distantRows);
                }
            }
        }
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

    private static void contest(Extent extent, Report report, String network, int port, boolean binary, int rows)
            throws Exception {
        String group = network + ", " + (binary ? "binary" : "text");
        ConnectionPool pool = Server.pool(Server.configuration(port).forceBinary(binary), 2);
        try {
            ConnectionScopes reads = ConnectionScopes.of(pool)
                    .transactions(TransactionOptions.defaults().withReadOnly(true));
            Contest.Work driver = () -> driver(pool, rows);
            Contest.Work scope = () -> count(reads.inTransactionMany(c -> read(c, rows)));
            new Contest(report, group, "rows/s")
                    .add("driver's fetch size", Contest.perSecond(driver))
                    .add("scope, paged", Contest.perSecond(scope))
                    .run(extent.rounds());
            new Contest(report, group, "ns of CPU a row")
                    .add("driver's fetch size", () -> cpu(driver))
                    .add("scope, paged", () -> cpu(scope))
                    .run(1);
        } finally {
            pool.disposeLater().block(Server.LONG);
        }
    }

    /** Nanoseconds of all threads of this process for each row; hardly depends on what else the machine does. */
    private static double cpu(Contest.Work work) throws Exception {
        OperatingSystemMXBean process = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long before = process.getProcessCpuTime();
        long rows = work.run();
        return (double) (process.getProcessCpuTime() - before) / rows;
    }

    private static long driver(ConnectionPool pool, int rows) {
        return count(Flux.usingWhen(
                pool.create(),
                c -> Mono.from(c.beginTransaction()).thenMany(read(c, rows)),
                c -> Mono.from(c.commitTransaction()).then(Mono.from(c.close())),
                (c, error) -> Mono.from(c.close()),
                c -> Mono.from(c.close())));
    }

    private static Flux<Long> read(Connection connection, int rows) {
        return Flux.from(connection
                        .createStatement("select id, quantity, note, created, price from orders where id <= $1")
                        .bind(0, (long) rows)
                        .fetchSize(FETCH_SIZE)
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, Long.class)
                        + row.get(1, Integer.class)
                        + row.get(2, String.class).length()
                        + row.get(3, Instant.class).getEpochSecond()
                        + row.get(4, Double.class).longValue()));
    }

    private static long count(Flux<Long> rows) {
        return rows.count().blockOptional(Server.LONG).orElseThrow();
    }
}
