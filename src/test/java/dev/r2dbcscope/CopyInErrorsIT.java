package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.RowEncoder;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What goes wrong with a row is told with its number and column and without its values, and none of the rows is written. */
class CopyInErrorsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final String SECRET = "hunter2";

    private static final CopyIn<Integer> ROWS = CopyIn.<Integer>into("refused")
            .column("id", CopyType.INTEGER, i -> i)
            .column("note", CopyType.TEXT, i -> SECRET + i);

    private final WatchedPool pool = WatchedPool.of(2);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists refused");
        Postgres.execute("create table refused (id int primary key, note varchar(20) not null check (note <> 'bad'),"
                + " \"odd \"\"column\" date, stamp timestamp, amount numeric, span interval)");
    }

    @AfterEach
    void nothingIsWrittenAndThePoolIsWhole() {
        assertThat(Postgres.number("select count(*) from refused")).isZero();
        pool.assertWhole();
        assertThat(pool.destroyed())
                .as("after any error of a COPY its connection is destroyed")
                .isOne();
        pool.close();
    }

    private CopyException refused(CopyIn<Integer> writer, CopyFormat format, Flux<Integer> rows) {
        Throwable error = catchThrowable(
                () -> writer.withFormat(format).write(pool.scopes, rows).block(LONG));
        assertThat(error).isInstanceOf(CopyException.class);
        assertThat(error.getMessage()).doesNotContain(SECRET).contains("COPY refused");
        return (CopyException) error;
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void aDuplicateKeyEndsTheSource(CopyFormat format) {
        AtomicLong pulled = new AtomicLong();
        AtomicBoolean cancelled = new AtomicBoolean();
        Flux<Integer> endless = Flux.<Integer, Integer>generate(() -> 0, (i, sink) -> {
                    sink.next(i == 77_777 ? 5 : i);
                    return i + 1;
                })
                .doOnNext(i -> pulled.incrementAndGet())
                .doOnCancel(() -> cancelled.set(true));

        CopyException error = refused(ROWS, format, endless);

        assertThat(error.row()).isEqualTo(77_778);
        assertThat(error.column()).isNull();
        assertThat(error.constraint()).isEqualTo("refused_pkey");
        assertThat(error.table()).isEqualTo("refused");
        assertThat(error.getSqlState()).isEqualTo("23505");
        assertThat(error).hasCauseInstanceOf(R2dbcDataIntegrityViolationException.class);
        Await.until(cancelled::get, () -> "the source was not cancelled");
        assertThat(pulled).hasValueLessThan(1_000_000);
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void aMissingValueIsToldWithItsColumn(CopyFormat format) {
        CopyException error = refused(
                CopyIn.<Integer>into("refused")
                        .column("id", CopyType.INTEGER, i -> i)
                        .column("note", CopyType.TEXT, i -> i == 41 ? null : SECRET),
                format,
                Flux.range(0, 1000));
        assertThat(error.row()).isEqualTo(42);
        assertThat(error.column()).isEqualTo("note");
        assertThat(error.getSqlState()).isEqualTo("23502");
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void aViolatedCheckIsToldWithItsName(CopyFormat format) {
        CopyException error = refused(
                CopyIn.<Integer>into("refused")
                        .column("id", CopyType.INTEGER, i -> i)
                        .column("note", CopyType.TEXT, i -> i == 999 ? "bad" : SECRET),
                format,
                Flux.range(0, 1000));
        assertThat(error.row()).isEqualTo(1000);
        assertThat(error.constraint()).isEqualTo("refused_note_check");
        assertThat(error.getSqlState()).isEqualTo("23514");
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void aTextThatIsTooLongIsToldWithItsColumn(CopyFormat format) {
        CopyException error = refused(
                CopyIn.<Integer>into("refused")
                        .column("id", CopyType.INTEGER, i -> i)
                        .column("note", CopyType.TEXT, i -> i == 7 ? SECRET.repeat(4) : SECRET),
                format,
                Flux.range(0, 1000));
        assertThat(error.row()).isEqualTo(8);
        assertThat(error.column()).isEqualTo("note");
        assertThat(error.getSqlState()).isEqualTo("22001");
    }

    @Test
    void textThatIsNoValueOfItsColumnsTypeIsToldWithoutIt() {
        CopyException error = refused(
                CopyIn.<Integer>into("refused")
                        .columns(
                                (i, row) -> row.writeInt(i).writeText("x").writeText(SECRET),
                                "id",
                                "note",
                                "odd \"column"),
                CopyFormat.TEXT,
                Flux.range(0, 1000));
        assertThat(error.row()).isOne();
        assertThat(error.column()).isEqualTo("odd \"column");
        assertThat(error.getSqlState()).isEqualTo("22007");
    }

    /** That the server finds by itself, because of the length; for what it would store, see {@link CopyInTypesIT}. */
    @Test
    void aBinaryValueOfAnotherTypeIsToldWithItsColumn() {
        CopyException error = refused(
                CopyIn.<Integer>into("refused")
                        .columns((i, row) -> row.writeLong(i).writeText(SECRET), "id", "note"),
                CopyFormat.BINARY,
                Flux.range(0, 1000));
        assertThat(error.row()).isOne();
        assertThat(error.column()).isEqualTo("id");
        assertThat(error.getSqlState()).isNull();
        assertThat(error)
                .hasMessage("COPY refused, row 1, column id: the column is of type integer, but what was written is of"
                        + " type bigint, whose bytes would mean something else there; write it as CopyType.INTEGER, or use"
                        + " withFormat(CopyFormat.TEXT), with which the server converts");
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void aColumnThatIsNotThereIsNoRowsFault(CopyFormat format) {
        CopyException error =
                refused(ROWS.column("nowhere", CopyType.BIGINT, i -> 1L), format, Flux.range(0, 1_000_000));
        assertThat(error).hasMessageContaining("COPY refused: a column does not exist");
        assertThat(error.row()).isZero();
        assertThat(error.getSqlState()).isEqualTo("42703");
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void aTableThatIsNotThereIsNoRowsFault(CopyFormat format) {
        CopyException error = (CopyException) catchThrowable(() -> ROWS.withTable("public", "nowhere")
                .withFormat(format)
                .write(pool.scopes, Flux.range(0, 1_000_000))
                .block(LONG));
        assertThat(error).hasMessageContaining("COPY public.nowhere: the table does not exist");
        assertThat(error.row()).isZero();
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void whatPostgresqlCannotStoreIsNotSent(CopyFormat format) {
        assertUnsent(
                format,
                "note",
                (i, row) -> row.writeInt(i).writeText(SECRET + "\0").writeNull());
        assertUnsent(
                format,
                "note",
                (i, row) -> row.writeInt(i).writeText(SECRET + "\ud800").writeNull());
        assertUnsent(
                format,
                "note",
                (i, row) -> row.writeInt(i).writeText("\udc00" + SECRET).writeNull());
        assertUnsent(
                format,
                "note",
                (i, row) -> row.writeInt(i).writeText("\ud800\ud800\udc00").writeNull());
        assertUnsent(
                format,
                "odd \"column",
                (i, row) -> row.writeInt(i).writeText(SECRET).writeDate(LocalDate.of(5874898, 1, 1)));
        assertUnsent(
                format,
                "stamp",
                (i, row) -> row.writeInt(i)
                        .writeText(SECRET)
                        .writeNull()
                        .writeTimestamp(LocalDateTime.of(294276, 12, 31, 23, 59, 59, 999_999_999)));
        for (String tooMany : new String[] {"1E-16384", "1E+131072"}) {
            assertUnsent(
                    format,
                    "amount",
                    (i, row) -> row.writeInt(i)
                            .writeText(SECRET)
                            .writeNull()
                            .writeNull()
                            .writeNumeric(new BigDecimal(tooMany)));
        }
        assertUnsent(
                format,
                "span",
                (i, row) -> row.writeInt(i)
                        .writeText(SECRET)
                        .writeNull()
                        .writeNull()
                        .writeNull()
                        .writeInterval(Duration.ofSeconds(Long.MAX_VALUE / 1_000_000 + 1)));
    }

    private void assertUnsent(CopyFormat format, String column, RowEncoder<Integer> wrong) {
        try (WatchedPool other = WatchedPool.of(1)) {
            CopyException error = (CopyException) catchThrowable(() -> CopyIn.<Integer>into("refused")
                    .columns(
                            (i, row) -> {
                                if (i == 500) {
                                    wrong.encode(i, row);
                                } else {
                                    row.writeInt(i)
                                            .writeText("fine")
                                            .writeNull()
                                            .writeNull()
                                            .writeNull()
                                            .writeNull();
                                }
                            },
                            "id",
                            "note",
                            "odd \"column",
                            "stamp",
                            "amount",
                            "span")
                    .withFormat(format)
                    .write(other.scopes, Flux.range(0, 1000))
                    .block(LONG));
            assertThat(error.row()).isEqualTo(501);
            assertThat(error.column()).isEqualTo(column);
            assertThat(error.getSqlState()).isNull();
            assertThat(error.getMessage()).doesNotContain(SECRET).doesNotContain("is of type");
            other.assertWhole();
        }
        failOnce();
    }

    private void failOnce() {
        if (pool.destroyed() == 0) {
            refused(ROWS, CopyFormat.TEXT, Flux.just(1, 1));
        }
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void theErrorOfTheSourceIsPassedOn(CopyFormat format) {
        IllegalStateException own = new IllegalStateException(SECRET);
        assertThatThrownBy(() -> ROWS.withFormat(format)
                        .write(pool.scopes, Flux.range(0, 50_000).concatWith(Mono.error(own)))
                        .block(LONG))
                .satisfies(error ->
                        assertThat(error.getCause() == null ? error : error).isSameAs(own));
    }

    @Test
    void theErrorOfTheEncoderIsPassedOn() {
        AtomicBoolean cancelled = new AtomicBoolean();
        IllegalStateException own = new IllegalStateException(SECRET);
        assertThatThrownBy(() -> CopyIn.<Integer>into("refused")
                        .column("id", CopyType.INTEGER, i -> {
                            if (i == 5) {
                                throw own;
                            }
                            return i;
                        })
                        .write(pool.scopes, Flux.range(0, 1000).doOnCancel(() -> cancelled.set(true)))
                        .block(LONG))
                .isSameAs(own);
        assertThat(cancelled).isTrue();
    }

    @Test
    void anEncoderThatForgetsAColumnIsTold() {
        assertThatThrownBy(() -> CopyIn.<Integer>into("refused")
                        .columns((i, row) -> row.writeInt(i), "id", "note")
                        .write(pool.scopes, Flux.range(0, 1000))
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("The encoder of COPY refused wrote 1 of 2 columns of row 1");
    }

    @Test
    void anEncoderThatWritesAColumnTooManyIsTold() {
        assertThatThrownBy(() -> CopyIn.<Integer>into("refused")
                        .columns((i, row) -> row.writeInt(i).writeNull(), "id")
                        .write(pool.scopes, Flux.range(0, 1000))
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("The encoder of COPY refused wrote more than 1 columns of row 1");
    }

    /** The transaction cannot be committed, and the subscriber who thinks that it was must hear of it. */
    @Test
    void anErrorThatThePipelineKeepsToItselfStillRollsBack() {
        assertThatThrownBy(() -> pool.scopes
                        .inTransaction(c -> Rows.update(c, "insert into refused values (-1, 'before')")
                                .then(ROWS.write(c, Flux.just(1, 1)))
                                .onErrorReturn(0L))
                        .block(LONG))
                .isInstanceOf(ScopeReleaseException.class);
    }

    @Test
    void theStatementAfterAnErrorIsRefused() {
        assertThatThrownBy(() -> pool.scopes
                        .withConnectionMany(c -> ROWS.write(c, Flux.just(1, 1))
                                .onErrorResume(CopyException.class, e -> Mono.empty())
                                .thenMany(Rows.update(c, "insert into refused values (7, 'after')")))
                        .blockLast(LONG))
                .isInstanceOf(ScopeClosedException.class)
                .hasMessageContaining("can no longer be used");
    }
}
