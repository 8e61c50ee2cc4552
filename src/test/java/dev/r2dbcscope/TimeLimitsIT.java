package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.ScopeTimeoutException.Limit;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.function.Consumer;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What a statement that takes too long, and a scope that holds its connection for too long, come to on PostgreSQL. */
class TimeLimitsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final Duration SHORT = Duration.ofMillis(200);
    private static final String SLEEP = "select 1 from pg_sleep(50)";

    private final WatchedPool pool = WatchedPool.of(1);

    private final ConnectionScopes bounded =
            pool.with(options -> options.withName("bounded").withStatementTimeout(SHORT));
    private final ConnectionScopes impatient =
            pool.with(options -> options.withName("impatient").withLockWaitTimeout(SHORT));

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists limited; create table limited (id int primary key, n int);"
                + " insert into limited values (1, 0)");
    }

    @AfterEach
    void theConnectionWasReturned() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        assertThat(pool.borrow(c -> Rows.ints(
                        c, "select (current_setting('statement_timeout') || current_setting('lock_timeout'))::int")))
                .containsExactly(0);
        pool.close();
    }

    private static Consumer<Throwable> timeout(Limit limit, String sql, String sqlState) {
        return error -> assertThat(error).isInstanceOfSatisfying(ScopeTimeoutException.class, e -> {
            assertThat(e.limit()).isEqualTo(limit);
            assertThat(e.bound()).isEqualTo(SHORT);
            assertThat(e.getSql()).isEqualTo(sql);
            assertThat(e).hasMessageContaining(sql);
            assertThat(e.getCause())
                    .isInstanceOfSatisfying(
                            R2dbcException.class,
                            cause -> assertThat(cause.getSqlState()).isEqualTo(sqlState));
        });
    }

    /** The ways to read a result. */
    enum Reading {
        ROWS(c -> Rows.ints(c, SLEEP)),
        UPDATED(c -> Rows.update(c, SLEEP)),
        FILTERED(c -> Flux.from(c.createStatement(SLEEP).execute())
                .flatMap(result -> result.filter(segment -> true).map(row -> 1))),
        BOUND(c -> Flux.from(c.createStatement("select 1 from pg_sleep($1)")
                        .bind(0, 50)
                        .execute())
                .flatMap(result -> result.map(row -> 1))),
        NOBODY(c -> Flux.from(c.createStatement(SLEEP).execute()).thenMany(Flux.empty())),
        LATE(c -> Flux.from(c.createStatement(SLEEP).execute())
                .collectList()
                .flatMapMany(results -> Flux.fromIterable(results).flatMap(Result::getRowsUpdated)));

        final Function<Connection, Flux<?>> statement;

        Reading(Function<Connection, Flux<?>> statement) {
            this.statement = statement;
        }
    }

    @ParameterizedTest
    @EnumSource
    void aStatementThatTakesTooLongSaysSo(Reading reading) {
        String sql = reading == Reading.BOUND ? "select 1 from pg_sleep($1)" : SLEEP;
        assertThatThrownBy(() ->
                        bounded.withConnectionMany(reading.statement::apply).blockLast(LONG))
                .satisfies(timeout(Limit.STATEMENT, sql, "57014"));
        assertThatThrownBy(() ->
                        bounded.inTransactionMany(reading.statement::apply).blockLast(LONG))
                .satisfies(timeout(Limit.STATEMENT, sql, "57014"));
    }

    @Test
    void aStatementOfATransactionInsideAScopeIsBoundByTheScopesTimeout() {
        assertThatThrownBy(() -> bounded.withConnection(c -> pool.scopes.inTransaction(t -> Rows.ints(t, SLEEP)))
                        .block(LONG))
                .satisfies(timeout(Limit.STATEMENT, SLEEP, "57014"));
    }

    @Test
    void aStatementThatSomebodyElseCancelledDoesNot() {
        String marked = "select 1 from pg_sleep(50) /* cancelled from outside */";
        Mono<Integer> statement =
                pool.with(options -> options.withStatementTimeout(LONG)).inTransaction(c -> Rows.ints(c, marked));
        Probe<Integer> probe = Probe.unbounded();
        statement.subscribe(probe);
        Await.until(
                () -> Postgres.number("select count(*) from (select pg_cancel_backend(pid) from pg_stat_activity"
                                + " where state = 'active' and pid <> pg_backend_pid()"
                                + " and query like '%cancelled from ' || 'outside%') as cancelled")
                        > 0,
                () -> "The statement did not run");
        assertThat(probe.awaitEnd().error()).isInstanceOfSatisfying(R2dbcException.class, e -> {
            assertThat(e).isNotInstanceOf(ScopeTimeoutException.class);
            assertThat(e.getSqlState()).isEqualTo("57014");
        });
    }

    @Test
    void aStatementThatExceedsATimeoutOfTheCodesOwnDoesNot() {
        assertThatThrownBy(() -> pool.with(options -> options.withStatementTimeout(Duration.ofMillis(1)))
                        .withConnection(
                                c -> Mono.from(c.setStatementTimeout(SHORT)).thenMany(Rows.ints(c, SLEEP)))
                        .block(LONG))
                .isInstanceOf(R2dbcException.class)
                .isNotInstanceOf(ScopeTimeoutException.class);
    }

    private void whileLocked(Consumer<String> work) {
        String update = "update limited set n = n + 1 where id = 1";
        try (WatchedPool other = WatchedPool.of(1)) {
            other.scopes
                    .inTransaction(c -> Rows.update(c, update)
                            .then(Mono.fromRunnable(() -> work.accept(update))
                                    .subscribeOn(reactor.core.scheduler.Schedulers.boundedElastic())))
                    .block(LONG);
            other.assertWhole();
        }
        assertThat(Postgres.number("select n from limited")).isEqualTo(1);
    }

    @Test
    void aStatementThatWaitsTooLongForALockSaysSo() {
        whileLocked(update -> {
            assertThatThrownBy(() -> impatient
                            .withConnection(c -> Rows.update(c, update))
                            .block(LONG))
                    .satisfies(timeout(Limit.LOCK_WAIT, update, "55P03"));
            assertThatThrownBy(() ->
                            impatient.inTransaction(c -> Rows.update(c, update)).block(LONG))
                    .satisfies(timeout(Limit.LOCK_WAIT, update, "55P03"));
            assertThatThrownBy(() -> pool.with(options -> options.withLockWaitTimeout(LONG))
                            .transactions(TransactionOptions.defaults().withLockWaitTimeout(SHORT))
                            .inTransaction(c -> Rows.update(c, update))
                            .block(LONG))
                    .satisfies(timeout(Limit.LOCK_WAIT, update, "55P03"));
        });
    }

    @Test
    void aStatementThatWouldNotWaitForALockDoesNot() {
        String nowait = "with late as materialized (select 1 as id from pg_sleep(0.5))"
                + " select limited.n from limited join late using (id) for update of limited nowait";
        whileLocked(update -> assertThatThrownBy(
                        () -> impatient.inTransaction(c -> Rows.ints(c, nowait)).block(LONG))
                .isInstanceOfSatisfying(R2dbcException.class, e -> {
                    assertThat(e).isNotInstanceOf(ScopeTimeoutException.class);
                    assertThat(e.getSqlState()).isEqualTo("55P03");
                }));
    }

    @Test
    void aScopeThatHoldsItsConnectionTooLongRollsBack() {
        assertThatThrownBy(() -> pool.with(options -> options.withMaxHold(SHORT).withReleaseTimeout(LONG))
                        .inTransaction(c -> Rows.update(c, "insert into limited values (2, 0)")
                                .thenMany(Rows.ints(c, "select 1 from pg_sleep(1)")))
                        .block(LONG))
                .isInstanceOfSatisfying(ScopeTimeoutException.class, e -> {
                    assertThat(e.limit()).isEqualTo(Limit.HOLD);
                    assertThat(e.bound()).isEqualTo(SHORT);
                });
        assertThat(Postgres.number("select count(*) from limited")).isEqualTo(1);
    }

    @Test
    void aScopeThatWaitsForSomethingElseTooLongRollsBack() {
        assertThatThrownBy(() -> pool.with(options -> options.withMaxIdle(SHORT).withReleaseTimeout(LONG))
                        .inTransaction(c -> Rows.ints(c, "select 1 from pg_sleep(1)")
                                .thenMany(Rows.update(c, "insert into limited values (2, 0)"))
                                .then(Mono.never()))
                        .block(LONG))
                .isInstanceOfSatisfying(ScopeTimeoutException.class, e -> {
                    assertThat(e.limit()).isEqualTo(Limit.IDLE);
                    assertThat(e.state()).isEqualTo(ScopeState.IDLE);
                    assertThat(e).hasMessageContaining("started 2 statements");
                });
        assertThat(Postgres.number("select count(*) from limited")).isEqualTo(1);
    }

    @Test
    void aScopeWhoseSubscriberIsTooSlowIsEnded() {
        Probe<Integer> slow = Probe.requesting(5);
        pool.with(options -> options.withMaxIdle(SHORT).withReleaseTimeout(LONG))
                .inTransactionMany(c -> Rows.ints(c, "select generate_series(1, 10000)"))
                .subscribe(slow);
        assertThat(slow.awaitEnd().error()).isInstanceOfSatisfying(ScopeTimeoutException.class, e -> {
            assertThat(e.limit()).isEqualTo(Limit.IDLE);
            assertThat(e.state()).isEqualTo(ScopeState.BLOCKED_BY_DEMAND);
            assertThat(e.getSql()).isEqualTo("select generate_series(1, 10000)");
        });
        assertThat(slow.values()).containsExactly(1, 2, 3, 4, 5);
    }
}
