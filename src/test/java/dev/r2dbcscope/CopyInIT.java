package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import io.r2dbc.spi.ConnectionFactories;
import java.time.Duration;
import java.time.LocalTime;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** COPY writes what it is given, all or nothing, and leaves nothing behind when it fails. */
class CopyInIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private static final CopyIn<Integer> ROWS = CopyIn.<Integer>into("copied")
            .column("id", CopyType.INTEGER, i -> i)
            .column("note", CopyType.TEXT, i -> "note " + i);

    private final WatchedPool pool = WatchedPool.of(2);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists copied");
        Postgres.execute("create table copied (id int primary key, note text not null)");
    }

    @AfterEach
    void poolIsWhole() {
        pool.assertWhole();
        pool.close();
    }

    private static long count() {
        return Postgres.number("select count(*) from copied");
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void writesEveryRow(CopyFormat format) {
        for (int n : new int[] {0, 1, 100_000}) {
            Postgres.execute("truncate copied");
            Long written =
                    ROWS.withFormat(format).write(pool.scopes, Flux.range(0, n)).block(LONG);
            assertThat(written).isEqualTo(n);
            assertThat(count()).isEqualTo(n);
        }
        assertThat(pool.destroyed()).isZero();
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void writesRowsOfAnyLength(CopyFormat format) {
        int[] lengths = {0, 57_342, 57_343, 57_344, 65_535, 65_536, 65_537, 10_000_000, 3};
        Long written = CopyIn.<Integer>into("public", "copied")
                .columns((i, row) -> row.writeInt(i).writeText("x".repeat(lengths[i])), "id", "note")
                .withFormat(format)
                .withPrefetch(1)
                .write(pool.scopes, Flux.range(0, lengths.length))
                .block(LONG);
        assertThat(written).isEqualTo(lengths.length);
        for (int i = 0; i < lengths.length; i++) {
            assertThat(Postgres.number("select length(note) from copied where id = " + i))
                    .isEqualTo(lengths[i]);
        }
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void namesAreTakenAsTheyAre(CopyFormat format) {
        Postgres.execute("drop schema if exists \"Odd \"\"schema\" cascade");
        Postgres.execute("create schema \"Odd \"\"schema\"");
        Postgres.execute("create table \"Odd \"\"schema\".\"a; b\" (\"select\" int, \"Ünï\" text default 'given')");
        CopyIn<Integer> odd = CopyIn.<Integer>into("Odd \"schema", "a; b").column("select", CopyType.INTEGER, i -> i);
        assertThat(odd.withFormat(format).write(pool.scopes, Flux.range(0, 10)).block(LONG))
                .isEqualTo(10);
        assertThat(Postgres.number("select count(*) from \"Odd \"\"schema\".\"a; b\" where \"Ünï\" = 'given'"))
                .isEqualTo(10);
    }

    @Test
    void sourcesOnOtherThreadsAndSlowOnesAreWritten() {
        Long written = ROWS.write(
                        pool.scopes,
                        Flux.merge(
                                Flux.range(0, 50_000).publishOn(Schedulers.parallel()),
                                Flux.range(50_000, 50_000).publishOn(Schedulers.parallel()),
                                Flux.range(100_000, 50).delayElements(Duration.ofMillis(5))))
                .block(LONG);
        assertThat(written).isEqualTo(100_050);
        assertThat(count()).isEqualTo(100_050);
    }

    @Test
    void eachSubscriberWritesAnew() {
        Mono<Long> write = ROWS.write(pool.scopes, Flux.range(0, 10));
        assertThat(write.block(LONG)).isEqualTo(10);
        Postgres.execute("truncate copied");
        assertThat(write.block(LONG)).isEqualTo(10);
    }

    @Test
    void aConnectionWithoutAScopeIsRefused() {
        assertThatThrownBy(() -> Mono.usingWhen(
                                pool.pool.create(), c -> ROWS.write(c, Flux.range(0, 10)), c -> c.close())
                        .block(LONG))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("does not belong to a scope");
    }

    @Test
    void anotherDriverIsRefused() {
        ConnectionScopes h2 = ConnectionScopes.of(ConnectionFactories.get("r2dbc:h2:mem:///copy"));
        assertThatThrownBy(() -> ROWS.write(h2, Flux.range(0, 10)).block(LONG))
                .isInstanceOf(UnsupportedOperationException.class)
                .hasMessageContaining("needs r2dbc-postgresql");
    }

    /** What the driver binds is rounded by the server; what COPY writes must be the same value. */
    @Test
    void nanosecondsAreRoundedAsTheServerRounds() {
        Postgres.execute("drop table if exists rounded");
        Postgres.execute("create table rounded (id int, read time, written time)");
        int[] nanos = {1, 499, 500, 501, 1500, 2500, 3500, 999_999_499, 999_999_500, 123_456_500, 987_654_321, 1_000_500
        };
        for (CopyFormat format : CopyFormat.values()) {
            Postgres.execute("truncate rounded");
            CopyIn.<Integer>into("rounded")
                    .columns((i, row) -> row.writeInt(i).writeTime(LocalTime.of(1, 2, 3, nanos[i])), "id", "written")
                    .withFormat(format)
                    .write(pool.scopes, Flux.range(0, nanos.length))
                    .block(LONG);
            for (int i = 0; i < nanos.length; i++) {
                assertThat(Postgres.number("select count(*) from rounded where id = " + i
                                + " and written = time '01:02:03." + String.format("%09d", nanos[i]) + "'"))
                        .as("%s nanoseconds in %s", nanos[i], format)
                        .isOne();
            }
        }
    }
}
