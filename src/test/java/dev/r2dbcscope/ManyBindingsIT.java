package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.function.Function;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * One of the bindings of {@link Statement#add} fails. The driver sends them one after the other and forgets to end after
 * the error of one, so the raw connection never serves anything again.
 */
class ManyBindingsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int BINDINGS = 3;

    /** Longer than the test waits, so that no timeout can rescue what hangs. */
    private final WatchedPool pool = WatchedPool.of(
            1,
            options -> options.withReleaseTimeout(Duration.ofMinutes(10)).withAcquireTimeout(Duration.ofMinutes(10)));

    private final ConnectionScopes scopes = pool.scopes;

    private enum Reading {
        COUNTED(results -> results.flatMap(Result::getRowsUpdated).then()),
        ONE_AFTER_THE_OTHER(
                results -> results.concatMap(Result::getRowsUpdated, 1).then()),
        BY_SEGMENTS(results ->
                results.concatMap(result -> result.flatMap(Mono::just)).then()),
        NOT_AT_ALL(results -> results.then()),
        LATER(results -> results.collectList()
                .flatMapMany(Flux::fromIterable)
                .concatMap(Result::getRowsUpdated)
                .then());

        private final Function<Flux<Result>, Mono<Void>> way;

        Reading(Function<Flux<Result>, Mono<Void>> way) {
            this.way = way;
        }
    }

    static Stream<Arguments> failures() {
        return Stream.of(Reading.values())
                .flatMap(reading -> IntStream.range(0, BINDINGS).mapToObj(at -> Arguments.of(reading, at)));
    }

    @BeforeEach
    void createTable() {
        Postgres.execute("create table many_bindings (id int primary key); insert into many_bindings values (0)");
    }

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
        Postgres.execute("drop table many_bindings");
    }

    /** Inserts one row per binding, of which the one at the position is a duplicate; says whether it failed as it should. */
    private static Mono<Boolean> failsAt(int position, Reading reading, Connection connection) {
        Statement insert = connection.createStatement("insert into many_bindings values ($1)");
        for (int i = 0; i < BINDINGS; i++) {
            if (i > 0) {
                insert.add();
            }
            insert.bind(0, i == position ? 0 : i + 1);
        }
        return reading.way
                .apply(Flux.from(insert.execute()))
                .thenReturn(false)
                .onErrorResume(R2dbcDataIntegrityViolationException.class, e -> Mono.just(true));
    }

    @ParameterizedTest
    @MethodSource("failures")
    void theScopeGoesOnWithATransactionInsideIt(Reading reading, int position) {
        assertThat(scopes.withConnection(c -> failsAt(position, reading, c)
                                .delayUntil(failed ->
                                        scopes.inTransaction(t -> Rows.update(t, "insert into many_bindings values (9)")
                                                .then())))
                        .block(LONG))
                .isTrue();
        assertThat(Postgres.number("select count(*) from many_bindings where id = 9"))
                .isEqualTo(1);
        assertThat(Postgres.number("select count(*) from many_bindings where id = 0"))
                .isEqualTo(1);
    }

    @ParameterizedTest
    @MethodSource("failures")
    void theTransactionGoesOnFromItsSavepoint(Reading reading, int position) {
        assertThat(scopes.inTransaction(c -> Mono.from(c.createSavepoint("before"))
                                .then(failsAt(position, reading, c))
                                .delayUntil(failed -> c.rollbackTransactionToSavepoint("before"))
                                .delayUntil(failed -> Rows.update(c, "insert into many_bindings values (9)")))
                        .block(LONG))
                .isTrue();
        assertThat(Postgres.number("select sum(id) from many_bindings")).isEqualTo(9);
    }

    @ParameterizedTest
    @MethodSource("failures")
    void theTransactionIsRolledBackAsAWhole(Reading reading, int position) {
        assertThat(scopes.inTransaction(c -> failsAt(position, reading, c)
                                .flatMap(failed -> Mono.<Boolean>error(new IllegalStateException("failed " + failed))))
                        .onErrorResume(
                                IllegalStateException.class,
                                e -> Mono.just(e.getMessage().equals("failed true")))
                        .block(LONG))
                .isTrue();
        assertThat(Postgres.number("select sum(id) from many_bindings")).isZero();
    }
}
