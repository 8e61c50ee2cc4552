package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.r2dbcscope.postgresql.KeysetRead;
import io.r2dbc.spi.Row;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.test.StepVerifier;

class KeysetReadIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final WatchedPool watched = WatchedPool.of(2);
    private final ConnectionScopes scopes = watched.scopes;

    @BeforeEach
    void table() {
        Postgres.execute(
                "drop table if exists keyset_rows; create table keyset_rows (id int primary key, a int, b text);"
                        + " insert into keyset_rows select i, i / 10, 'b' || i % 10 from generate_series(1, 1000) i");
    }

    @AfterEach
    void whole() {
        watched.assertWhole();
        watched.close();
    }

    private static int id(Row row) {
        return Objects.requireNonNull(row.get("id", Integer.class));
    }

    private Flux<Integer> ids(KeysetRead read) {
        return read.read(scopes, (row, metadata) -> id(row));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 7, 100, 999, 1_000, 1_001, 10_000})
    void readsEveryRowOnceInTheOrderOfTheKey(int pageSize) {
        KeysetRead read = KeysetRead.ofQuery("select * from keyset_rows", "id").withPageSize(pageSize);

        assertThat(ids(read).collectList().block(BOUND))
                .isEqualTo(IntStream.rangeClosed(1, 1_000).boxed().toList());
    }

    @Test
    void bindsTheParametersOfTheQuery() {
        KeysetRead read = KeysetRead.ofQuery("select id from keyset_rows where id > $1 and b = $2;", "id")
                .withParameters(900, "b3")
                .withPageSize(3);

        assertThat(ids(read).collectList().block(BOUND))
                .containsExactly(903, 913, 923, 933, 943, 953, 963, 973, 983, 993);
    }

    @Test
    void readsByAKeyOfSeveralColumns() {
        KeysetRead read =
                KeysetRead.ofQuery("select * from keyset_rows", "b", "a").withPageSize(13);

        List<Integer> expected = IntStream.rangeClosed(1, 1_000)
                .boxed()
                .sorted((x, y) -> x % 10 != y % 10 ? x % 10 - y % 10 : x - y)
                .toList();
        assertThat(ids(read).collectList().block(BOUND)).isEqualTo(expected);
    }

    @Test
    void goesOnBehindAPositionOfARowThatIsGone() {
        KeysetRead read =
                KeysetRead.ofQuery("select * from keyset_rows", "a", "b").withPageSize(50);
        List<String> positions = read.behind(scopes, null, (row, position) -> position)
                .take(500)
                .collectList()
                .block(BOUND);
        Postgres.execute("delete from keyset_rows where id = 500");

        List<Integer> rest = read.behind(scopes, positions.get(499), (row, position) -> id(row))
                .collectList()
                .block(BOUND);

        assertThat(positions.get(499)).isEqualTo("[50, \"b0\"]");
        assertThat(rest).hasSize(500).startsWith(501).endsWith(1_000);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            smallint    | i::smallint
            bigint      | i::bigint * 1000000000000
            numeric     | i::numeric / 7
            real        | i::real / 7
            double      | i::float8 / 7
            text        | chr(200 + i) || '"\\,' || i
            char        | i::char(20)
            varchar     | i::varchar(10)
            date        | date '1999-12-01' + i
            infinity    | case i when 1 then date '-infinity' when 40 then date 'infinity' else date '1999-12-01' + i end
            timestamp   | timestamp '1999-12-31 23:59:59.123456' + i * interval '0.7 s'
            timestamptz | timestamptz '1999-12-31 23:59:59.123456Z' + i * interval '0.7 s'
            time        | time '12:00' + i * interval '0.7 s'
            interval    | i * interval '1 month 0.7 s'
            uuid        | md5(i::text)::uuid
            bytea       | sha256(i::text::bytea)
            boolean     | i = 1
            inet        | '10.0.0.0'::inet + i
            """)
    void readsByAKeyOfType(String type, String expression) {
        KeysetRead read = KeysetRead.ofQuery(
                        "select i as id, " + expression + " as k from generate_series(1, "
                                + (type.equals("boolean") ? 2 : 40) + ") i",
                        "k")
                .withPageSize(type.equals("boolean") ? 1 : 3);
        List<Integer> expected = scopes.withConnectionMany(c -> Flux.from(
                                c.createStatement("select i from generate_series(1, "
                                                + (type.equals("boolean") ? 2 : 40) + ") i order by " + expression)
                                        .execute())
                        .flatMap(result -> result.map(row -> row.get(0, Integer.class))))
                .collectList()
                .block(BOUND);

        assertThat(ids(read).collectList().block(BOUND)).isEqualTo(expected);
    }

    @Test
    void holdsNoConnectionBetweenTwoPages() {
        List<Integer> held = new ArrayList<>();

        KeysetRead.ofQuery("select * from keyset_rows", "id")
                .withPageSize(100)
                .read(scopes, (row, metadata) -> id(row))
                .limitRate(1)
                .concatMap(
                        id -> id % 100 == 50
                                ? Flux.defer(() -> {
                                    watched.awaitQuiet();
                                    held.add(watched.scopes.live().size());
                                    return Flux.just(id);
                                })
                                : Flux.just(id),
                        1)
                .blockLast(BOUND);

        assertThat(held).hasSize(10).containsOnly(0);
    }

    @Test
    void readsNoPageThatIsNotWanted() {
        StepVerifier.create(
                        KeysetRead.ofQuery("select * from keyset_rows", "id")
                                .withPageSize(10)
                                .read(scopes, (row, metadata) -> id(row)),
                        5)
                .expectNext(1, 2, 3, 4, 5)
                .then(watched::awaitQuiet)
                .thenCancel()
                .verify(BOUND);

        assertThat(watched.events(ScopeEvent.Opened.class)).hasSizeLessThanOrEqualTo(3);
    }

    @Test
    void failsWhereTheKeyIsNull() {
        Postgres.execute("update keyset_rows set a = null where id = 77");

        StepVerifier.create(ids(KeysetRead.ofQuery("select * from keyset_rows", "b", "a")))
                .expectErrorSatisfies(error -> assertThat(error)
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessage("The key (b, a) is NULL in a row; choose one that is unique and not NULL"
                                + " for select * from keyset_rows"))
                .verify(BOUND);
    }

    @Test
    void failsWhereTheKeyIsNotUnique() {
        StepVerifier.create(
                        ids(KeysetRead.ofQuery("select * from keyset_rows", "b").withPageSize(7)))
                .expectErrorSatisfies(error -> assertThat(error)
                        .isInstanceOf(IllegalArgumentException.class)
                        .hasMessageContaining("is the same in several rows"))
                .verify(BOUND);
    }

    @Test
    void refusesQueriesThatCannotBeReadInPages() {
        assertThatIllegalArgumentException()
                .isThrownBy(() -> KeysetRead.ofQuery("delete from keyset_rows returning id", "id"));
        assertThatIllegalArgumentException()
                .isThrownBy(() -> KeysetRead.ofQuery("select id from keyset_rows order by id", "id"));
        assertThatIllegalArgumentException().isThrownBy(() -> KeysetRead.ofQuery("select id from keyset_rows"));
        assertThatIllegalArgumentException()
                .isThrownBy(() ->
                        KeysetRead.ofQuery("select id from keyset_rows", "id").withPageSize(0));
    }
}
