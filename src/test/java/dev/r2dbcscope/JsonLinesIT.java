package dev.r2dbcscope;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.JsonLines;
import io.r2dbc.spi.Parameters;
import io.r2dbc.spi.R2dbcException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.test.StepVerifier;

class JsonLinesIT {

    private static final Duration BOUND = Duration.ofSeconds(60);
    private static final int ROWS = 100_000;

    /** What JSON, text and lines have special signs for. */
    private static final String COLUMNS =
            "id, id % 1000 as quantity, 'Order \"' || id || E'\" \\\\ of\\na\\r\\ttest' as note,"
                    + " case when id % 3 = 0 then null else id / 7.0 end as amount, timestamptz '2024-01-01' + id * interval '1 s' as at,"
                    + " array[id, null] as ids, jsonb_build_object('b', id, 'a', E'\\u2028\\n') as doc,"
                    + " E'{\\n\\t\"pretty\" :\\r\\n[1, \"\\\\n <&> \\u00e4\\u2028\\U0001F600\"]\\n}'::json as plain, id % 2 = 0 as even,"
                    + " '\\x00ff'::bytea as raw, 'NaN'::float8 as nan";

    private final WatchedPool watched = WatchedPool.of(2);

    @BeforeAll
    static void table() {
        Postgres.execute("drop table if exists json_lines; create table json_lines (id bigint primary key);"
                + " insert into json_lines select n * 7919 % 100003 from generate_series(1, 100002) n"
                + " where n * 7919 % 100003 <= " + ROWS + "; analyze json_lines");
    }

    @AfterAll
    static void noTable() {
        Postgres.execute("drop table json_lines");
    }

    @AfterEach
    void nothingIsHeld() {
        watched.assertWhole();
        assertThat(watched.destroyed()).isZero();
        watched.close();
    }

    private List<String> pieces(JsonLines lines) {
        return lines.read(watched.scopes)
                .map(piece -> UTF_8.decode(piece).toString())
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
    }

    /** The lines of all pieces, each of which must end one. */
    private List<String> lines(JsonLines lines) {
        return pieces(lines).stream().flatMap(JsonLinesIT::lines).toList();
    }

    private static Stream<String> lines(String piece) {
        assertThat(piece).endsWith("\n");
        return Stream.of(piece.split("\n"));
    }

    private List<String> rowByRow(String sql) {
        return watched.borrow(connection -> Flux.from(connection
                        .createStatement("select row_to_json(t)::text from (" + sql + ") t")
                        .execute())
                .concatMap(result -> result.map(row -> row.get(0, String.class)
                        .replace('\n', ' ')
                        .replace('\r', ' ')
                        .replace('\t', ' '))));
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void everyLineIsTheRowAsJson(boolean byKey) {
        String sql = "select " + COLUMNS + " from json_lines";
        List<String> expected = rowByRow(sql + " order by id");
        List<String> pieces =
                pieces(byKey ? JsonLines.ofQuery(sql).byKey("id") : JsonLines.ofQuery(sql + " order by id"));

        assertThat(expected).hasSize(ROWS).doesNotHaveDuplicates();
        assertThat(pieces).hasSize((ROWS + 255) / 256);
        assertThat(pieces.stream().flatMap(JsonLinesIT::lines).toList()).isEqualTo(expected);
    }

    @ParameterizedTest
    @CsvSource({"1, 1", "1, 10", "9, 10", "10, 10", "11, 10", "20, 10", "21, 10", "5, 1", "999, 1000"})
    void aPieceHasAsManyLinesAsItMay(int rows, int most) {
        String sql = "select id from json_lines where id <= $1";
        List<String> expected = IntStream.rangeClosed(1, rows)
                .mapToObj(id -> "{\"id\":" + id + "}")
                .toList();
        for (JsonLines read : List.of(
                JsonLines.ofQuery(sql + " order by id", (long) rows),
                JsonLines.ofQuery(sql, (long) rows).byKey("id"))) {
            List<String> pieces = pieces(read.withRows(most));
            assertThat(pieces).hasSize((rows + most - 1) / most);
            assertThat(pieces.stream().flatMap(JsonLinesIT::lines).toList()).isEqualTo(expected);
        }
    }

    @Test
    void theOrderOfTheQueryIsKept() {
        String sql = "select id from json_lines order by id % 7 desc, id desc limit 70000 offset 11";
        assertThat(lines(JsonLines.ofQuery(sql))).isEqualTo(rowByRow(sql));
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void noRowsAreNoPieces(boolean byKey) {
        JsonLines none = JsonLines.ofQuery("select id from json_lines where id < 0");
        assertThat(pieces(byKey ? none.byKey("id") : none)).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "select id from json_lines where id < 4;",
                "select id from json_lines where id < 4 -- x",
                "select id from json_lines where id < 4; -- x",
                "select id from json_lines where id < 4 /* ) */ ; /* ; */",
                "with small as (select id from json_lines where id < 4) select id from small",
                "with recursive scope_query(id) as (select 1 union all select id + 1 from scope_query where id < 3)"
                        + " select id from scope_query",
                "(select id from json_lines where id < 4 order by id limit 3)",
                "select id from json_lines where id = 1 union all select generate_series(2, 3)",
                "select column1 as id from (values (1), (2), (3)) v",
                "select id from json_lines scope_row, lateral (select 1 as lo) scope_block where id < 4"
            })
    void anyFormOfAQueryWillDo(String sql) {
        List<String> three = List.of("{\"id\":1}", "{\"id\":2}", "{\"id\":3}");
        assertThat(lines(JsonLines.ofQuery(sql))).containsExactlyInAnyOrderElementsOf(three);
        assertThat(lines(JsonLines.ofQuery(sql).byKey("id").withRows(2))).isEqualTo(three);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "values (1, 'x')                       | {\"column1\":1,\"column2\":\"x\"}",
                "select 1 as a, 2 as a                 | {\"a\":1,\"a\":2}",
                "select                                | {}",
                "select 1 as scope_row                 | {\"scope_row\":1}",
                "select 1 as line, 2 as key, 3 as lines| {\"line\":1,\"key\":2,\"lines\":3}",
                "select null as n, null::int[] as a    | {\"n\":null,\"a\":null}",
                "select 1.50::numeric as n, 'NaN'::numeric as m | {\"n\":1.50,\"m\":\"NaN\"}",
                "select repeat('x', 3) as \"a \"\"b\"  | {\"a \\\"b\":\"xxx\"}"
            })
    void oddColumnsAreRenderedAsPostgresqlRendersThem(String sql, String expected) {
        assertThat(lines(JsonLines.ofQuery(sql))).containsExactly(expected);
    }

    @Test
    void theNamesOfTheLibraryAreNotInTheWayOfTheColumns() {
        String sql = "select id as key, 1 as line, 2 as lines, 3 as next, 4 as first, 5 as torn, 6 as scope_row,"
                + " 7 as scope_block, 8 as scope_query, 9 as piece, 10 as scope_line from json_lines where id < 600";
        assertThat(lines(JsonLines.ofQuery(sql).byKey("key"))).isEqualTo(rowByRow(sql + " order by id"));
    }

    @ParameterizedTest
    @ValueSource(strings = {"uuid", "text", "timestamptz", "numeric", "float8", "date", "bigint"})
    void aKeyIsOfAnyTypeThatHasAnOrder(String type) {
        String value = switch (type) {
            case "uuid" -> "md5(id::text)::uuid";
            case "text" -> "md5(id::text)";
            case "timestamptz", "date" -> "('2024-01-01'::date + id::int)::" + type;
            case "float8" -> "case id when 1 then 'NaN' when 2 then '-Infinity' else id / 3.0 end::float8";
            default -> "-id::" + type;
        };
        String sql = "select " + value + " as \"the Key\" from json_lines where id <= 1000";
        assertThat(lines(JsonLines.ofQuery(sql).byKey("the Key").withRows(100)))
                .isEqualTo(rowByRow(sql + " order by 1"));
    }

    @Test
    void parametersAreBoundAndMayBeNull() {
        JsonLines lines = JsonLines.ofQuery(
                "select id, $2::text as note, $1::bigint as least from json_lines where id between $1 and 3",
                2L,
                Parameters.in(String.class));
        List<String> two = List.of("{\"id\":2,\"note\":null,\"least\":2}", "{\"id\":3,\"note\":null,\"least\":2}");
        assertThat(lines(lines)).containsExactlyInAnyOrderElementsOf(two);
        assertThat(lines(lines.byKey("id"))).isEqualTo(two);
    }

    @Test
    void aKeyThatIsNotUniqueIsRefusedRatherThanLinesLost() {
        String from = " from json_lines where id <= 1000";
        assertThatThrownBy(() -> pieces(JsonLines.ofQuery("select id / 2 as half" + from)
                        .byKey("half")
                        .withRows(10)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("\"half\" is the same in several rows");
        for (String key : List.of("nullif(id, 77)", "case when id > 500 then id end", "null::int")) {
            assertThatThrownBy(() -> pieces(
                            JsonLines.ofQuery("select " + key + " as id" + from).byKey("id")))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("\"id\" is NULL in a row");
        }
    }

    /** Whatever equal keys there are, all rows come or an error does. */
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 5, 8})
    void equalKeysWithinAPieceLoseNothing(int most) {
        for (int equal = 1; equal < 12; equal++) {
            String sql = "select case when id between 4 and 3 + " + equal
                    + " then 4 else id end as key, id from json_lines where id <= 24";
            List<String> lines = new ArrayList<>();
            try {
                lines.addAll(lines(JsonLines.ofQuery(sql).byKey("key").withRows(most)));
            } catch (IllegalArgumentException torn) {
                assertThat(torn).hasMessageContaining("the same in several rows");
                continue;
            }
            assertThat(lines).containsExactlyInAnyOrderElementsOf(rowByRow(sql));
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void anErrorInTheMiddleComesAfterPiecesAndGivesTheConnectionBack(boolean byKey) {
        String sql = "select id, 1 / (5000 - id) as x from json_lines";
        JsonLines lines =
                (byKey ? JsonLines.ofQuery(sql).byKey("id") : JsonLines.ofQuery(sql + " order by id")).withRows(100);
        AtomicInteger pieces = new AtomicInteger();
        assertThatThrownBy(() -> lines.read(watched.scopes)
                        .doOnNext(piece -> pieces.incrementAndGet())
                        .blockLast(BOUND))
                .isInstanceOf(R2dbcException.class)
                .hasMessageContaining("division by zero");
        assertThat(pieces.get()).isBetween(40, 50);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aCancelInTheMiddleGivesTheConnectionBack(boolean byKey) {
        JsonLines lines = JsonLines.ofQuery("select * from json_lines");
        StepVerifier.create((byKey ? lines.byKey("id") : lines).read(watched.scopes), 0)
                .thenRequest(3)
                .expectNextCount(3)
                .then(() -> assertThat(watched.pool.getMetrics().orElseThrow().acquiredSize())
                        .isOne())
                .thenCancel()
                .verify(BOUND);
    }

    /** The connection of a transaction is of use again after a read that was left. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void theTransactionGoesOnAfterACancel(boolean byKey) {
        JsonLines lines = JsonLines.ofQuery("select * from json_lines");
        Flux<Integer> numbers = watched.scopes.inTransactionMany(connection -> (byKey ? lines.byKey("id") : lines)
                .read(connection)
                .take(2)
                .thenMany(Rows.ints(
                        connection, "select 42 where not exists (select from pg_cursors where name like 'r2dbc%')")));
        assertThat(numbers.collectList().block(BOUND)).containsExactly(42);
    }

    /** The rows are counted by a sequence, which the server moves on as it computes them. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aSlowReaderHoldsTheServerUp(boolean byKey) {
        Postgres.execute("drop function if exists json_lines_seen; drop sequence if exists json_lines_rows;"
                + " create sequence json_lines_rows; create function json_lines_seen() returns bigint stable"
                + " language plpgsql as $$ begin return nextval('json_lines_rows'); end $$");
        JsonLines lines = JsonLines.ofQuery("select id, json_lines_seen() as seen from json_lines")
                .withRows(50);
        long most = byKey ? 17 * 50 : 5 * 50;

        StepVerifier.create((byKey ? lines.byKey("id") : lines).read(watched.scopes), 0)
                .thenRequest(1)
                .expectNextCount(1)
                .thenAwait(Duration.ofMillis(200))
                .then(() -> assertThat(seen()).isBetween(50L, most))
                .thenRequest(100)
                .expectNextCount(100)
                .thenAwait(Duration.ofMillis(200))
                .then(() -> assertThat(seen()).isBetween(101 * 50L, 100 * 50 + most))
                .thenCancel()
                .verify(BOUND);

        watched.awaitQuiet();
        Postgres.execute("drop function json_lines_seen; drop sequence json_lines_rows");
    }

    private static long seen() {
        return Postgres.number("select last_value from json_lines_rows");
    }

    @Test
    void wideRowsComeInSmallPiecesIfTheyAreToldTo() {
        JsonLines wide = JsonLines.ofQuery("select id, repeat('x', 3000000) as note from json_lines where id <= 20")
                .withRows(1);
        for (JsonLines read : List.of(wide, wide.byKey("id"))) {
            assertThat(read.read(watched.scopes)
                            .map(ByteBuffer::remaining)
                            .collectList()
                            .block(BOUND))
                    .hasSize(20)
                    .allMatch(size -> size > 3_000_000 && size < 3_000_100);
        }
    }
}
