package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.List;
import java.util.UUID;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Inserts rows of six columns: {@code UnnestWriter}, the SPI's {@code Statement.add()}, and pgjdbc with rewritten batches. Then
 * upserts rows of which half are there, beside a plain COPY of as many. Each way makes its rows as it goes, in one transaction on
 * one connection, into a table with a primary key.
 *
 * <p>{@code java -cp target/benchmarks.jar dev.r2dbcscope.benchmarks.UnnestWriterBenchmark [rows] [rounds]}
 */
public final class UnnestWriterBenchmark {

    private static final String INSERT =
            "insert into bench (id, number, note, amount, at, ok) values ($1, $2, $3, $4, $5, $6)";
    private static final OffsetDateTime START = OffsetDateTime.of(2026, 1, 1, 0, 0, 0, 123_456_000, ZoneOffset.UTC);

    private record Line(long id, int number, String note, double amount, OffsetDateTime at, boolean ok) {
        static Line of(long id) {
            return new Line(
                    id, (int) (id * 31), new UUID(id * 7, id).toString(), id / 8.0, START.plusSeconds(id), id % 3 == 0);
        }
    }

    private final int rows;
    private final ConnectionPool pool;
    private final ConnectionScopes scopes;
    private final String url;
    private final UnnestWriter<Line> writer = UnnestWriter.<Line>into("bench")
            .column("id", "bigint", Line::id)
            .column("number", "int", Line::number)
            .column("note", "text", Line::note)
            .column("amount", "double precision", Line::amount)
            .column("at", "timestamptz", Line::at)
            .column("ok", "boolean", Line::ok);

    private final CopyIn<Line> copy = CopyIn.<Line>into("bench")
            .column("id", CopyType.BIGINT, Line::id)
            .column("number", CopyType.INTEGER, Line::number)
            .column("note", CopyType.TEXT, Line::note)
            .column("amount", CopyType.DOUBLE_PRECISION, Line::amount)
            .column("at", CopyType.TIMESTAMPTZ, Line::at)
            .column("ok", CopyType.BOOLEAN, Line::ok);

    private UnnestWriterBenchmark(int rows, int port) {
        this.rows = rows;
        this.pool = new ConnectionPool(ConnectionPoolConfiguration.builder(
                        new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                                .host("localhost")
                                .port(port)
                                .username("postgres")
                                .password("postgres")
                                .database("postgres")
                                .build()))
                .maxSize(1)
                .build());
        this.scopes = ConnectionScopes.of(pool);
        this.url = "jdbc:postgresql://localhost:" + port
                + "/postgres?user=postgres&password=postgres&reWriteBatchedInserts=true";
    }

    public static void main(String[] args) throws Exception {
        int rows = args.length > 0 ? Integer.parseInt(args[0]) : 100_000;
        int rounds = args.length > 1 ? Integer.parseInt(args[1]) : 7;
        try (EmbeddedPostgres server = EmbeddedPostgres.start()) {
            new UnnestWriterBenchmark(rows, server.getPort()).run(rounds);
        }
    }

    private void run(int rounds) throws Exception {
        execute("create table bench (id bigint primary key, number int, note text, amount double precision,"
                + " at timestamptz, ok boolean)");
        Contest.Preparation empty = () -> execute("truncate bench");
        Contest inserts = new Contest()
                .add("UnnestWriter, batches of 10,000", empty, () -> unnest(10_000))
                .add("UnnestWriter, batches of 1,000", empty, () -> unnest(1_000))
                .add("Statement.add(), batches of 1,000", empty, this::add)
                .add("pgjdbc, rewritten batches of 1,000", empty, this::rewritten)
                .run(rounds);
        inserts.print();
        inserts.compare("UnnestWriter, batches of 10,000", "Statement.add(), batches of 1,000");
        inserts.compare("UnnestWriter, batches of 10,000", "pgjdbc, rewritten batches of 1,000");
        inserts.compare("UnnestWriter, batches of 1,000", "pgjdbc, rewritten batches of 1,000");
        Contest.Preparation half = () -> execute("truncate bench; insert into bench select id, 0, 'old', 0, now(), true"
                + " from generate_series(2, " + rows + ", 2) id");
        Contest upserts = new Contest()
                .add("CopyIn, append", empty, () -> require(rows, copy.write(scopes, lines())))
                .add(
                        "CopyUpsert, 50 % conflicts",
                        half,
                        () -> require(
                                rows,
                                CopyUpsert.of(copy, OnConflict.doUpdate("id")).write(scopes, lines())))
                .add(
                        "UnnestWriter, 50 % conflicts",
                        half,
                        () -> require(
                                rows,
                                writer.withOnConflict(OnConflict.doUpdate("id")).write(scopes, lines())))
                .run(rounds);
        upserts.print();
        upserts.compare("CopyUpsert, 50 % conflicts", "CopyIn, append");
        upserts.compare("UnnestWriter, 50 % conflicts", "CopyIn, append");
        pool.dispose();
    }

    private void execute(String sql) {
        scopes.withConnection(
                        connection -> Flux.from(connection.createStatement(sql).execute())
                                .concatMap(Result::getRowsUpdated)
                                .then())
                .block(Duration.ofMinutes(1));
    }

    private Flux<Line> lines() {
        return Flux.range(1, rows).map(Line::of);
    }

    private long unnest(int batchSize) {
        return require(
                rows,
                writer.withBatchSize(batchSize)
                        .write(scopes, Flux.range(1, rows).map(Line::of)));
    }

    /** A tenth of the rows, because each of them is a round trip. */
    private long add() {
        return require(
                rows / 10,
                scopes.inTransaction(connection -> Flux.range(1, rows / 10)
                        .buffer(1_000)
                        .concatMap(ids -> added(connection, ids))
                        .reduce(0L, Long::sum)));
    }

    private static Flux<Long> added(Connection connection, List<Integer> ids) {
        Statement statement = connection.createStatement(INSERT);
        for (int i = 0; i < ids.size(); i++) {
            if (i > 0) {
                statement.add();
            }
            Line line = Line.of(ids.get(i));
            statement
                    .bind(0, line.id())
                    .bind(1, line.number())
                    .bind(2, line.note())
                    .bind(3, line.amount())
                    .bind(4, line.at())
                    .bind(5, line.ok());
        }
        return Flux.from(statement.execute()).concatMap(Result::getRowsUpdated);
    }

    private static long require(long expected, Mono<Long> written) {
        long actual = written.blockOptional(Duration.ofMinutes(5)).orElseThrow();
        if (actual != expected) {
            throw new IllegalStateException(actual + " rows were written instead of " + expected);
        }
        return actual;
    }

    private long rewritten() throws Exception {
        try (java.sql.Connection connection = DriverManager.getConnection(url);
                PreparedStatement statement = connection.prepareStatement(INSERT.replaceAll("\\$\\d", "?"))) {
            connection.setAutoCommit(false);
            for (int id = 1; id <= rows; id++) {
                Line line = Line.of(id);
                statement.setLong(1, line.id());
                statement.setInt(2, line.number());
                statement.setString(3, line.note());
                statement.setDouble(4, line.amount());
                statement.setObject(5, line.at());
                statement.setBoolean(6, line.ok());
                statement.addBatch();
                if (id % 1_000 == 0) {
                    statement.executeBatch();
                }
            }
            statement.executeBatch();
            connection.commit();
        }
        return rows;
    }
}
