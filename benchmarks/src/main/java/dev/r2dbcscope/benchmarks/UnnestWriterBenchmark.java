package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
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
 */
final class UnnestWriterBenchmark implements Part {

    private static final String INSERT =
            "insert into bench (id, number, note, amount, at, ok) values ($1, $2, $3, $4, $5, $6)";
    private static final OffsetDateTime START = OffsetDateTime.of(2026, 1, 1, 0, 0, 0, 123_456_000, ZoneOffset.UTC);

    private record Line(long id, int number, String note, double amount, OffsetDateTime at, boolean ok) {
        static Line of(long id) {
            return new Line(
                    id, (int) (id * 31), new UUID(id * 7, id).toString(), id / 8.0, START.plusSeconds(id), id % 3 == 0);
        }
    }

    private int rows;
    private ConnectionScopes scopes;
    private String url;

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

    @Override
    public String name() {
        return "writer";
    }

    @Override
    public String question() {
        return "Plain inserts and upserts of rows that are made as they go";
    }

    @Override
    public void run(Extent extent, Report report) throws Exception {
        rows = extent.of(100_000);
        try (Server server = Server.start()) {
            ConnectionPool pool = server.pool(1);
            scopes = ConnectionScopes.of(pool);
            url = server.jdbcUrl() + "&reWriteBatchedInserts=true";
            try {
                inserts(extent, report);
                upserts(extent, report);
            } finally {
                pool.disposeLater().block(Server.LONG);
            }
        }
    }

    private void inserts(Extent extent, Report report) throws Exception {
        execute("create table bench (id bigint primary key, number int, note text, amount double precision,"
                + " at timestamptz, ok boolean)");
        Contest.Preparation empty = () -> execute("truncate bench");
        new Contest(report, "insert", "rows/s")
                .add("pgjdbc, rewritten batches of 1,000", empty, Contest.perSecond(this::rewritten))
                .add("UnnestWriter, batches of 10,000", empty, Contest.perSecond(() -> unnest(10_000)))
                .add("UnnestWriter, batches of 1,000", empty, Contest.perSecond(() -> unnest(1_000)))
                .add("Statement.add(), batches of 1,000", empty, Contest.perSecond(this::add))
                .run(extent.rounds());
    }

    private void upserts(Extent extent, Report report) throws Exception {
        Contest.Preparation empty = () -> execute("truncate bench");
        Contest.Preparation half = () -> execute("truncate bench; insert into bench select id, 0, 'old', 0, now(), true"
                + " from generate_series(2, " + rows + ", 2) id");
        new Contest(report, "half of the rows are there", "rows/s")
                .add(
                        "CopyIn, append (none is there)",
                        empty,
                        Contest.perSecond(() -> require(rows, copy.write(scopes, lines()))))
                .add(
                        "CopyUpsert",
                        half,
                        Contest.perSecond(() -> require(
                                rows,
                                CopyUpsert.of(copy, OnConflict.doUpdate("id")).write(scopes, lines()))))
                .add(
                        "UnnestWriter, upsert",
                        half,
                        Contest.perSecond(() -> require(
                                rows,
                                writer.withOnConflict(OnConflict.doUpdate("id")).write(scopes, lines()))))
                .run(extent.rounds());
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
