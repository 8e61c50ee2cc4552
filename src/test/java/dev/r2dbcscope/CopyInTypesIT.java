package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;

import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.Period;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * The server does not know as what a binary value was written: eight bytes are a bigint, a double precision, a timestamp or eight
 * characters. What does not belong into its column is not sent.
 */
class CopyInTypesIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private static final String SECRET = "hunter2!";

    /** Every type that is checked, with a value. */
    private static final List<Sample<?>> SAMPLES = List.of(
            new Sample<>(CopyType.SMALLINT, (short) 4242),
            new Sample<>(CopyType.INTEGER, 4242),
            new Sample<>(CopyType.BIGINT, 4242L),
            new Sample<>(CopyType.REAL, 42.5f),
            new Sample<>(CopyType.DOUBLE_PRECISION, 42.5),
            new Sample<>(CopyType.NUMERIC, new BigDecimal("42.5")),
            new Sample<>(CopyType.TEXT, SECRET),
            new Sample<>(CopyType.VARCHAR, SECRET),
            new Sample<>(CopyType.BOOLEAN, true),
            new Sample<>(CopyType.BYTEA, new byte[] {1, 2, 3, 4, 5, 6, 7, 8}),
            new Sample<>(CopyType.UUID, new UUID(4242, 4242)),
            new Sample<>(CopyType.DATE, LocalDate.of(2024, 2, 29)),
            new Sample<>(CopyType.TIME, LocalTime.NOON),
            new Sample<>(CopyType.TIMESTAMP, LocalDateTime.of(2024, 2, 29, 12, 0)),
            new Sample<>(CopyType.TIMESTAMPTZ, OffsetDateTime.parse("2024-02-29T12:00:00+01:00")),
            new Sample<>(CopyType.INSTANT, Instant.EPOCH),
            new Sample<>(CopyType.INTERVAL, Period.ofDays(3)),
            new Sample<>(CopyType.JSON, "\"" + SECRET + "\""),
            new Sample<>(CopyType.JSONB, "\"" + SECRET + "\""));

    private static final List<String> TEXTS = List.of("text", "varchar", "char(9)", "name", "xml");

    private final WatchedPool pool = WatchedPool.of(1);

    private record Sample<V>(CopyType<V> type, V value) {

        CopyIn<Integer> column(String table) {
            return CopyIn.<Integer>into(table).column("v", type, i -> value);
        }

        CopyIn<Integer> encoded(String table) {
            return CopyIn.<Integer>into(table).columns((i, row) -> row.write(type, value), "v");
        }

        Sample<?> array() {
            return new Sample<>(type.array(), Arrays.asList(null, value));
        }

        @Override
        public String toString() {
            return type.sqlName();
        }
    }

    @BeforeEach
    void noTable() {
        Postgres.execute("drop table if exists typed; drop domain if exists typed_even cascade;"
                + " drop domain if exists typed_number cascade; drop domain if exists typed_list cascade;"
                + " drop type if exists typed_mood cascade");
    }

    @AfterEach
    void poolIsWhole() {
        pool.assertWhole();
        pool.close();
    }

    private static void table(String type) {
        Postgres.execute("drop table if exists typed; create table typed (before int, dropped int, v " + type
                + ", after text); alter table typed drop column dropped");
    }

    private static long count() {
        return Postgres.number("select count(*) from typed");
    }

    private Long write(CopyIn<Integer> writer) {
        return writer.write(pool.scopes, Flux.just(1)).block(LONG);
    }

    private CopyException assertRefused(CopyIn<Integer> writer, String written) {
        Throwable error = catchThrowable(() -> write(writer));
        assertThat(error).as(written).isInstanceOf(CopyException.class);
        CopyException refused = (CopyException) error;
        assertThat(refused)
                .hasMessageStartingWith("COPY typed, row 1, column v: the column is of type ")
                .hasMessageContaining(", but what was written is of type " + written + ", ")
                .hasMessageContaining("withFormat(CopyFormat.TEXT)")
                .hasMessageNotContaining(SECRET)
                .hasMessageNotContaining("42")
                .hasNoCause();
        assertThat(refused.row()).isOne();
        assertThat(refused.column()).isEqualTo("v");
        assertThat(refused.getSqlState()).isNull();
        assertThat(count()).isZero();
        return refused;
    }

    private record Garbage(String column, Sample<?> written) {}

    /** What the server stores as something else when it is not refused. */
    private static final List<Garbage> GARBAGE = List.of(
            new Garbage("smallint", new Sample<>(CopyType.TEXT, "ab")),
            new Garbage("integer", new Sample<>(CopyType.REAL, 42.5f)),
            new Garbage("bigint", new Sample<>(CopyType.DOUBLE_PRECISION, 42.5)),
            new Garbage("bigint", new Sample<>(CopyType.TEXT, SECRET)),
            new Garbage("real", new Sample<>(CopyType.DATE, LocalDate.of(2024, 2, 29))),
            new Garbage("double precision", new Sample<>(CopyType.BIGINT, 4242L)),
            new Garbage("numeric", new Sample<>(CopyType.BYTEA, new byte[8])),
            new Garbage("text", new Sample<>(CopyType.BYTEA, new byte[] {65, 66})),
            new Garbage("varchar(9)", new Sample<>(CopyType.JSONB, "42")),
            new Garbage("char(9)", new Sample<>(CopyType.INTEGER, 0x41424344)),
            new Garbage("name", new Sample<>(CopyType.BYTEA, new byte[] {65, 66})),
            new Garbage("json", new Sample<>(CopyType.BYTEA, new byte[] {49})),
            new Garbage("xml", new Sample<>(CopyType.BYTEA, new byte[] {65})),
            new Garbage("boolean", new Sample<>(CopyType.TEXT, "f")),
            new Garbage("bytea", new Sample<>(CopyType.TEXT, SECRET)),
            new Garbage("bytea", new Sample<>(CopyType.INTEGER.array(), List.of(4242))),
            new Garbage("uuid", new Sample<>(CopyType.INTERVAL, Period.ofDays(3))),
            new Garbage("date", new Sample<>(CopyType.INTEGER, 4242)),
            new Garbage("time", new Sample<>(CopyType.BIGINT, 4242L)),
            new Garbage("timestamp", new Sample<>(CopyType.BIGINT, 4242L)),
            new Garbage("timestamptz", new Sample<>(CopyType.TIMESTAMP, LocalDateTime.of(2024, 2, 29, 12, 0))),
            new Garbage("interval", new Sample<>(CopyType.UUID, new UUID(4242, 4242))),
            new Garbage("jsonb", new Sample<>(CopyType.BYTEA, new byte[] {1, 49})));

    static List<Garbage> garbage() {
        return GARBAGE;
    }

    @ParameterizedTest
    @MethodSource("garbage")
    void whatTheServerWouldMistakeIsRefused(Garbage garbage) {
        table(garbage.column());
        Sample<?> sample = garbage.written();
        assertRefused(sample.column("typed"), sample.type().sqlName());
        assertRefused(sample.encoded("typed"), sample.type().sqlName());
    }

    @Test
    void aColumnTakesWhatIsOfItsType() {
        for (Sample<?> sample : SAMPLES) {
            String type = sample.type().sqlName();
            for (String column : type.equals("text") ? TEXTS : List.of(type)) {
                table(column);
                assertThat(write(sample.column("typed"))).isOne();
                assertThat(write(sample.encoded("typed"))).isOne();
            }
            table(type + "[]");
            assertThat(write(sample.array().column("typed"))).isOne();
            assertThat(Postgres.number("select count(*) from typed where v[1] is null and v[2] is not null"))
                    .isOne();
        }
        assertThat(pool.destroyed()).isZero();
    }

    @Test
    void theRemedyIsTold() {
        table("double precision");
        assertThat(assertRefused(bigint(), "bigint"))
                .hasMessageContaining("is of type double precision,")
                .hasMessageContaining("; write it as CopyType.DOUBLE_PRECISION, or use withFormat(");
        table("json");
        assertThat(assertRefused(bigint(), "bigint")).hasMessageContaining("CopyType.JSON, ");
        table("char(9)");
        assertThat(assertRefused(bigint(), "bigint")).hasMessageContaining("CopyType.TEXT, ");
        table("varchar[]");
        assertThat(assertRefused(texts(), "text[]"))
                .hasMessageContaining("is of type character varying[],")
                .hasMessageContaining("CopyType.VARCHAR.array(), ");
        table("char(9)[]");
        assertThat(assertRefused(texts(), "text[]"))
                .hasMessageContaining("; use withFormat(")
                .hasMessageNotContaining("write it as");
        assertThat(write(texts().withFormat(CopyFormat.TEXT))).isOne();
    }

    private static CopyIn<Integer> bigint() {
        return CopyIn.<Integer>into("typed").column("v", CopyType.BIGINT, i -> 4242L);
    }

    private static CopyIn<Integer> texts() {
        return CopyIn.<Integer>into("typed").column("v", CopyType.TEXT.array(), i -> List.of(SECRET));
    }

    @Test
    void aDomainIsWhatItIsOver() {
        Postgres.execute("create domain typed_number as bigint check (value > 0);"
                + " create domain typed_even as typed_number check (value % 2 = 0);"
                + " create domain typed_list as bigint[]");
        table("typed_even");
        assertThat(write(bigint())).isOne();
        Postgres.execute("truncate typed");
        assertThat(assertRefused(
                        CopyIn.<Integer>into("typed").column("v", CopyType.DOUBLE_PRECISION, i -> 42.0),
                        "double precision"))
                .hasMessageContaining("is of type typed_even, which is bigint,");
        table("typed_list");
        assertThat(write(CopyIn.<Integer>into("typed").column("v", CopyType.BIGINT.array(), i -> List.of(1L))))
                .isOne();
        Postgres.execute("truncate typed");
        assertThat(assertRefused(texts(), "text[]")).hasMessageContaining("is of type typed_list, which is bigint[],");
    }

    @Test
    void columnsOfOtherTypesAreNotChecked() {
        Postgres.execute("create type typed_mood as enum ('glad', 'sad')");
        table("typed_mood");
        assertThat(write(CopyIn.<Integer>into("typed").column("v", CopyType.TEXT, i -> "sad")))
                .isOne();
        assertThat(Postgres.number("select count(*) from typed where v = 'sad'"))
                .isOne();
        table("oid");
        assertThat(write(CopyIn.<Integer>into("typed").column("v", CopyType.INTEGER, i -> 7)))
                .isOne();
        table("money");
        assertThat(write(bigint())).isOne();
        table("point");
        assertThat(write(CopyIn.<Integer>into("typed").column("v", CopyType.UUID, i -> new UUID(1, 1))))
                .isOne();
    }

    @Test
    void nullFitsEverywhere() {
        for (String type : List.of("bigint", "text", "bigint[]", "jsonb")) {
            table(type);
            for (Sample<?> sample : SAMPLES) {
                assertThat(write(CopyIn.<Integer>into("typed")
                                .column("v", sample.type().from((Integer i) -> null), i -> i)))
                        .isOne();
                assertThat(write(CopyIn.<Integer>into("typed").column("v", sample.type(), i -> null)))
                        .isOne();
            }
            assertThat(write(CopyIn.<Integer>into("typed").columns((i, row) -> row.writeDate(null), "v")))
                    .isOne();
            assertThat(Postgres.number("select count(*) from typed where v is null"))
                    .isEqualTo(count())
                    .isEqualTo(2L * SAMPLES.size() + 1);
        }
    }

    @Test
    void rowsBeforeAreNotWrittenEither() {
        table("bigint");
        CopyIn<Integer> writer = CopyIn.<Integer>into("typed")
                .columns(
                        (i, row) -> {
                            row.writeText(SECRET).writeInt(i);
                            if (i < 50_000) {
                                row.writeLong(i);
                            } else {
                                row.writeDouble(i);
                            }
                        },
                        "after",
                        "before",
                        "v");
        CopyException error = (CopyException) catchThrowable(
                () -> writer.write(pool.scopes, Flux.range(0, 100_000)).block(LONG));
        assertThat(error.row()).isEqualTo(50_001);
        assertThat(error.column()).isEqualTo("v");
        assertThat(count()).isZero();
    }

    @Test
    void textIsConvertedByTheServer() {
        table("timestamp");
        assertThat(write(CopyIn.<Integer>into("typed")
                        .column("v", CopyType.TEXT, i -> "2024-02-29")
                        .withFormat(CopyFormat.TEXT)))
                .isOne();
        table("bigint");
        assertThat(write(CopyIn.<Integer>into("typed")
                        .column("v", CopyType.SMALLINT, i -> (short) 1)
                        .withFormat(CopyFormat.TEXT)))
                .isOne();
    }

    /** Names are found as COPY finds them: by the search path, with every character, and cut after 63 bytes. */
    @Test
    void theColumnsAreThoseOfTheTableThatCopyWrites() {
        String name = "Ty\"p.ed ; é" + "x".repeat(60);
        String quoted = "\"" + name.replace("\"", "\"\"") + "\"";
        Postgres.execute(
                "drop schema if exists \"Typed.too\" cascade; create schema \"Typed.too\"; drop table if exists "
                        + quoted + "; create table " + quoted + " (" + quoted + " bigint);"
                        + " create table \"Typed.too\"."
                        + quoted + " (" + quoted + " double precision)");
        CopyIn<Integer> doubles = CopyIn.<Integer>into(name).column(name, CopyType.DOUBLE_PRECISION, i -> 42.5);
        assertThat(catchThrowable(() -> write(doubles)))
                .isInstanceOf(CopyException.class)
                .hasMessageContaining("the column is of type bigint");
        assertThat(write(doubles.withTable("Typed.too", name))).isOne();
        Long written = pool.scopes
                .inTransaction(c ->
                        Rows.update(c, "set local search_path = \"Typed.too\"").then(doubles.write(c, Flux.just(1, 2))))
                .block(LONG);
        assertThat(written).isEqualTo(2);
        Mono<Long> temporary = pool.scopes.inTransaction(
                c -> Rows.update(c, "create temporary table " + quoted + " (" + quoted + " text) on commit drop")
                        .then(doubles.write(c, Flux.just(1))));
        assertThat(catchThrowable(() -> temporary.block(LONG)))
                .isInstanceOf(CopyException.class)
                .hasMessageContaining("the column is of type text");
        assertThat(Postgres.number("select count(*) from \"Typed.too\"." + quoted))
                .isEqualTo(3);
        Postgres.execute("drop schema \"Typed.too\" cascade; drop table " + quoted);
    }
}
