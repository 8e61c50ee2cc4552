package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.spi.ColumnMetadata;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.time.LocalDate;
import java.util.List;
import java.util.UUID;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What the handles of a scope say is what the driver says: each piece of plain SPI code runs on both. */
class HandlesIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final ConnectionPool pool = Postgres.pool(1);
    private final ConnectionScopes scopes = ConnectionScopes.of(pool);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists handled;"
                + " create table handled (id serial primary key, n int, word text);"
                + " create or replace function noisy(n int) returns int language plpgsql as"
                + " 'begin raise notice ''hear hear''; return n; end'");
    }

    @AfterEach
    void nothingIsHeld() {
        assertThat(scopes.live()).isEmpty();
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
        pool.disposeLater().block(BOUND);
    }

    private interface Use extends Function<Connection, Publisher<?>> {}

    private static Use results(String sql, Function<Result, Publisher<?>> reading) {
        return connection ->
                Flux.from(connection.createStatement(sql).execute()).concatMap(reading);
    }

    static Stream<Use> uses() {
        return Stream.of(
                results(
                        "select 1::int as a, 'x'::text as b, null::numeric as c",
                        result -> result.map((row, metadata) -> metadata.getColumnMetadatas().stream()
                                .map(HandlesIT::describe)
                                .toList())),
                results(
                        "select 7 as n, now()::date = current_date as b",
                        result -> result.map(
                                readable -> readable.get("n", Long.class) + " " + readable.get(1, Boolean.class))),
                results("update handled set n = 1", Result::getRowsUpdated),
                results("insert into handled (n) select generate_series(1, 5)", Result::getRowsUpdated),
                results("select generate_series(1, 600)", Result::getRowsUpdated),
                results(
                        "select generate_series(1, 3); delete from handled; select 4",
                        result -> result.flatMap(HandlesIT::describe)),
                results(
                        "select generate_series(1, 3)",
                        result -> result.filter(Result.RowSegment.class::isInstance)
                                .map((row, metadata) -> row.get(0, Integer.class))),
                results(
                        "select generate_series(1, 3)",
                        result -> result.filter(segment -> false).map((row, metadata) -> row.get(0))),
                results(
                        "insert into handled (n) values (1)",
                        result -> result.filter(Result.UpdateCount.class::isInstance)
                                .getRowsUpdated()),
                results("do 'begin raise notice ''hear hear''; end'", Result::getRowsUpdated),
                results("select noisy(n) from generate_series(1, 3) n", result -> result.map(row -> row.get(0))),
                results("select noisy(5)", result -> result.flatMap(HandlesIT::describe)),
                results("select 1; select 1 / 0; select 3", result -> result.map(row -> row.get(0))),
                results("select 1; select 1 / 0; select 3", result -> result.flatMap(HandlesIT::describe)),
                results("select 1 / (3 - n) from generate_series(1, 5) n", result -> result.map(row -> row.get(0))),
                connection -> Flux.from(connection
                                .createStatement("insert into handled (n, word) values ($1, $2)")
                                .bind(0, 1)
                                .bind(1, "one")
                                .add()
                                .bind("$1", 2)
                                .bindNull("$2", String.class)
                                .add()
                                .bind(0, 3)
                                .bind(1, "three")
                                .returnGeneratedValues("n", "word")
                                .execute())
                        .concatMap(result -> result.map(row -> row.get("n") + " " + row.get("word"))),
                connection -> Flux.from(connection
                                .createStatement("insert into handled (n) values ($1)")
                                .bind(0, 1)
                                .add()
                                .bind(0, 2)
                                .execute())
                        .concatMap(Result::getRowsUpdated),
                connection -> Flux.from(connection
                                .createBatch()
                                .add("insert into handled (n) values (1), (2)")
                                .add("select n from handled order by n")
                                .add("delete from handled")
                                .execute())
                        .concatMap(result -> result.flatMap(HandlesIT::describe)),
                connection -> Flux.from(connection
                                .createStatement("select generate_series(1, $1)")
                                .bind(0, 1000)
                                .fetchSize(10)
                                .execute())
                        .concatMap(result -> result.map(row -> row.get(0))));
    }

    private static String describe(ColumnMetadata column) {
        return column.getName() + " " + column.getType().getName() + " " + column.getJavaType() + " "
                + column.getNullability();
    }

    private static Mono<String> describe(Result.Segment segment) {
        if (segment instanceof Result.RowSegment row) {
            return Mono.just("row " + row.row().get(0));
        } else if (segment instanceof Result.UpdateCount count) {
            return Mono.just("count " + count.value());
        } else if (segment instanceof Result.Message message) {
            return Mono.just("message " + message.sqlState() + " " + message.message());
        }
        return Mono.just("something else");
    }

    /** What a subscriber sees, the last signal included. */
    private static List<String> signals(Publisher<?> publisher) {
        return Flux.from(publisher)
                .map(String::valueOf)
                .concatWithValues("complete")
                .onErrorResume(e -> Mono.just("error " + ((R2dbcException) e).getSqlState() + " " + e.getMessage()))
                .collectList()
                .block(BOUND);
    }

    private static List<String> onTheDriver(Use use) {
        return signals(Flux.usingWhen(Postgres.connectionFactory().create(), use, Connection::close));
    }

    private static Use inADriversTransaction(Use use) {
        return connection -> Flux.from(connection.beginTransaction())
                .thenMany(use.apply(connection))
                .cast(Object.class)
                .concatWith(Flux.from(connection.commitTransaction()).cast(Object.class));
    }

    @ParameterizedTest
    @MethodSource("uses")
    void sayWhatTheDriverSays(Use use) {
        List<String> expected = onTheDriver(use);
        table();
        assertThat(signals(scopes.withConnectionMany(use))).isEqualTo(expected);

        table();
        expected = onTheDriver(inADriversTransaction(use));
        table();
        assertThat(signals(scopes.inTransactionMany(use)))
                .as("in a transaction")
                .isEqualTo(expected);
    }

    @Test
    void unwrapToTheDriver() {
        Integer pid = scopes.withConnection(connection -> {
                    PostgresqlConnection driver = ((Wrapped<?>) connection).unwrap(PostgresqlConnection.class);
                    assertThat(driver).isNotNull();
                    assertThat(driver.getMetadata().getDatabaseProductName())
                            .isEqualTo(connection.getMetadata().getDatabaseProductName());
                    return Rows.ints(connection, "select pg_backend_pid()")
                            .zipWith(Rows.ints(driver, "select pg_backend_pid()"), (ours, theirs) -> ours - theirs);
                })
                .block(BOUND);

        assertThat(pid).as("both are the same connection").isZero();
    }

    private static String typed(Row row, RowMetadata metadata) {
        return Stream.of(
                        row.get("n", Long.class),
                        row.get("word", String.class),
                        row.get("quarter", Double.class),
                        row.get("day", LocalDate.class),
                        row.get("id", UUID.class),
                        List.of(row.get("pair", Integer[].class)),
                        metadata.getColumnMetadatas().size())
                .map(String::valueOf)
                .collect(Collectors.joining(" "));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 15, 16, 17, 300})
    void resultsThatAreReadLaterHaveTheSameRows(int rows) {
        String sql = "select n, n::text as word, n::numeric / 4 as quarter, date '2020-01-01' + n as day,"
                + " md5(n::text)::uuid as id, array[n, n + 1] as pair from generate_series(1, %s) n";
        List<String> atOnce = onTheDriver(results(sql.formatted(rows), result -> result.map(HandlesIT::typed)));

        List<String> later = signals(scopes.withConnectionMany(connection -> Flux.merge(
                        connection.createStatement(sql.formatted(rows)).execute(),
                        connection
                                .createStatement(sql.formatted("$1"))
                                .bind(0, rows)
                                .execute())
                .collectList()
                .delayUntil(results -> Rows.ints(connection, "select 1"))
                .flatMapIterable(results -> results)
                .concatMap(result -> result.map(HandlesIT::typed))));

        assertThat(atOnce).hasSize(rows + 1);
        assertThat(later.subList(0, rows)).as("literal SQL").isEqualTo(atOnce.subList(0, rows));
        assertThat(later.subList(rows, later.size())).as("bound SQL").isEqualTo(atOnce);
    }
}
