package dev.r2dbcscope.benchmarks;

import io.r2dbc.pool.ConnectionPool;
import java.sql.Connection;
import java.sql.DriverManager;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * How fast, how soon and in how much memory a large result is read with every column decoded: at one go, and with a fetch size
 * in a transaction. With {@code -Dbenchmarks.large=true} ten times as many rows are read, too.
 */
final class StreamingBenchmark implements Part {

    private static final int FETCH_SIZE = 1_000;
    private static final int ROWS = 1_000_000;

    private Server server;
    private Connection jdbc;
    private VertxReaders vertx;
    private R2dbcReaders r2dbc;

    @Override
    public String name() {
        return "streaming";
    }

    @Override
    public String question() {
        return "A large result read to its end, every column decoded, in a heap of 256 MB";
    }

    @Override
    public List<String> jvmOptions() {
        return List.of("-Xmx256m");
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        boolean large = !extent.quick() && Boolean.getBoolean("benchmarks.large");
        try (Server started = Server.start()) {
            server = started;
            OrderTable.create(server, large ? 10 * ROWS : extent.of(ROWS));
            ConnectionPool pool = Server.pool(server.configuration().forceBinary(true), 1);
            try (Connection connection = DriverManager.getConnection(server.jdbcUrl() + PgjdbcReader.BINARY);
                    VertxReaders readers = new VertxReaders(server.port())) {
                jdbc = connection;
                vertx = readers;
                r2dbc = new R2dbcReaders(pool);
                both(extent, report, extent.of(ROWS));
                if (large) {
                    both(extent, report, 10 * ROWS);
                }
            } finally {
                pool.disposeLater().block(Server.LONG);
            }
        }
        report.note("MB in use: of the heap, without Netty's buffers outside it");
        report.note("Vert.x, collecting: its plain query would keep all rows");
        if (!Psql.isThere()) {
            report.note("psql is not on the path");
        }
    }

    private void both(Extent extent, Report report, int rows) throws Exception {
        String count = String.format(Locale.ROOT, ", %,d rows", rows);
        contest(extent, report, "plain" + count, rows, plain(report, rows));
        contest(extent, report, "paged" + count, rows, paged());
    }

    private Map<String, RowReader> plain(Report report, int rows) throws Exception {
        Map<String, RowReader> sides = new LinkedHashMap<>();
        sides.put("R2DBC driver", r2dbc.driver(0));
        sides.put("DatabaseClient", r2dbc.databaseClient(0));
        if (rows <= ROWS) {
            sides.put("pgjdbc", new PgjdbcReader(jdbc, 0));
            sides.put("Vert.x, collecting", vertx.collecting());
        } else {
            // they take threads of the others with them
            report.note("pgjdbc without a fetch size keeps all rows, and runs out of memory with " + rows);
            report.note("Vert.x without a cursor runs out of direct memory with " + rows);
        }
        sides.put("scope", r2dbc.scope(0));
        return sides;
    }

    private Map<String, RowReader> paged() {
        Map<String, RowReader> sides = new LinkedHashMap<>();
        sides.put("R2DBC driver", r2dbc.driver(FETCH_SIZE));
        sides.put("DatabaseClient", r2dbc.databaseClient(FETCH_SIZE));
        sides.put("pgjdbc", new PgjdbcReader(jdbc, FETCH_SIZE));
        sides.put("Vert.x, stream", vertx.stream(FETCH_SIZE));
        sides.put("scope", r2dbc.scope(FETCH_SIZE));
        return sides;
    }

    private void contest(Extent extent, Report report, String group, int rows, Map<String, RowReader> sides)
            throws Exception {
        Map<String, List<Double>> firsts = new LinkedHashMap<>();
        Contest speed = new Contest(report, group, "rows/s");
        Contest memory = new Contest(report, group, "MB in use");
        sides.forEach((side, reader) -> {
            List<Double> first = firsts.computeIfAbsent(side, none -> new ArrayList<>());
            speed.add(side, System::gc, () -> {
                RowTally tally = RowTally.of(rows);
                reader.read(rows, tally);
                tally.check(side);
                first.add(tally.millisToFirst());
                return tally.perSecond();
            });
            memory.add(side, () -> {
                HeapInUse heap = new HeapInUse();
                RowTally tally = RowTally.sampling(rows, heap);
                reader.read(rows, tally);
                tally.check(side);
                return heap.megabytes();
            });
        });
        psql(speed, group, rows);
        speed.run(extent.rounds());
        firsts.forEach((side, millis) -> {
            for (int round = 1; round < millis.size(); round++) {
                report.add(group, side, "ms to the first row", round, millis.get(round));
            }
        });
        memory.run(1);
    }

    private void psql(Contest speed, String group, int rows) throws Exception {
        if (!Psql.isThere()) {
            return;
        }
        String sql = OrderTable.SELECT.replace("$1", String.valueOf(rows));
        speed.add(
                "psql, printing to nowhere",
                () -> rows
                        / (group.startsWith("paged")
                                ? Psql.read(server, sql, "--variable=FETCH_COUNT=" + FETCH_SIZE)
                                : Psql.read(server, sql)));
    }
}
