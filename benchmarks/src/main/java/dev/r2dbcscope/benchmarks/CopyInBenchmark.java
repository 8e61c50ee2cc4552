package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
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
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.postgresql.PGConnection;
import reactor.core.publisher.Flux;

/**
 * How fast rows are written by {@link CopyIn}, beside {@code psql \copy} and pgjdbc's CopyManager, which both send a file of the
 * same rows that is encoded already. One server, all ways in turn, medians.
 *
 * <p>A program of its own, because a million rows are no operation for JMH. Arguments: rows (1000000), rounds (5).
 */
public final class CopyInBenchmark {

    private static final String TABLE = "copy_benchmark";
    private static final Pattern TIMING = Pattern.compile("Time: ([0-9.]+) ms");
    private static final Duration LONG = Duration.ofMinutes(10);

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

    private interface Way {
        /** Returns the seconds it took. */
        double run() throws Exception;
    }

    private final int rows;
    private final int port;
    private final ConnectionScopes scopes;
    private final Path file;
    private final Connection jdbc;

    private CopyInBenchmark(int rows, int port, ConnectionScopes scopes, Path file, Connection jdbc) {
        this.rows = rows;
        this.port = port;
        this.scopes = scopes;
        this.file = file;
        this.jdbc = jdbc;
    }

    public static void main(String[] args) throws Exception {
        int rows = args.length > 0 ? Integer.parseInt(args[0]) : 1_000_000;
        int rounds = args.length > 1 ? Integer.parseInt(args[1]) : 5;
        Path file = Files.createTempFile("copy", ".txt");
        try (EmbeddedPostgres server = EmbeddedPostgres.builder()
                        .setServerConfig("fsync", "off")
                        .setServerConfig("max_wal_size", "8GB")
                        .start();
                Connection jdbc = DriverManager.getConnection(server.getJdbcUrl("postgres", "postgres"))) {
            ConnectionPool pool = pool(server.getPort());
            try {
                write(file, rows);
                new CopyInBenchmark(rows, server.getPort(), ConnectionScopes.of(pool), file, jdbc).run(rounds);
            } finally {
                pool.disposeLater().block(LONG);
            }
        } finally {
            Files.delete(file);
        }
    }

    private static ConnectionPool pool(int port) {
        return new ConnectionPool(ConnectionPoolConfiguration.builder(
                        new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                                .host("localhost")
                                .port(port)
                                .username("postgres")
                                .password("postgres")
                                .database("postgres")
                                .build()))
                .maxSize(1)
                .build());
    }

    private static void write(Path file, int rows) throws IOException {
        try (BufferedWriter writer = Files.newBufferedWriter(file, StandardCharsets.UTF_8)) {
            for (int i = 0; i < rows; i++) {
                writer.write(Order.of(i).text());
            }
        }
    }

    private void run(int rounds) throws Exception {
        Map<String, Way> ways = new LinkedHashMap<>();
        ways.put("psql \\copy, text file", this::psql);
        ways.put("CopyIn, binary, columns", () -> copyIn(COLUMNS, CopyFormat.BINARY));
        ways.put("CopyIn, binary, encoder", () -> copyIn(ENCODER, CopyFormat.BINARY));
        ways.put("CopyIn, text, columns", () -> copyIn(COLUMNS, CopyFormat.TEXT));
        ways.put("CopyIn, text, encoder", () -> copyIn(ENCODER, CopyFormat.TEXT));
        ways.put("pgjdbc CopyManager, text file", this::copyManager);
        if (!isPsqlThere()) {
            System.out.println("psql is not on the path; the ratios are to CopyManager");
            ways.remove("psql \\copy, text file");
        }
        Map<String, List<Double>> seconds = new LinkedHashMap<>();
        for (int round = -1; round < rounds; round++) {
            for (Map.Entry<String, Way> way : ways.entrySet()) {
                execute("drop table if exists " + TABLE);
                execute("create table " + TABLE + " (id bigint primary key, quantity int not null, note text not null,"
                        + " created timestamptz not null, price double precision not null, paid boolean not null)");
                execute("checkpoint");
                System.gc();
                double took = way.getValue().run();
                if (count() != rows) {
                    throw new IllegalStateException(way.getKey() + " wrote " + count() + " rows");
                }
                if (round >= 0) {
                    seconds.computeIfAbsent(way.getKey(), key -> new ArrayList<>())
                            .add(took);
                }
            }
        }
        String reference =
                ways.containsKey("psql \\copy, text file") ? "psql \\copy, text file" : "pgjdbc CopyManager, text file";
        double base = median(seconds.get(reference));
        System.out.printf(
                "%n%,d rows, %d rounds, largest heap %d MB%n",
                rows, rounds, Runtime.getRuntime().maxMemory() >> 20);
        seconds.forEach((name, all) -> System.out.printf(
                "%-32s %,10.0f rows/s median   %.2f of %s   seconds %s%n",
                name, rows / median(all), base / median(all), reference, all));
    }

    private double copyIn(CopyIn<Order> writer, CopyFormat format) {
        long start = System.nanoTime();
        writer.withFormat(format)
                .write(scopes, Flux.range(0, rows).map(Order::of))
                .block(LONG);
        return (System.nanoTime() - start) / 1e9;
    }

    private double copyManager() throws Exception {
        long start = System.nanoTime();
        try (InputStream in = Files.newInputStream(file)) {
            jdbc.unwrap(PGConnection.class).getCopyAPI().copyIn("copy " + TABLE + " from stdin", in, 64 * 1024);
        }
        return (System.nanoTime() - start) / 1e9;
    }

    /** As psql itself measures it, without its start. */
    private double psql() throws Exception {
        ProcessBuilder builder = new ProcessBuilder(
                "psql", "-X", "-h", "localhost", "-p", String.valueOf(port), "-U", "postgres", "-d", "postgres");
        builder.environment().put("PGPASSWORD", "postgres");
        Process process = builder.redirectErrorStream(true).start();
        process.getOutputStream()
                .write(("\\timing on\n\\copy " + TABLE + " from '" + file + "'\n").getBytes(StandardCharsets.UTF_8));
        process.getOutputStream().close();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        Matcher timing = TIMING.matcher(output);
        if (process.waitFor() != 0 || !timing.find()) {
            throw new IllegalStateException("psql said: " + output);
        }
        return Double.parseDouble(timing.group(1)) / 1000;
    }

    private static boolean isPsqlThere() throws InterruptedException {
        try {
            Process process = new ProcessBuilder("psql", "--version").start();
            process.getInputStream().readAllBytes();
            return process.waitFor() == 0;
        } catch (IOException e) {
            return false;
        }
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

    private static double median(List<Double> values) {
        double[] sorted =
                values.stream().mapToDouble(Double::doubleValue).sorted().toArray();
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1
                ? sorted[middle]
                : Arrays.stream(sorted, middle - 1, middle + 1).average().orElseThrow();
    }
}
