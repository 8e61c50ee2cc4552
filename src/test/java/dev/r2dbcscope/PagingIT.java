package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.ColumnMetadata;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.StepVerifier;

/** Plain SPI code with a fetch size reads through a cursor, page by page. */
class PagingIT {

    private static final Duration LONG = Duration.ofMinutes(2);
    private static final String SERIES = "select i from generate_series(1, $1::int) i order by i";

    /** Where a query is read through a cursor. */
    enum Where {
        IN_A_TRANSACTION,
        HELD_OUTSIDE,
        BINARY_IN_A_TRANSACTION,
        BINARY_HELD_OUTSIDE,
        IN_A_SAVEPOINT,
        IN_THE_CODE_S_OWN_TRANSACTION;

        boolean isHeld() {
            return this == HELD_OUTSIDE || this == BINARY_HELD_OUTSIDE;
        }

        boolean isBinary() {
            return this == BINARY_IN_A_TRANSACTION || this == BINARY_HELD_OUTSIDE;
        }
    }

    private final List<WatchedPool> pools = new ArrayList<>();

    @BeforeAll
    static void table() {
        Postgres.execute("drop table if exists paging_effects; create table paging_effects (i int);"
                + "create or replace function paging_effect(n int) returns int language plpgsql volatile as"
                + " $$ begin insert into paging_effects values (n); return n; end $$");
    }

    @AfterEach
    void connectionsAreWhole() {
        for (WatchedPool pool : pools) {
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
            assertThat(pool.borrow(c -> Rows.ints(c, "select count(*)::int from pg_cursors")))
                    .containsExactly(0);
            pool.close();
        }
    }

    private WatchedPool pool(Where where) {
        WatchedPool pool = WatchedPool.to(
                1,
                where.isBinary() ? PagingIT::binary : builder -> builder,
                options -> options.withHoldableCursors(where.isHeld()).withReleaseTimeout(LONG));
        pools.add(pool);
        return pool;
    }

    private static PostgresqlConnectionConfiguration.Builder binary(PostgresqlConnectionConfiguration.Builder server) {
        return server.forceBinary(true);
    }

    private <T> Flux<T> in(Where where, Function<Connection, Flux<T>> body) {
        ConnectionScopes scopes = pool(where).scopes;
        return switch (where) {
            case HELD_OUTSIDE, BINARY_HELD_OUTSIDE -> scopes.withConnectionMany(body);
            case IN_A_TRANSACTION, BINARY_IN_A_TRANSACTION -> scopes.inTransactionMany(body);
            case IN_A_SAVEPOINT ->
                scopes.inTransactionMany(
                        outer -> scopes.transactions(Propagation.NESTED).inTransactionMany(body));
            case IN_THE_CODE_S_OWN_TRANSACTION ->
                scopes.withConnectionMany(c -> Mono.from(c.beginTransaction())
                        .thenMany(body.apply(c))
                        .concatWith(Mono.from(c.commitTransaction()).then(Mono.empty())));
        };
    }

    private static Statement series(Connection connection, int rows, int fetchSize) {
        return connection.createStatement(SERIES).bind(0, rows).fetchSize(fetchSize);
    }

    private static Flux<Integer> ints(Statement statement) {
        return Rows.ints(statement);
    }

    private static Flux<String> openCursors(Connection connection) {
        return Flux.from(connection
                        .createStatement("select name from pg_cursors where name like 'r2dbc_scope%' order by name")
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, String.class)));
    }

    private static List<Integer> upTo(int rows) {
        return IntStream.rangeClosed(1, rows).boxed().toList();
    }

    // the rows -------------------------------------------------------------------------------------------------------

    @ParameterizedTest
    @EnumSource
    void allRowsComeInOrderWhateverThePageSize(Where where) {
        assertThat(in(
                                where,
                                c -> Flux.just(0, 1, 6, 7, 8, 13, 14, 15, 100)
                                        .concatMap(n -> ints(series(c, n, 7))
                                                .collectList()
                                                .zipWith(Mono.just(upTo(n)))))
                        .collectList()
                        .block(LONG))
                .hasSize(9)
                .allSatisfy(read -> assertThat(read.getT1()).isEqualTo(read.getT2()));
    }

    @ParameterizedTest
    @EnumSource
    void aCursorIsThereWhileItIsReadAndNotAfterwards(Where where) {
        AtomicReference<List<String>> during = new AtomicReference<>();
        List<String> after = in(
                        where,
                        c -> ints(series(c, 100, 10))
                                .concatMap(i -> i == 5
                                        ? openCursors(c)
                                                .collectList()
                                                .doOnNext(during::set)
                                                .thenReturn(i)
                                        : Mono.just(i))
                                .thenMany(openCursors(c)))
                .collectList()
                .block(LONG);
        assertThat(during.get()).containsExactly("r2dbc_scope_1");
        assertThat(after).isEmpty();
    }

    @ParameterizedTest
    @EnumSource
    void aNestedQueryForEachRowOfAnyNumberNeedsNoBuffer(Where where) {
        assertThat(in(
                                where,
                                c -> ints(series(c, 5_000, 500))
                                        .flatMap(
                                                i -> ints(c.createStatement("select $1::int + 1")
                                                        .bind(0, i)),
                                                16))
                        .reduce(0L, (sum, i) -> sum + i)
                        .block(LONG))
                .isEqualTo(5_000L * 5_001 / 2 + 5_000);
    }

    @ParameterizedTest
    @EnumSource
    void pagingInsidePagingInsidePaging(Where where) {
        assertThat(in(
                                where,
                                c -> ints(series(c, 30, 7))
                                        .concatMap(i -> ints(series(c, 20, 3))
                                                .flatMap(
                                                        j -> ints(series(c, 10, 4))
                                                                .map(k -> i * 10_000 + j * 100 + k),
                                                        4)))
                        .distinct()
                        .count()
                        .block(LONG))
                .isEqualTo(30 * 20 * 10);
    }

    @ParameterizedTest
    @EnumSource
    void severalCursorsAreOpenAtOnce(Where where) {
        assertThat(in(
                                where,
                                c -> Flux.zip(
                                                ints(series(c, 1000, 10)),
                                                ints(series(c, 1000, 13)),
                                                ints(series(c, 1000, 100)))
                                        .map(all -> all.getT1().equals(all.getT2())
                                                && all.getT2().equals(all.getT3())))
                        .filter(same -> same)
                        .count()
                        .block(LONG))
                .isEqualTo(1000);
    }

    @ParameterizedTest
    @CsvSource({"1,20,20", "10,20,20", "11,30,40", "20,30,40", "21,40,60", "500,510,530"})
    void theNextPageIsAskedForWithTheFirstRowOfOneAndFewAfterIt(int rows, int fetched, int most) {
        Postgres.execute("drop sequence if exists paging_rows; create sequence paging_rows");
        WatchedPool pool = pool(Where.IN_A_TRANSACTION);
        StepVerifier.create(
                        pool.scopes.inTransactionMany(c -> Flux.from(c.createStatement(
                                                "select nextval('paging_rows')::int from generate_series(1, 1000)")
                                        .fetchSize(10)
                                        .execute())
                                .concatMap(result -> result.map(row -> row.get(0, Integer.class)), 0)),
                        rows)
                .expectNextCount(rows)
                .then(() -> Await.until(() -> fetched() >= fetched, () -> "fetched " + fetched()))
                .thenCancel()
                .verify(LONG);
        pool.awaitQuiet();
        assertThat(fetched()).isBetween((long) fetched, (long) most);
    }

    private static long fetched() {
        return Postgres.number("select last_value from paging_rows");
    }

    // the SPI --------------------------------------------------------------------------------------------------------

    @ParameterizedTest
    @EnumSource
    void itIsOneResultSoThatTheFirstIsAll(Where where) {
        assertThat(in(
                                where,
                                c -> Mono.from(series(c, 1000, 10).execute())
                                        .flatMapMany(result -> result.map(row -> row.get(0, Integer.class))))
                        .count()
                        .block(LONG))
                .isEqualTo(1000);
    }

    @ParameterizedTest
    @EnumSource
    void columnsOfAllTypesAndTheirMetadataAreThoseOfTheDriver(Where where) {
        String sql = "select 1::int2 a, 2::int4 b, 3::int8 c, 1.5::float4 d, 2.5::float8 e, 123456.789::numeric f,"
                + " 'x'::text g, 'y'::varchar(10) h, true i, '2020-02-29'::date j,"
                + " '2020-02-29 12:34:56.789012+02'::timestamptz k, '12:34'::time l,"
                + " '0e37df36-f698-11e6-8dd4-cb9ced3df976'::uuid m, '\\xdeadbeef'::bytea n, '{1,2,null}'::int[] o,"
                + " '{\"a\": 1}'::jsonb p, '{\"a\": 1}'::json q, null::text r, 'z'::char(3) s,"
                + " '2020-02-29 12:34:56'::timestamp t, array['a','b''']::text[] u, oid(5) v, '1 day'::interval w";
        Function<Connection, Flux<String>> read =
                c -> all(c.createStatement(sql).fetchSize(5).execute());
        List<String> paged = in(where, read).collectList().block(LONG);
        List<String> driver = Flux.usingWhen(
                        new PostgresqlConnectionFactory(
                                        (where.isBinary() ? binary(Postgres.configuration()) : Postgres.configuration())
                                                .build())
                                .create(),
                        read,
                        Connection::close)
                .collectList()
                .block(LONG);
        assertThat(paged).isEqualTo(driver).hasSize(24);
    }

    private static Flux<String> all(Publisher<? extends Result> results) {
        return Flux.from(results)
                .flatMap(result -> result.map((row, metadata) -> {
                    List<String> columns = new ArrayList<>();
                    for (ColumnMetadata column : metadata.getColumnMetadatas()) {
                        columns.add(column.getName() + " " + column.getType().getName() + " "
                                + column.getJavaType() + " " + column.getPrecision() + " "
                                + column.getScale() + " " + show(row, column.getName()));
                    }
                    columns.add(String.valueOf(metadata.contains("W")));
                    return columns;
                }))
                .flatMapIterable(columns -> columns);
    }

    private static String show(Readable row, String name) {
        Object value = row.get(name);
        if (value instanceof Object[] array) {
            return Arrays.toString(array);
        }
        return value instanceof java.nio.ByteBuffer bytes ? "bytes " + bytes.remaining() : String.valueOf(value);
    }

    @ParameterizedTest
    @EnumSource
    void parametersAreBoundByIndexByNameAndAsNull(Where where) {
        UUID id = UUID.randomUUID();
        OffsetDateTime now = OffsetDateTime.parse("2024-01-02T03:04:05.678901Z");
        assertThat(in(
                                where,
                                c -> Flux.from(c.createStatement(
                                                        "select $1::int + i, $2::text, $3::uuid, $4::timestamptz, $5::numeric, $6::date"
                                                                + " from generate_series(1, 5) i order by i;")
                                                .bind(0, 10)
                                                .bindNull("$2", String.class)
                                                .fetchSize(2)
                                                .bind("$3", id)
                                                .bind(3, now)
                                                .bind(4, new BigDecimal("1.5"))
                                                .bind("$6", LocalDate.of(2020, 2, 29))
                                                .execute())
                                        .flatMap(result -> result.map(row -> row.get(0, Integer.class) + " "
                                                + row.get(1, String.class) + " "
                                                + row.get(2, UUID.class).equals(id) + " "
                                                + row.get(3, OffsetDateTime.class)
                                                        .isEqual(now) + " "
                                                + row.get(4, BigDecimal.class) + " " + row.get(5, LocalDate.class))))
                        .collectList()
                        .block(LONG))
                .containsExactlyElementsOf(IntStream.rangeClosed(11, 15)
                        .mapToObj(i -> i + " null true true 1.5 2020-02-29")
                        .toList());
    }

    @ParameterizedTest
    @EnumSource
    void segmentsComeAsFromTheDriver(Where where) {
        Function<Result, Flux<String>> segments = result -> Flux.from(result.flatMap(segment -> {
            if (segment instanceof Result.RowSegment row) {
                return Mono.just("row " + row.row().get(0, Integer.class));
            }
            return segment instanceof Result.UpdateCount count ? Mono.just("count " + count.value()) : Mono.empty();
        }));
        List<String> expected =
                new ArrayList<>(upTo(5).stream().map(i -> "row " + i).toList());
        expected.add("count 5");
        for (int fetchSize : new int[] {0, 1, 2, 5, 6}) {
            assertThat(in(
                                    where,
                                    c -> Flux.from(series(c, 5, fetchSize).execute())
                                            .concatMap(segments))
                            .collectList()
                            .block(LONG))
                    .as("fetch size " + fetchSize)
                    .isEqualTo(expected);
        }
    }

    @ParameterizedTest
    @EnumSource
    void segmentsMayNeedTheConnection(Where where) {
        assertThat(in(
                                where,
                                c -> Flux.from(series(c, 100, 7).execute())
                                        .concatMap(result -> result.flatMap(segment -> segment
                                                        instanceof Result.RowSegment row
                                                ? ints(c.createStatement("select $1::int")
                                                        .bind(0, row.row().get(0, Integer.class)))
                                                : Mono.empty())))
                        .collectList()
                        .block(LONG))
                .isEqualTo(upTo(100));
    }

    @ParameterizedTest
    @EnumSource
    void resultsCanBeFilteredAndCounted(Where where) {
        assertThat(in(
                                where,
                                c -> Flux.from(series(c, 100, 7).execute())
                                        .concatMap(result -> result.filter(
                                                        segment -> segment instanceof Result.RowSegment row
                                                                && row.row().get(0, Integer.class) > 95)
                                                .map(row -> row.get(0, Integer.class))))
                        .collectList()
                        .block(LONG))
                .containsExactly(96, 97, 98, 99, 100);
        assertThat(in(where, c -> Flux.from(series(c, 100, 7).execute()).concatMap(Result::getRowsUpdated))
                        .collectList()
                        .block(LONG))
                .containsExactly(100L);
    }

    @Test
    void springsDatabaseClientReadsThroughACursor() {
        WatchedPool pool = pool(Where.IN_A_TRANSACTION);
        DatabaseClient client = DatabaseClient.create(pool.scopes.connectionFactory());
        assertThat(client.sql("select i from generate_series(1, :rows) i order by i")
                        .bind("rows", 1000)
                        .filter(statement -> statement.fetchSize(10))
                        .map(row -> row.get(0, Integer.class))
                        .all()
                        .concatMap(i -> i == 500
                                ? client.sql("select count(*)::int from pg_cursors")
                                        .map(row -> row.get(0, Integer.class))
                                        .one()
                                : Mono.just(i))
                        .as(pool.scopes::transactional)
                        .collectList()
                        .block(LONG))
                .hasSize(1000)
                .contains(499, 501)
                .containsOnlyOnce(1000)
                .satisfies(rows -> assertThat(rows.get(499)).isEqualTo(1));
    }

    @Test
    void aResultIsReadOnce() {
        assertThatThrownBy(() -> in(
                                Where.IN_A_TRANSACTION,
                                c -> Flux.from(series(c, 10, 3).execute())
                                        .concatMap(result ->
                                                Flux.from(result.map(row -> 1)).thenMany(result.map(row -> 2))))
                        .blockLast(LONG))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("only once");
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void whatNobodyReadsIsExecutedForWhoeverWaitsForTheCompletion(boolean readLater) {
        Postgres.execute("truncate paging_effects");
        Function<Connection, Flux<Integer>> body = c -> {
            Flux<? extends Result> results =
                    Flux.from(c.createStatement("select paging_effect(i) from generate_series(1, 20) i")
                            .fetchSize(5)
                            .execute());
            return readLater
                    ? results.collectList()
                            .flatMapMany(Flux::fromIterable)
                            .concatMap(result -> result.map(row -> row.get(0, Integer.class)))
                    : results.then().cast(Integer.class).flux();
        };
        assertThat(in(Where.IN_A_TRANSACTION, body).collectList().block(LONG))
                .isEqualTo(readLater ? upTo(20) : List.of());
        assertThat(Postgres.number("select count(*) from paging_effects")).isEqualTo(20);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "insert into paging_effects select generate_series(1, 3) returning i",
                "with x as (insert into paging_effects select generate_series(1, 3) returning i) select i from x",
                "with x as (select generate_series(1, 3) i) update paging_effects set i = 1 where false returning i",
                "explain select 1",
                "show search_path",
                "select 1 i into temporary paging_into"
            })
    void whatCannotBeACursorRunsAsTheDriverRunsIt(String sql) {
        assertThat(in(
                                Where.IN_A_TRANSACTION,
                                c -> Flux.from(c.createStatement(sql)
                                                .fetchSize(2)
                                                .execute())
                                        .concatMap(result -> result.map(row -> 1))
                                        .count()
                                        .thenMany(Rows.ints(c, "select 42"))
                                        .concatWith(Rows.update(c, "truncate paging_effects")
                                                .then(Mono.<Integer>empty())))
                        .collectList()
                        .block(LONG))
                .containsExactly(42);
    }

    @Test
    void outsideATransactionTheDriverSFetchSizeServes() {
        WatchedPool pool = pool(Where.IN_A_TRANSACTION);
        assertThat(pool.scopes
                        .withConnectionMany(c -> ints(series(c, 1000, 10))
                                .concatMap(i -> i == 5 ? openCursors(c).hasElements() : Mono.just(i > 5)))
                        .filter(any -> any)
                        .count()
                        .block(LONG))
                .isEqualTo(995);
        assertThatThrownBy(() -> pool.with(
                                options -> options.withMaxBufferedRows(100).withReleaseTimeout(LONG))
                        .withConnectionMany(c -> ints(series(c, 10_000, 10)).concatMap(i -> ints(series(c, 1, 1))))
                        .blockLast(LONG))
                .isInstanceOf(NestedReadOverflowException.class)
                .hasMessageContaining("fetchSize")
                .hasMessageContaining("transaction")
                .hasMessageContaining("withHoldableCursors");
    }

    // the ways to end ------------------------------------------------------------------------------------------------

    @ParameterizedTest
    @EnumSource
    void aReadThatEndsAtAnyRowLeavesNoCursorAndNoLock(Where where) {
        List<Integer> at = List.of(1, 2, 6, 7, 8, 13, 14, 15, 20, 21, 22);
        List<String> left = in(
                        where,
                        c -> Flux.fromIterable(at)
                                .concatMap(n -> ints(series(c, 21, 7)).take(n).then(Mono.just(n)))
                                .concatWith(Flux.fromIterable(at)
                                        .concatMap(n -> ints(series(c, 21, 7))
                                                .map(i -> {
                                                    if (i.equals(n)) {
                                                        throw new IllegalStateException("the consumer fails");
                                                    }
                                                    return i;
                                                })
                                                .onErrorReturn(IllegalStateException.class, 0)
                                                .last(0)))
                                .concatWith(Flux.fromIterable(at)
                                        .concatMap(n -> Flux.from(
                                                        series(c, 21, 7).execute())
                                                .concatMap(result -> result.map(row -> {
                                                    if (row.get(0, Integer.class)
                                                            .equals(n)) {
                                                        throw new IllegalStateException("the mapping fails");
                                                    }
                                                    return n;
                                                }))
                                                .retry(2)
                                                .onErrorReturn(IllegalStateException.class, 0)
                                                .last(0)))
                                .thenMany(openCursors(c)))
                .collectList()
                .block(LONG);
        assertThat(left).isEmpty();
        assertThat(Postgres.number("select count(*) from pg_locks l join pg_stat_activity a using (pid)"
                        + " where a.application_name like 'watched%' and l.locktype = 'relation'"
                        + " and a.state <> 'idle'"))
                .isZero();
    }

    @ParameterizedTest
    @EnumSource
    void anErrorOfTheDatabaseComesAfterTheRowsBeforeIt(Where where) {
        AtomicInteger seen = new AtomicInteger();
        String sql = "select 10 / (25 - i) from generate_series(1, 100) i";
        assertThatThrownBy(() -> in(
                                where,
                                c -> ints(c.createStatement(sql).fetchSize(10)).doOnNext(i -> seen.incrementAndGet()))
                        .blockLast(LONG))
                .isInstanceOfSatisfying(
                        R2dbcException.class,
                        error -> assertThat(error.getSqlState()).isEqualTo("22012"));
        // the server sends a page when it has all of it, and a result that is held when it has all of that
        assertThat(seen).hasValue(where.isHeld() ? 0 : 20);
    }

    @ParameterizedTest
    @EnumSource
    void aQueryThatIsWrongSaysSoOnce(Where where) {
        assertThatThrownBy(() -> in(
                                where,
                                c -> ints(c.createStatement("select nothing from nowhere")
                                        .fetchSize(10)))
                        .blockLast(LONG))
                .isInstanceOfSatisfying(
                        R2dbcException.class,
                        error -> assertThat(error.getSqlState()).isEqualTo("42P01"));
    }

    @ParameterizedTest
    @EnumSource(names = {"HELD_OUTSIDE", "IN_A_TRANSACTION"})
    void randomCancelsLeaveNoCursor(Where where) {
        WatchedPool pool = pool(where);
        ConnectionScopes scopes = pool.scopes;
        java.util.Random random = new java.util.Random(42);
        Function<Connection, Flux<String>> body = c -> Flux.range(0, 500)
                .concatMap(n -> {
                    Duration after = Duration.ofNanos(random.nextInt(3_000_000));
                    return ints(series(c, 500, 1 + random.nextInt(100)))
                            .takeUntilOther(Mono.delay(after))
                            .then();
                })
                .thenMany(openCursors(c)
                        .collectList()
                        .repeat()
                        .takeUntil(List::isEmpty)
                        .last())
                .flatMapIterable(open -> open);
        assertThat((where.isHeld() ? scopes.withConnectionMany(body) : scopes.inTransactionMany(body))
                        .collectList()
                        .block(LONG))
                .isEmpty();
        Flux.range(0, 500)
                .concatMap(n -> {
                    Function<Connection, Flux<Integer>> read = c -> ints(series(c, 500, 1 + random.nextInt(100)));
                    return (where.isHeld() ? scopes.withConnectionMany(read) : scopes.inTransactionMany(read))
                            .takeUntilOther(Mono.delay(Duration.ofNanos(random.nextInt(5_000_000))))
                            .then();
                })
                .blockLast(LONG);
    }

    @Test
    void theStatementTimeoutIsThatOfAPageAndNotOfTheWholeRead() {
        WatchedPool pool = pool(Where.IN_A_TRANSACTION);
        Duration bound = Duration.ofSeconds(2);
        Duration pause = Duration.ofMillis(150);
        long start = System.nanoTime();
        assertThat(pool.with(options -> options.withStatementTimeout(bound))
                        .inTransactionMany(c -> Flux.from(series(c, 20, 2).execute())
                                .concatMap(result -> result.map(row -> row.get(0, Integer.class)), 0)
                                .concatMap(i -> Mono.delay(pause).thenReturn(i), 0))
                        .collectList()
                        .block(LONG))
                .isEqualTo(upTo(20));
        assertThat(Duration.ofNanos(System.nanoTime() - start)).isGreaterThan(bound);
    }

    @Test
    void aScopeThatIsCommittedOnCancelIsCommittedInTheMiddleOfAPage() {
        Postgres.execute("truncate paging_effects");
        WatchedPool pool = pool(Where.IN_A_TRANSACTION);
        StepVerifier.create(pool.scopes
                        .transactions(TransactionOptions.defaults().withOnCancel(OnCancel.COMMIT))
                        .inTransactionMany(c -> Rows.update(c, "insert into paging_effects values (1)")
                                .thenMany(ints(series(c, 1000, 10))))
                        .take(15))
                .expectNextCount(15)
                .expectComplete()
                .verify(LONG);
        pool.awaitQuiet();
        assertThat(Postgres.number("select count(*) from paging_effects")).isEqualTo(1);
    }

    @Test
    void aCursorOfATransactionThatTheCodeHasEndedIsNotClosedInTheNextOne() {
        WatchedPool pool = pool(Where.IN_A_TRANSACTION);
        assertThat(pool.scopes
                        .withConnection(c -> Mono.from(c.beginTransaction()).then(Mono.defer(() -> {
                            BaseSubscriber<Integer> open = new BaseSubscriber<>() {
                                @Override
                                protected void hookOnSubscribe(org.reactivestreams.Subscription s) {
                                    s.request(1);
                                }

                                @Override
                                protected void hookOnError(Throwable tooLate) {
                                    assertThat(tooLate).hasMessageContaining("has ended before all its rows");
                                }
                            };
                            return Mono.<Integer>create(sink -> ints(series(c, 100, 10))
                                            .doOnNext(sink::success)
                                            .subscribe(open))
                                    .then(Mono.from(c.commitTransaction()))
                                    .then(Mono.from(c.beginTransaction()))
                                    .then(Mono.fromRunnable(open::cancel))
                                    .then(Rows.ints(c, "select 42").single())
                                    .flatMap(answer ->
                                            Mono.from(c.commitTransaction()).thenReturn(answer));
                        })))
                        .block(LONG))
                .isEqualTo(42);
    }

    /** How a scope that joins another one, or is a savepoint in it, leaves its cursor in the middle. */
    enum Leaving {
        INSIDE_A_JOINED_TRANSACTION,
        INSIDE_A_JOINED_SCOPE,
        AROUND_A_JOINED_SCOPE,
        INSIDE_A_SAVEPOINT,
        AROUND_A_SAVEPOINT_THAT_IS_KEPT,
        A_FAILED_SAVEPOINT;

        Flux<Integer> leave(ConnectionScopes scopes, Function<Connection, Flux<Integer>> read) {
            TransactionOptions savepoint = TransactionOptions.defaults().withPropagation(Propagation.NESTED);
            return switch (this) {
                case INSIDE_A_JOINED_TRANSACTION ->
                    scopes.inTransactionMany(c -> read.apply(c).take(3));
                case INSIDE_A_JOINED_SCOPE ->
                    scopes.withConnectionMany(c -> read.apply(c).take(3));
                case AROUND_A_JOINED_SCOPE -> scopes.withConnectionMany(read).take(3);
                case INSIDE_A_SAVEPOINT ->
                    scopes.transactions(savepoint)
                            .inTransactionMany(c -> read.apply(c).take(3));
                case AROUND_A_SAVEPOINT_THAT_IS_KEPT ->
                    scopes.transactions(savepoint.withOnCancel(OnCancel.COMMIT))
                            .inTransactionMany(read)
                            .take(3);
                case A_FAILED_SAVEPOINT ->
                    scopes.transactions(savepoint)
                            .inTransactionMany(c -> read.apply(c).map(i -> 1 / (3 - i)))
                            .onErrorResume(ArithmeticException.class, e -> Flux.empty());
            };
        }
    }

    /** The cursor of the last one may still be about to be closed, behind the next statement. */
    @ParameterizedTest
    @EnumSource(Leaving.class)
    void aScopeInsideLeavesNoCursorToTheOneAround(Leaving leaving) {
        ConnectionScopes scopes = pool(Where.IN_A_TRANSACTION).scopes;
        List<String> left = scopes.inTransaction(outer -> Flux.range(0, 20)
                        .concatMap(i -> leaving.leave(scopes, c -> ints(series(c, 100, 10))))
                        .then(openCursors(outer).then())
                        .then(openCursors(outer).collectList()))
                .block(LONG);
        assertThat(left).isEmpty();
    }

    @Test
    void aHeldCursorIsClosedWhenAJoinedScopeEnds() {
        ConnectionScopes scopes = pool(Where.HELD_OUTSIDE).scopes;
        List<String> left = scopes.withConnection(outer -> Flux.range(0, 20)
                        .concatMap(i -> Leaving.INSIDE_A_JOINED_SCOPE.leave(scopes, c -> ints(series(c, 100, 10))))
                        .then(openCursors(outer).then())
                        .then(openCursors(outer).collectList()))
                .block(LONG);
        assertThat(left).isEmpty();
    }
}
