package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.r2dbcscope.postgresql.BulkWriteException;
import dev.r2dbcscope.postgresql.Duplicates;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.postgresql.codec.Json;
import io.r2dbc.spi.Connection;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

class UnnestWriterIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final WatchedPool watched = WatchedPool.of(2);
    private final ConnectionScopes scopes = watched.scopes;

    private record Item(@Nullable Integer id, @Nullable String note) {}

    private static UnnestWriter<Item> items() {
        return UnnestWriter.<Item>into("unnest Items")
                .column("Id", "int", Item::id)
                .column("no\"te", "text", Item::note);
    }

    @BeforeEach
    void table() {
        Postgres.execute(
                "drop table if exists \"unnest Items\";"
                        + " create table \"unnest Items\" (\"Id\" int primary key, \"no\"\"te\" text, at timestamptz default now())");
    }

    @AfterEach
    void nothingIsHeld() {
        watched.assertWhole();
        assertThat(watched.destroyed()).isZero();
        watched.close();
        Postgres.execute("drop table \"unnest Items\"");
    }

    private static Flux<Item> items(int from, int count) {
        return Flux.range(from, count).map(i -> new Item(i, "note " + i));
    }

    private long written(UnnestWriter<Item> writer, Flux<Item> rows) {
        return writer.write(scopes, rows).blockOptional(BOUND).orElseThrow();
    }

    private static long count(String where) {
        return Postgres.number("select count(*) from \"unnest Items\" where " + where);
    }

    @Test
    void writesAllRowsInBatches() {
        assertThat(written(items().withBatchSize(1_000), items(1, 10_500))).isEqualTo(10_500);
        assertThat(count("\"no\"\"te\" = 'note ' || \"Id\" and at is not null")).isEqualTo(10_500);
        long insertions = watched.events(ScopeEvent.Released.class).size();
        assertThat(insertions).isEqualTo(1);
    }

    @Test
    void aSourceWithoutRowsSendsNothing() {
        assertThat(written(items(), Flux.empty())).isZero();
    }

    @Test
    void longRowsEndABatchEarlier() {
        String mebibyte = "x".repeat(1 << 20);
        AtomicLong pulled = new AtomicLong();
        AtomicLong ahead = new AtomicLong();
        Mono<Long> written = scopes.inTransaction(connection -> items().write(
                        connection,
                        Flux.range(1, 41) // the last one begins a batch, which is sent after the query
                                .doOnNext(i -> pulled.incrementAndGet())
                                .map(i -> new Item(i, mebibyte))
                                .concatWith(Rows.ints(connection, "select count(*)::int from \"unnest Items\"")
                                        .doOnNext(n -> ahead.set(41 - n))
                                        .map(n -> new Item(42, "end")))));
        assertThat(written.block(BOUND)).isEqualTo(42);
        assertThat(ahead.get()).isBetween(1L, 20L);
    }

    /** The column's type, the values, and how the type shows each, which is told apart from how it was written. */
    private record Shown(String type, List<@Nullable Object> values, List<@Nullable String> texts) {
        @Override
        public String toString() {
            return type;
        }
    }

    private enum Mood {
        happy
    }

    static Stream<Shown> types() {
        return Stream.of(
                new Shown(
                        "smallint",
                        Arrays.asList(Short.MIN_VALUE, null, 32767, (byte) 3),
                        Arrays.asList("-32768", null, "32767", "3")),
                new Shown(
                        "int",
                        Arrays.asList(Integer.MIN_VALUE, null, Integer.MAX_VALUE),
                        Arrays.asList("-2147483648", null, "2147483647")),
                new Shown(
                        "bigint",
                        Arrays.asList(Long.MIN_VALUE, null, Long.MAX_VALUE),
                        Arrays.asList("-9223372036854775808", null, "9223372036854775807")),
                new Shown(
                        "real",
                        Arrays.asList(Float.NaN, Float.MIN_VALUE, Float.MAX_VALUE, null, Float.NEGATIVE_INFINITY),
                        Arrays.asList("NaN", "1e-45", "3.4028235e+38", null, "-Infinity")),
                new Shown(
                        "double precision",
                        Arrays.asList(Double.NaN, Double.MIN_VALUE, Double.MAX_VALUE, null, 0.1),
                        Arrays.asList("NaN", "5e-324", "1.7976931348623157e+308", null, "0.1")),
                new Shown(
                        "numeric",
                        Arrays.asList(new BigDecimal("1E+5"), new BigDecimal("-0.00100"), null, Double.NaN),
                        Arrays.asList("100000", "-0.00100", null, "NaN")),
                new Shown(
                        "text",
                        Arrays.asList(
                                "",
                                "NULL",
                                null,
                                "{a,b}",
                                " \" \\ ' \t\n\r\b ",
                                "\u20ac \uD83D\uDE00",
                                "x\u0001y",
                                'c',
                                12),
                        Arrays.asList(
                                "",
                                "NULL",
                                null,
                                "{a,b}",
                                " \" \\ ' \t\n\r\b ",
                                "\u20ac \uD83D\uDE00",
                                "x\u0001y",
                                "c",
                                "12")),
                new Shown("character varying", Arrays.asList("longer than one"), Arrays.asList("longer than one")),
                new Shown("char", Arrays.asList("x", null), Arrays.asList("x", null)),
                new Shown("boolean", Arrays.asList(true, null, false), Arrays.asList("true", null, "false")),
                new Shown(
                        "uuid",
                        Arrays.asList(new UUID(0, 0), null, new UUID(-1, -1)),
                        Arrays.asList(
                                "00000000-0000-0000-0000-000000000000", null, "ffffffff-ffff-ffff-ffff-ffffffffffff")),
                new Shown(
                        "timestamp",
                        Arrays.asList(
                                LocalDateTime.of(2026, 2, 28, 23, 59, 59, 123_456_000),
                                LocalDateTime.of(-4712, 1, 1, 0, 0),
                                LocalDateTime.of(0, 12, 31, 1, 2, 3),
                                null,
                                LocalDateTime.of(294276, 12, 31, 23, 59, 59, 999_999_000),
                                "infinity"),
                        Arrays.asList(
                                "2026-02-28 23:59:59.123456",
                                "4713-01-01 00:00:00 BC",
                                "0001-12-31 01:02:03 BC",
                                null,
                                "294276-12-31 23:59:59.999999",
                                "infinity")),
                new Shown(
                        "timestamp with time zone",
                        Arrays.asList(
                                OffsetDateTime.of(7, 1, 2, 3, 4, 5, 10_000, ZoneOffset.ofHoursMinutes(5, 30)),
                                Instant.EPOCH,
                                ZonedDateTime.of(2026, 1, 2, 3, 4, 5, 0, ZoneOffset.ofTotalSeconds(-3_661)),
                                OffsetDateTime.of(-1, 1, 2, 3, 4, 5, 0, ZoneOffset.UTC),
                                OffsetDateTime.MAX,
                                Instant.MIN),
                        Arrays.asList(
                                "0007-01-01 21:34:05.00001+00",
                                "1970-01-01 00:00:00+00",
                                "2026-01-02 04:05:06+00",
                                "0002-01-02 03:04:05+00 BC",
                                "infinity",
                                "-infinity")),
                new Shown(
                        "date",
                        Arrays.asList(
                                LocalDate.of(2026, 2, 3), LocalDate.of(0, 1, 1), null, LocalDate.of(5874897, 12, 31)),
                        Arrays.asList("2026-02-03", "0001-01-01 BC", null, "5874897-12-31")),
                new Shown(
                        "time",
                        Arrays.asList(LocalTime.MIDNIGHT, LocalTime.of(23, 59, 59, 999_999_000), null),
                        Arrays.asList("00:00:00", "23:59:59.999999", null)),
                new Shown(
                        "timetz",
                        Arrays.asList(OffsetTime.of(1, 2, 3, 0, ZoneOffset.ofHours(-7))),
                        Arrays.asList("01:02:03-07")),
                new Shown(
                        "interval",
                        Arrays.asList(
                                Duration.ofSeconds(3_723, 500_000_000), Period.of(1, 2, 3), Duration.ofMillis(-1_500)),
                        Arrays.asList("01:02:03.5", "1 year 2 mons 3 days", "-00:00:01.5")),
                new Shown(
                        "bytea",
                        Arrays.asList(new byte[] {0, -1, 92, 34}, new byte[0], null, ByteBuffer.wrap(new byte[] {1})),
                        Arrays.asList("\\x00ff5c22", "\\x", null, "\\x01")),
                new Shown(
                        "jsonb",
                        Arrays.asList("{\"a\": [1, \"\\\\ \\\"\"]}", null, Json.of("[1, 2]")),
                        Arrays.asList("{\"a\": [1, \"\\\\ \\\"\"]}", null, "[1, 2]")),
                new Shown("json", Arrays.asList("[ 1 ]", "null"), Arrays.asList("[ 1 ]", "null")),
                new Shown("inet", Arrays.asList("10.0.0.1/24", null), Arrays.asList("10.0.0.1/24", null)),
                new Shown("box", Arrays.asList("(1,2),(0,0)", null), Arrays.asList("(1,2),(0,0)", null)),
                new Shown("bit varying", Arrays.asList("101", null), Arrays.asList("101", null)),
                new Shown(
                        "unnest_mood", Arrays.asList(Mood.happy, null, "s a d"), Arrays.asList("happy", null, "s a d")),
                new Shown("int4range", Arrays.asList("[1,5)", null), Arrays.asList("[1,5)", null)),
                new Shown(
                        "int[]",
                        Arrays.asList(
                                List.of(1, 2), null, List.of(), new int[] {3}, Arrays.asList(null, 4), new int[][] {
                                    {1, 2}, {3, 4}
                                }),
                        Arrays.asList("{1,2}", null, "{}", "{3}", "{NULL,4}", "{{1,2},{3,4}}")),
                new Shown(
                        "text[]",
                        Arrays.asList(List.of("a\"b", "c\\d", "", "null", "x,y"), new String[] {"{}"}),
                        Arrays.asList("{\"a\\\"b\",\"c\\\\d\",\"\",\"null\",\"x,y\"}", "{\"{}\"}")),
                new Shown(
                        "timestamptz[]",
                        Arrays.asList(List.of(Instant.EPOCH)),
                        Arrays.asList("{\"1970-01-01 00:00:00+00\"}")),
                new Shown(
                        "bytea[]",
                        Arrays.asList((Object) new byte[][] {{1}, {2}}),
                        Arrays.asList("{\"\\\\x01\",\"\\\\x02\"}")));
    }

    private record Cell(int n, @Nullable Object value) {}

    @ParameterizedTest
    @MethodSource("types")
    void everyValueOfATypeArrivesAsItWas(Shown type) {
        Postgres.execute("drop table if exists unnest_typed; drop type if exists unnest_mood;"
                + " create type unnest_mood as enum ('happy', 's a d'); create table unnest_typed (n int, v "
                + type.type()
                + ")");
        List<@Nullable Object> values = type.values();
        UnnestWriter<Cell> writer = UnnestWriter.<Cell>into("public", "unnest_typed")
                .column("n", "int", Cell::n)
                .column("v", type.type(), Cell::value);
        Flux<Cell> cells = Flux.range(0, values.size()).map(i -> new Cell(i, values.get(i)));
        List<String> texts = scopes.inTransactionMany(connection -> Rows.update(
                                connection, "set local timezone = 'UTC'")
                        .then(writer.write(connection, cells))
                        .thenMany(Flux.from(connection
                                .createStatement("select coalesce(v::text, '<null>') from unnest_typed order by n")
                                .execute()))
                        .concatMap(result -> result.map((row, metadata) -> String.valueOf(row.get(0, String.class)))))
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
        assertThat(texts)
                .isEqualTo(type.texts().stream()
                        .map(text -> text == null ? "<null>" : text)
                        .toList());
        Postgres.execute("drop table unnest_typed; drop type unnest_mood");
    }

    @Test
    void aTextThatIsTooLongIsRefusedAndNotCutOff() {
        Postgres.execute("alter table \"unnest Items\" alter column \"no\"\"te\" type varchar(3)");
        UnnestWriter<Item> writer = UnnestWriter.<Item>into("unnest Items")
                .column("Id", "int", Item::id)
                .column("no\"te", "varchar", Item::note);
        BulkWriteException error =
                catchThrowableOfType(BulkWriteException.class, () -> written(writer, Flux.just(new Item(1, "four"))));
        assertThat(error.getSqlState()).isEqualTo("22001");
        assertThatIllegalArgumentException()
                .isThrownBy(() -> items().column("x", "varchar(3)", Item::note))
                .withMessageContaining("length");
    }

    @Nested
    class Upserts {

        private List<String> notes() {
            return scopes.withConnectionMany(connection -> Flux.from(connection
                                    .createStatement(
                                            "select \"Id\" || ' ' || \"no\"\"te\" from \"unnest Items\" order by 1")
                                    .execute())
                            .concatMap(
                                    result -> result.map((row, metadata) -> String.valueOf(row.get(0, String.class)))))
                    .collectList()
                    .blockOptional(BOUND)
                    .orElseThrow();
        }

        private Flux<Item> twice() {
            return Flux.just(new Item(1, "a"), new Item(2, "b"), new Item(1, "c"), new Item(3, "d"), new Item(1, "e"));
        }

        @Test
        void updateWhatIsThereAndInsertTheRest() {
            written(items(), items(1, 100));
            assertThat(written(
                            items().withOnConflict(OnConflict.doUpdate("Id")).withBatchSize(7),
                            Flux.range(51, 100).map(i -> new Item(i, "new"))))
                    .isEqualTo(100);
            assertThat(count("\"no\"\"te\" = 'new'")).isEqualTo(100);
            assertThat(count("true")).isEqualTo(150);
        }

        @Test
        void leaveWhatIsThereAlone() {
            written(items(), items(1, 10));
            assertThat(written(
                            items().withOnConflict(OnConflict.doNothing("Id")),
                            Flux.range(6, 10).map(i -> new Item(i, "new"))))
                    .isEqualTo(5);
            assertThat(written(items().withOnConflict(OnConflict.doNothing()), items(1, 20)))
                    .isEqualTo(5);
            assertThat(count("\"no\"\"te\" = 'new'")).isEqualTo(5);
        }

        @Test
        void theLastOfRowsWithTheSameKeyCounts() {
            assertThat(written(items().withOnConflict(OnConflict.doUpdate("Id")), twice()))
                    .isEqualTo(3);
            assertThat(notes()).containsExactly("1 e", "2 b", "3 d");
        }

        @Test
        void theLastCountsInASecondBatchToo() {
            written(items().withOnConflict(OnConflict.doUpdate("Id")).withBatchSize(2), twice());
            assertThat(notes()).containsExactly("1 e", "2 b", "3 d");
        }

        @Test
        void theFirstCountsWhereThatIsChosen() {
            written(items().withOnConflict(OnConflict.doUpdate("Id").withDuplicates(Duplicates.KEEP_FIRST)), twice());
            assertThat(notes()).containsExactly("1 a", "2 b", "3 d");
            Postgres.execute("truncate \"unnest Items\"");
            written(items().withOnConflict(OnConflict.doNothing("Id")), twice());
            assertThat(notes()).containsExactly("1 a", "2 b", "3 d");
        }

        @Test
        void duplicatesFailWhereThatIsChosen() {
            BulkWriteException error = catchThrowableOfType(
                    BulkWriteException.class,
                    () -> written(
                            items().withOnConflict(OnConflict.doUpdate("Id").withDuplicates(Duplicates.FAIL)),
                            twice()));
            assertThat(error.getSqlState()).isEqualTo("21000");
            assertThat(error.firstRow()).isEqualTo(3);
            assertThat(error.getMessage()).startsWith("Row 3 ").contains("row 1 has the same key");
            assertThat(count("true")).isZero();
        }

        @Test
        void manyDuplicatesInEveryColumnKeepTheRightOnes() {
            List<Item> rows = new java.util.Random(7)
                    .ints(20_000, 0, 3_000)
                    .boxed()
                    .map(id -> new Item(id, id % 3 == 0 ? null : "{,\"" + id + "\\" + System.identityHashCode(id)))
                    .toList();
            written(items().withOnConflict(OnConflict.doUpdate("Id")), Flux.fromIterable(rows));
            List<String> last = rows.stream()
                    .collect(Collectors.toMap(Item::id, item -> String.valueOf(item.note()), (a, b) -> b))
                    .entrySet()
                    .stream()
                    .sorted(java.util.Map.Entry.comparingByKey())
                    .map(entry -> entry.getKey() + " " + entry.getValue())
                    .toList();
            List<String> stored = scopes.withConnectionMany(connection -> Flux.from(connection
                                    .createStatement("select \"Id\" || ' ' || coalesce(\"no\"\"te\", 'null')"
                                            + " from \"unnest Items\" order by \"Id\"")
                                    .execute())
                            .concatMap(
                                    result -> result.map((row, metadata) -> String.valueOf(row.get(0, String.class)))))
                    .collectList()
                    .blockOptional(BOUND)
                    .orElseThrow();
            assertThat(stored).isEqualTo(last);
        }

        @Test
        void canSetAnExpressionUnderACondition() {
            written(items(), items(1, 2));
            OnConflict append = OnConflict.doUpdate("Id")
                    .withSet("no\"te", "target.\"no\"\"te\" || ' + ' || excluded.\"no\"\"te\"")
                    .withCondition("target.\"Id\" <> 2");
            assertThat(written(items().withOnConflict(append), items(1, 3))).isEqualTo(2);
            assertThat(notes()).containsExactly("1 note 1 + note 1", "2 note 2", "3 note 3");
        }

        @Test
        void canUpdateSomeOfTheColumns() {
            written(items(), items(1, 1));
            UnnestWriter<Item> withTime = items().column("at", "timestamptz", item -> Instant.EPOCH);
            written(
                    withTime.withOnConflict(OnConflict.doUpdate("Id").withUpdated("at")),
                    Flux.just(new Item(1, "ignored")));
            assertThat(notes()).containsExactly("1 note 1");
            assertThat(count("at = 'epoch'")).isEqualTo(1);
        }

        @Test
        void aKeyThatIsNotWrittenIsRefused() {
            assertThatThrownBy(() ->
                            items().withOnConflict(OnConflict.doUpdate("at")).write(scopes, Flux.empty()))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("\"at\"");
        }
    }

    @Nested
    class Failures {

        @Test
        void nameTheTableTheBatchAndTheConstraintButNoValue() {
            Flux<Item> rows = items(1, 250).concatWith(Flux.just(new Item(42, "secret")));
            BulkWriteException error =
                    catchThrowableOfType(BulkWriteException.class, () -> written(items().withBatchSize(100), rows));
            assertThat(error.table()).isEqualTo("\"unnest Items\"");
            assertThat(error.firstRow()).isEqualTo(201);
            assertThat(error.lastRow()).isEqualTo(251);
            assertThat(error.getSqlState()).isEqualTo("23505");
            assertThat(error)
                    .hasMessageContaining("\"unnest Items_pkey\"")
                    .hasMessageContaining("201 to 251")
                    .hasMessageNotContaining("42")
                    .hasMessageNotContaining("secret");
            assertThat(count("true")).isZero();
        }

        @Test
        void nameTheColumnIfTheServerDoes() {
            Flux<Item> rows = Flux.just(new Item(1, "a"), new Item(null, "b"));
            BulkWriteException error = catchThrowableOfType(BulkWriteException.class, () -> written(items(), rows));
            assertThat(error.column()).isEqualTo("Id");
            assertThat(error.getSqlState()).isEqualTo("23502");
        }

        @Test
        void ofAValueThatCannotBeEncodedNameRowAndColumn() {
            for (String text : List.of("bad \0 text", "bad \uD83D text", "bad \uDE00")) {
                Flux<Item> rows = items(1, 300).concatWith(Flux.just(new Item(301, text)));
                BulkWriteException error =
                        catchThrowableOfType(BulkWriteException.class, () -> written(items().withBatchSize(100), rows));
                assertThat(error.firstRow()).isEqualTo(301);
                assertThat(error.column()).isEqualTo("no\"te");
                assertThat(error).hasMessageNotContaining("bad");
            }
            UnnestWriter<Item> odd = items().column("at", "timestamptz", item -> new StringBuilder[0].getClass());
            BulkWriteException error = catchThrowableOfType(BulkWriteException.class, () -> written(odd, items(1, 1)));
            assertThat(error.column()).isEqualTo("at");
            assertThat(error).hasMessageContaining("java.lang.Class");
            assertThat(count("true")).isZero();
        }

        @Test
        void ofTheSourceAndOfAFunctionAreTheirOwn() {
            assertThatThrownBy(() -> written(
                            items().withBatchSize(10),
                            items(1, 95).concatWith(Flux.error(new ArithmeticException("source")))))
                    .isInstanceOf(ArithmeticException.class)
                    .hasMessage("source");
            UnnestWriter<Item> failing = items().column("at", "timestamptz", item -> {
                throw new ArithmeticException("function");
            });
            assertThatThrownBy(() -> written(failing, items(1, 1)))
                    .isInstanceOf(ArithmeticException.class)
                    .hasMessage("function");
            assertThat(count("true")).isZero();
        }

        @Test
        void ofTheTransactionStayTheDrivers() {
            Mono<Long> aborted = scopes.inTransaction(connection -> Rows.update(connection, "select 1 / 0")
                    .then()
                    .onErrorComplete()
                    .then(items().write(connection, items(1, 1))));
            assertThatThrownBy(() -> aborted.block(BOUND))
                    .isNotInstanceOf(BulkWriteException.class)
                    .hasMessageContaining("aborted");
        }
    }

    @Test
    void theSourceMayReadOnTheSameConnectionBetweenTheBatches() {
        written(items(), items(1, 5_000));
        Mono<Long> copied = scopes.inTransaction(connection -> items().withBatchSize(200)
                .write(
                        connection,
                        Rows.ints(connection
                                        .createStatement("select \"Id\" from \"unnest Items\" order by 1")
                                        .fetchSize(100))
                                .map(id -> new Item(id + 5_000, "copy"))));
        assertThat(copied.block(BOUND)).isEqualTo(5_000);
        assertThat(count("\"no\"\"te\" = 'copy'")).isEqualTo(5_000);
    }

    @Test
    void eachRowOfTheSourceMayHaveAQueryOfItsOwnOnTheSameConnection() {
        Mono<Long> written = scopes.inTransaction(connection -> items().withBatchSize(50)
                .write(
                        connection,
                        Flux.range(1, 500)
                                .flatMap(
                                        i -> Rows.ints(connection
                                                        .createStatement("select $1::int")
                                                        .bind(0, i))
                                                .map(id -> new Item(id, "x")),
                                        16)));
        assertThat(written.block(BOUND)).isEqualTo(500);
        assertThat(count("true")).isEqualTo(500);
    }

    @Test
    void asksForOneBatchAheadAtMost() {
        AtomicLong requested = new AtomicLong();
        Flux<Item> rows = items(1, 1_000).doOnRequest(requested::addAndGet);
        Connection other = Mono.from(Postgres.connectionFactory().create())
                .blockOptional(BOUND)
                .orElseThrow();
        Probe<Long> writing = Probe.unbounded();
        try {
            Rows.update(other, "begin; lock table \"unnest Items\"").blockLast(BOUND);
            items().withBatchSize(100).write(scopes, rows).subscribe(writing);
            Await.until(() -> requested.get() >= 200, () -> "asked for " + requested.get());
            Await.until(
                    () -> Postgres.number("select count(*) from pg_locks where not granted") > 0,
                    () -> "nobody waits for the lock");
            assertThat(requested.get()).isEqualTo(200);
        } finally {
            Mono.from(other.close()).block(BOUND);
        }
        assertThat(writing.awaitEnd().values()).containsExactly(1_000L);
        assertThat(count("true")).isEqualTo(1_000);
    }

    @Test
    void aCancelStopsTheSourceAndKeepsNothing() {
        AtomicBoolean cancelled = new AtomicBoolean();
        AtomicLong pulled = new AtomicLong();
        Probe<Long> probe = Probe.unbounded();
        items().withBatchSize(10)
                .write(
                        scopes,
                        Flux.<Integer, Integer>generate(() -> 1, (n, sink) -> {
                                    sink.next(n);
                                    return n + 1;
                                })
                                .map(i -> new Item(i, "x"))
                                .doOnNext(i -> pulled.incrementAndGet())
                                .doOnCancel(() -> cancelled.set(true)))
                .subscribe(probe);
        Await.until(() -> pulled.get() > 100, () -> "pulled " + pulled);
        probe.cancel();
        watched.awaitQuiet();
        assertThat(cancelled).isTrue();
        assertThat(count("true")).isZero();
        assertThat(probe.drops().errors()).isEmpty();
        probe.assertSound();
    }

    @Test
    void withoutAScopeAnyConnectionOfPostgresqlServes() {
        List<Long> written = watched.borrow(connection ->
                items().withBatchSize(10).write(connection, items(1, 25)).flux());
        assertThat(written).containsExactly(25L);
        assertThat(count("true")).isEqualTo(25);
    }

    @Test
    void joinsTheCurrentTransaction() {
        Mono<Long> rolledBack = scopes.inTransaction((Connection connection) -> items().write(scopes, items(1, 10))
                .then(CurrentScope.get())
                .doOnNext(CurrentScope::setRollbackOnly)
                .thenReturn(1L));
        assertThat(rolledBack.block(BOUND)).isEqualTo(1);
        assertThat(count("true")).isZero();
    }

    @Test
    void namesThatAreNotTypesAreRefused() {
        for (String type : IntStream.range(0, 4)
                .mapToObj(i -> List.of("int); drop table x; --", "numeric(10,2)", "", "int]")
                        .get(i))
                .toList()) {
            assertThatIllegalArgumentException().isThrownBy(() -> items().column("x", type, Item::note));
        }
        assertThat(items().column("x", "\"My Schema\".\"a\"\"type\"", Item::note))
                .isNotNull();
    }

    @Test
    void bytesOfATextAreThoseOfUtf8() {
        String all = IntStream.rangeClosed(1, Character.MAX_CODE_POINT)
                .filter(c -> c < Character.MIN_SURROGATE || c > Character.MAX_SURROGATE)
                .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
                .toString();
        written(items(), Flux.just(new Item(1, all)));
        assertThat(count("octet_length(\"no\"\"te\") = " + all.getBytes(StandardCharsets.UTF_8).length))
                .isEqualTo(1);
        assertThat(scopes.withConnection(connection -> Flux.from(connection
                                        .createStatement("select \"no\"\"te\" from \"unnest Items\"")
                                        .execute())
                                .concatMap(result -> result.map((row, metadata) -> row.get(0, String.class))))
                        .block(BOUND))
                .isEqualTo(all);
    }
}
