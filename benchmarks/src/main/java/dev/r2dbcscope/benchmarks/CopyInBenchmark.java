package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.etl.ChunkSink;
import dev.r2dbcscope.etl.ChunkWriter;
import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import io.r2dbc.pool.ConnectionPool;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.time.Instant;
import java.util.List;
import java.util.Locale;
import org.postgresql.PGConnection;
import reactor.core.publisher.Flux;

/**
 * How fast rows are written by {@link CopyIn}, beside {@code psql \copy} and pgjdbc's CopyManager, which both send a file of the
 * same rows that is encoded already.
 */
final class CopyInBenchmark implements Part {

    private static final String TABLE = "copy_benchmark";

    private record Order(long id, int quantity, String note, Instant created, double price, boolean paid) {

        static Order of(int i) {
            return new Order(
                    i,
                    i % 1000,
                    "order number " + i + " of a benchmark of COPY",
                    Instant.ofEpochSecond(1_700_000_000L + i, 123_456_000),
                    i * 0.25,
                    i % 3 == 0);
        }

        String text() {
            return id + "\t" + quantity + "\t" + note + "\t" + created + "\t" + price + "\t" + (paid ? 't' : 'f')
                    + "\n";
        }
    }

    private static final CopyIn<Order> COLUMNS = CopyIn.<Order>into(TABLE)
            .column("id", CopyType.BIGINT, Order::id)
            .column("quantity", CopyType.INTEGER, Order::quantity)
            .column("note", CopyType.TEXT, Order::note)
            .column("created", CopyType.INSTANT, Order::created)
            .column("price", CopyType.DOUBLE_PRECISION, Order::price)
            .column("paid", CopyType.BOOLEAN, Order::paid);

    private static final CopyIn<Order> ENCODER = CopyIn.<Order>into(TABLE)
            .columns(
                    (order, row) -> row.writeLong(order.id())
                            .writeInt(order.quantity())
                            .writeText(order.note())
                            .writeTimestampTz(order.created())
                            .writeDouble(order.price())
                            .writeBoolean(order.paid()),
                    "id",
                    "quantity",
                    "note",
                    "created",
                    "price",
                    "paid");

    private int rows;
    private int port;
    private ConnectionScopes scopes;
    private Path file;
    private Connection jdbc;

    @Override
    public String name() {
        return "bulk";
    }

    @Override
    public String question() {
        return "Rows of six columns by COPY: psql and CopyManager send a file that is encoded already";
    }

    @Override
    public List<String> jvmOptions() {
        return List.of("-Xmx64m");
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        rows = extent.of(1_000_000);
        file = Files.createTempFile("copy", ".txt");
        try (Server server = Server.start();
                Connection toServer = DriverManager.getConnection(server.jdbcUrl())) {
            ConnectionPool pool = server.pool(1);
            try {
                port = server.port();
                jdbc = toServer;
                scopes = ConnectionScopes.of(pool);
                write(file, rows);
                contest(extent, report);
            } finally {
                pool.disposeLater().block(Server.LONG);
            }
        } finally {
            Files.delete(file);
        }
    }

    private static void write(Path file, int rows) throws IOException {
        try (BufferedWriter writer = Files.newBufferedWriter(file, StandardCharsets.UTF_8)) {
            for (int i = 0; i < rows; i++) {
                writer.write(Order.of(i).text());
            }
        }
    }

    private void contest(Extent extent, Report report) throws Exception {
        Contest contest = new Contest(report, String.format(Locale.ROOT, "%,d rows", rows), "rows/s");
        if (Psql.isThere()) {
            add(contest, "psql \\copy, text file", this::psql);
        } else {
            report.note("psql is not on the path");
        }
        add(contest, "pgjdbc CopyManager, text file", this::copyManager);
        add(contest, "CopyIn, binary, columns", () -> copyIn(COLUMNS, CopyFormat.BINARY));
        add(contest, "CopyIn, binary, encoder", () -> copyIn(ENCODER, CopyFormat.BINARY));
        add(contest, "CopyIn, binary, chunks of 10,000", this::chunks);
        add(contest, "CopyIn, text, columns", () -> copyIn(COLUMNS, CopyFormat.TEXT));
        add(contest, "CopyIn, text, encoder", () -> copyIn(ENCODER, CopyFormat.TEXT));
        contest.run(extent.rounds());
    }

    /** A way that returns the seconds it took. */
    private void add(Contest contest, String side, Contest.Way seconds) {
        contest.add(side, this::empty, () -> {
            double took = seconds.run();
            if (count() != rows) {
                throw new IllegalStateException(side + " wrote " + count() + " rows");
            }
            return rows / took;
        });
    }

    private void empty() throws Exception {
        execute("drop table if exists " + TABLE);
        execute("create table " + TABLE + " (id bigint primary key, quantity int not null, note text not null,"
                + " created timestamptz not null, price double precision not null, paid boolean not null)");
        execute("checkpoint");
        System.gc();
    }

    /** Each chunk is a transaction. */
    private double chunks() {
        long start = System.nanoTime();
        ChunkWriter.to(ChunkSink.of(COLUMNS))
                .write(scopes, Flux.range(0, rows).map(Order::of))
                .then()
                .block(Server.LONG);
        return (System.nanoTime() - start) / 1e9;
    }

    private double copyIn(CopyIn<Order> writer, CopyFormat format) {
        long start = System.nanoTime();
        writer.withFormat(format)
                .write(scopes, Flux.range(0, rows).map(Order::of))
                .block(Server.LONG);
        return (System.nanoTime() - start) / 1e9;
    }

    private double copyManager() throws Exception {
        long start = System.nanoTime();
        try (InputStream in = Files.newInputStream(file)) {
            jdbc.unwrap(PGConnection.class).getCopyAPI().copyIn("copy " + TABLE + " from stdin", in, 64 * 1024);
        }
        return (System.nanoTime() - start) / 1e9;
    }

    private double psql() throws Exception {
        return Psql.timed(port, "\\copy " + TABLE + " from '" + file + "'");
    }

    private void execute(String sql) throws Exception {
        try (Statement statement = jdbc.createStatement()) {
            statement.execute(sql);
        }
    }

    private long count() throws Exception {
        try (Statement statement = jdbc.createStatement();
                ResultSet result = statement.executeQuery("select count(*) from " + TABLE)) {
            result.next();
            return result.getLong(1);
        }
    }
}
