package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.etl.Checkpoints;
import dev.r2dbcscope.etl.ChunkResult;
import dev.r2dbcscope.etl.ChunkSink;
import dev.r2dbcscope.etl.ChunkWriter;
import dev.r2dbcscope.etl.EtlJob;
import dev.r2dbcscope.etl.Lookup;
import dev.r2dbcscope.etl.Reject;
import dev.r2dbcscope.etl.Rejects;
import dev.r2dbcscope.etl.Source;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.KeysetRead;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Row;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The examples of README.md about moving data in chunks. */
class ReadmeEtlIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final WatchedPool shop = WatchedPool.of(2);
    private final WatchedPool warehouse = WatchedPool.of(2);

    private record Order(long id, long customer) {}

    private record Line(long id, @Nullable String name) {}

    private static Order order(Row row) {
        return new Order(
                Objects.requireNonNull(row.get("id", Long.class)),
                Objects.requireNonNull(row.get("customer", Long.class)));
    }

    @BeforeEach
    void tables() {
        Postgres.execute("drop table if exists etl_orders, etl_customers, etl_lines, r2dbc_scope_checkpoints;"
                + " create table etl_orders (id bigint primary key, customer bigint);"
                + " create table etl_customers (id bigint primary key, name text);"
                + " create table etl_lines (id bigint primary key, name text);"
                + " insert into etl_orders select i, i % 100 from generate_series(1, 25000) i;"
                + " insert into etl_customers select i, 'customer ' || i from generate_series(1, 98) i");
    }

    @AfterEach
    void whole() {
        shop.assertWhole();
        warehouse.assertWhole();
        shop.close();
        warehouse.close();
    }

    private Flux<Line> lines() {
        return Flux.range(1, 25_000).map(i -> new Line(i, "line " + i));
    }

    @Test
    void chunks() {
        ConnectionScopes scopes = warehouse.scopes;
        Flux<Line> lines = lines();
        // example: chunks
        CopyIn<Line> copy = CopyIn.<Line>into("etl_lines")
                .column("id", CopyType.BIGINT, Line::id)
                .column("name", CopyType.TEXT, Line::name);

        Flux<ChunkResult> committed = ChunkWriter.to(ChunkSink.of(copy))
                .withMaxRows(5_000)
                .withMaxWait(Duration.ofSeconds(1))
                .write(scopes, lines);
        // end
        assertThat(committed.collectList().block(BOUND)).hasSize(5).allMatch(chunk -> chunk.written() == 5_000);
        assertThat(Postgres.number("select count(*) from etl_lines")).isEqualTo(25_000);
    }

    private static Mono<Long> note(Connection connection, List<Reject<Line>> rejects) {
        return UnnestWriter.<Reject<Line>>into("etl_rejects")
                .column("number", "bigint", Reject::number)
                .column("reason", "text", Reject::reason)
                .write(connection, Flux.fromIterable(rejects));
    }

    @Test
    void rejects() {
        Postgres.execute("drop table if exists etl_rejects; create table etl_rejects (number bigint, reason text);"
                + " insert into etl_lines values (7), (15000)");
        CopyIn<Line> copy = CopyIn.<Line>into("etl_lines")
                .column("id", CopyType.BIGINT, Line::id)
                .column("name", CopyType.TEXT, Line::name);
        // example: rejects
        ChunkWriter<Line> tolerant = ChunkWriter.to(ChunkSink.of(copy))
                .withRejects(Rejects.<Line>inTransaction((connection, rejects) -> note(connection, rejects))
                        .withLimit(1_000));
        // end
        assertThat(tolerant.write(warehouse.scopes, lines())
                        .map(ChunkResult::rejected)
                        .collectList()
                        .block(BOUND))
                .containsExactly(1L, 1L, 0L);
        assertThat(Postgres.number("select count(*) from etl_lines")).isEqualTo(25_000);
        assertThat(Postgres.number("select sum(number)::bigint from etl_rejects where reason like '%duplicate key%'"))
                .isEqualTo(15_007);
    }

    private static Source<Line> source(ConnectionScopes shop) {
        // example: a source with a lookup
        Source<Order> orders =
                Source.of(KeysetRead.ofQuery("select id, customer from etl_orders", "id"), shop, row -> order(row));

        Lookup<Long, String> names = Lookup.ofQuery(
                "select id, name from etl_customers where id = any($1)",
                Long.class,
                row -> row.get("id", Long.class),
                row -> row.get("name", String.class));

        Source<Line> lines = orders.transform(rows -> names.join(
                        shop, rows, at -> at.row().customer())
                .map(match -> match.row().with(new Line(match.row().row().id(), match.found()))));
        // end
        return lines;
    }

    private static Mono<Long> job(Source<Line> lines, ConnectionScopes warehouse) {
        // example: a job
        UnnestWriter<Line> upsert = UnnestWriter.<Line>into("etl_lines")
                .column("id", "bigint", Line::id)
                .column("name", "text", Line::name)
                .withOnConflict(OnConflict.doUpdate("id"));
        EtlJob<Line> job = EtlJob.of("lines of 2026", lines, ChunkWriter.to(ChunkSink.of(upsert)));

        Mono<Long> rows = Checkpoints.defaults()
                .create(warehouse)
                .thenMany(job.run(warehouse))
                .reduce(0L, (sum, chunk) -> sum + chunk.rows());
        // end
        return rows;
    }

    @Test
    void aJob() {
        assertThat(job(source(shop.scopes), warehouse.scopes).block(BOUND)).isEqualTo(25_000);
        assertThat(Postgres.number("select count(*) from etl_lines")).isEqualTo(25_000);
        assertThat(Postgres.number("select count(*) from etl_lines where name = 'customer ' || id % 100"))
                .isEqualTo(24_500);
        assertThat(Postgres.number("select count(*) from etl_lines where name is null"))
                .isEqualTo(500);

        assertThat(job(source(shop.scopes), warehouse.scopes).block(BOUND)).isZero();
    }
}
