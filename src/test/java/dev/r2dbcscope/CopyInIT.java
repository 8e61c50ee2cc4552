package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;

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
        Postgres.execute("create table copied (id int primary key, note text not null check (note <> 'bad'))");
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
    void namesTheRowThatViolatesAKey(CopyFormat format) {
        Throwable error = ROWS.withFormat(format)
                .write(pool.scopes, Flux.range(0, 1_000_000).map(i -> i == 77_777 ? 5 : i))
                .map(n -> (Throwable) new AssertionError("wrote " + n))
                .onErrorResume(reactor.core.publisher.Mono::just)
                .block(LONG);
        error.printStackTrace();
        assertThat(error).isInstanceOf(CopyException.class);
    }
}
