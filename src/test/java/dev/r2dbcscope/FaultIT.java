package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.io.IOException;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.time.Duration;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The server ends a connection, or the network does, at every moment of a scope's life. */
class FaultIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    /** Each way in which both directions can be lost. */
    @Retention(RetentionPolicy.RUNTIME)
    @EnumSource(
            value = NetworkFault.class,
            names = {"CUT", "RESET", "HALF_OPEN", "BLACK_HOLE"})
    private @interface EveryLoss {}

    private final FaultyProxy network = Postgres.network();
    private final WatchedPool pool = WatchedPool.to(
            2,
            server -> server.host("127.0.0.1").port(network.port()),
            options -> options.withReleaseTimeout(Duration.ofMillis(500)).withAcquireTimeout(Duration.ofSeconds(2)));
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeAll
    static void createTables() {
        Postgres.execute("create table faults (id int)");
        Postgres.execute("create function doze() returns trigger language plpgsql as"
                + " $$ begin perform pg_sleep(60); return null; end $$");
        Postgres.execute("create table slow_commits (id int)");
        Postgres.execute("create constraint trigger doze after insert on slow_commits deferrable initially deferred"
                + " for each row execute function doze()");
    }

    @AfterEach
    void thePoolIsBackAtFullSize() throws IOException {
        pool.awaitQuiet();
        network.heal();
        Await.until(() -> pool.inState("%in transaction%") == 0, () -> "the server still has a transaction open");
        pool.assertWhole();
        pool.close();
        network.close();
    }

    /** Runs something that must fail, with an error and not by a test's patience. */
    private static void assertFails(Flux<?> scope) {
        assertThatThrownBy(() -> scope.blockLast(LONG))
                .isInstanceOf(Exception.class)
                .hasMessageNotContaining("Timeout on blocking read");
    }

    private void assertOneWasDestroyed() {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isEqualTo(1);
    }

    /** Outside a transaction the exit has nothing to send, so it may be the pool that finds the connection dead. */
    private void assertDestroyed(boolean transactional) {
        if (transactional) {
            assertOneWasDestroyed();
        }
        pool.awaitQuiet();
        Await.until(() -> pool.backends().isEmpty(), () -> "still there: " + pool.backends());
    }

    /** Nothing persuades it to retry an unknown outcome. */
    private static ConnectionScopes retryingAnything(ConnectionScopes scopes) {
        return scopes.transactions(TransactionOptions.defaults()
                .withRetry(RetryPolicy.serialization(3).alsoOn(error -> true)));
    }

    private Flux<Integer> scope(boolean transactional, Function<Connection, Flux<Integer>> body) {
        return transactional ? scopes.inTransactionMany(body) : scopes.withConnectionMany(body);
    }

    private static void awaitRunning(String query, long count) {
        Await.until(
                () -> Postgres.number("select count(*) from pg_stat_activity where state = 'active'"
                                + " and pid <> pg_backend_pid() and query like '%" + query + "%'")
                        == count,
                () -> "not " + count + " running: " + query);
    }

    @Nested
    class TheServerEndsTheBackend {

        @Test
        @Tag("lifecycle-62")
        void whileTheConnectionIsIdleInThePool() {
            pool.assertWhole();
            pool.terminateBackends();
            // whether the pool has noticed yet is a race: an error is allowed, a hang and a lost connection are not
            scopes.withConnectionMany(c -> Rows.ints(c, "select 1"))
                    .onErrorResume(e -> Flux.empty())
                    .blockLast(LONG);
            Await.until(() -> pool.backends().size() <= 1, () -> "backends still there: " + pool.backends());
            assertThat(pool.inState("idle in transaction%")).isZero();
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        @Tag("lifecycle-62")
        void beforeTheFirstRow(boolean transactional) {
            Mono<Void> killer = Mono.fromRunnable(() -> {
                awaitRunning("pg_sleep(59)", 1);
                pool.terminateBackends();
            });
            Thread thread = new Thread(killer::block);
            thread.start();
            assertThatThrownBy(() -> scope(transactional, c -> Rows.ints(c, "select 1 from pg_sleep(59)"))
                            .blockLast(LONG))
                    .isInstanceOf(R2dbcException.class)
                    .satisfies(
                            e -> assertThat(((R2dbcException) e).getSqlState()).isEqualTo("57P01"));
            assertDestroyed(transactional);
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        @Tag("lifecycle-62")
        void midStream(boolean transactional) {
            AtomicInteger rows = new AtomicInteger();
            assertFails(scope(transactional, c -> Rows.ints(c, "select generate_series(1, 10000000)"))
                    .doOnNext(row -> rows.incrementAndGet())
                    .limitRate(16)
                    .concatMap(row -> row == 500 ? kill().thenReturn(row) : Mono.just(row)));
            assertThat(rows).hasValueLessThan(10_000_000);
            assertDestroyed(transactional);
        }

        private Mono<Void> kill() {
            return Mono.<Void>fromRunnable(pool::terminateBackends)
                    .subscribeOn(reactor.core.scheduler.Schedulers.boundedElastic());
        }

        @Test
        @Tag("lifecycle-62")
        @Tag("lifecycle-63")
        void duringCommit() {
            Thread killer = new Thread(() -> {
                awaitRunning("COMMIT", 1);
                pool.terminateBackends();
            });
            killer.start();
            AtomicInteger attempts = new AtomicInteger();
            assertThatThrownBy(() -> retryingAnything(pool.with(options -> options.withReleaseTimeout(LONG)))
                            .inTransaction(c -> Rows.update(c, "insert into slow_commits values (1)")
                                    .doOnNext(inserted -> attempts.incrementAndGet()))
                            .block(LONG))
                    .isInstanceOf(CommitOutcomeUnknownException.class)
                    .hasCauseInstanceOf(R2dbcException.class);
            assertThat(attempts).hasValue(1);
            assertOneWasDestroyed();
            assertThat(Postgres.number("select count(*) from slow_commits")).isZero();
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        @Tag("lifecycle-62")
        void betweenTheLastStatementAndTheRelease(boolean transactional) {
            Flux<Integer> scope = scope(
                    transactional,
                    c -> Rows.ints(c, "select 1")
                            .concatWith(kill().then(Mono.<Integer>fromRunnable(() ->
                                            Await.until(() -> pool.backends().isEmpty(), () -> "still there"))
                                    .subscribeOn(reactor.core.scheduler.Schedulers.boundedElastic()))));
            if (transactional) {
                assertFails(scope);
            } else {
                assertThat(scope.collectList().block(LONG)).containsExactly(1);
            }
            pool.awaitQuiet();
        }
    }

    @Nested
    class TheNetworkFails {

        @Test
        @Tag("lifecycle-62")
        void withACutWhileAConnectionIsOpened() {
            Mono<Void> struck = network.strikeWhen(NetworkTrigger.clientSends("user"), NetworkFault.CUT);
            // r2dbc-pool tries once more
            assertThat(scopes.withConnectionMany(c -> Rows.ints(c, "select 1"))
                            .collectList()
                            .block(LONG))
                    .containsExactly(1);
            struck.block(LONG);
        }

        @Test
        @Tag("lifecycle-62")
        @Tag("lifecycle-57")
        void withSilenceWhileAConnectionIsOpened() {
            Mono<Void> struck = network.strikeWhen(NetworkTrigger.clientSends("user"), NetworkFault.BLACK_HOLE);
            assertThatThrownBy(() -> scopes.withConnectionMany(c -> Rows.ints(c, "select 1"))
                            .blockLast(LONG))
                    .isInstanceOf(ScopeAcquisitionException.class);
            struck.block(LONG);
            network.heal();
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        @Tag("lifecycle-54")
        void duringBegin(NetworkFault fault) {
            pool.assertWhole();
            network.strikeWhen(NetworkTrigger.clientSends("BEGIN"), fault);
            assertFails(scopes.inTransactionMany(c -> Rows.ints(c, "select 1")));
            pool.awaitQuiet();
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        void duringAStatement(NetworkFault fault) {
            for (boolean transactional : new boolean[] {false, true}) {
                network.strikeWhen(NetworkTrigger.clientSends("select 77"), fault);
                assertFails(scope(transactional, c -> Rows.ints(c, "select 77").timeout(Duration.ofSeconds(1))));
            }
            pool.awaitQuiet();
            assertThat(pool.destroyed()).isEqualTo(2);
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        void midStream(NetworkFault fault) {
            assertFails(scopes.inTransactionMany(c -> Rows.ints(c, "select 1")
                    .doOnNext(one -> network.strikeWhen(NetworkTrigger.afterServerBytes(100_000), fault))
                    .thenMany(Rows.ints(c, "select generate_series(1, 10000000)"))
                    .timeout(Duration.ofSeconds(1))));
            assertOneWasDestroyed();
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        @Tag("lifecycle-63")
        void duringCommit(NetworkFault fault) {
            long before = Postgres.number("select count(*) from faults");
            assertOutcomeUnknown(() -> network.strikeWhen(NetworkTrigger.clientSends("COMMIT"), fault));
            assertThat(Postgres.number("select count(*) from faults")).isEqualTo(before);
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        @Tag("lifecycle-63")
        void beforeTheAnswerToCommitArrives(NetworkFault fault) {
            long before = Postgres.number("select count(*) from faults");
            assertOutcomeUnknown(() -> network.strikeWhen(NetworkTrigger.afterServerBytes(0), fault));
            assertThat(Postgres.number("select count(*) from faults"))
                    .as("committed, and once")
                    .isEqualTo(before + 1);
        }

        private void assertOutcomeUnknown(Runnable fault) {
            AtomicInteger attempts = new AtomicInteger();
            assertThatThrownBy(() -> retryingAnything(scopes)
                            .inTransaction(c -> Rows.update(c, "insert into faults values (1)")
                                    .then()
                                    .doOnSuccess(inserted -> {
                                        attempts.incrementAndGet();
                                        fault.run();
                                    }))
                            .block(LONG))
                    .isInstanceOf(CommitOutcomeUnknownException.class);
            assertThat(attempts).hasValue(1);
            assertOneWasDestroyed();
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        void duringRollback(NetworkFault fault) {
            network.strikeWhen(NetworkTrigger.clientSends("ROLLBACK"), fault);
            assertThatThrownBy(() -> scopes.inTransactionMany(c -> Rows.update(c, "insert into faults values (1)")
                                    .thenMany(Flux.error(new TimeoutException("the user's"))))
                            .blockLast(LONG))
                    .hasMessageContaining("the user's");
            assertOneWasDestroyed();
        }

        @ParameterizedTest
        @EveryLoss
        @Tag("lifecycle-62")
        void beforeACancel(NetworkFault fault) {
            Mono<Void> struck = network.strikeWhen(NetworkTrigger.clientSends("select 78"), fault);
            Disposable subscription = scopes.inTransactionMany(
                            c -> Rows.ints(c, "select 78").onErrorResume(e -> Flux.never()))
                    .subscribe();
            struck.block(LONG);
            subscription.dispose();
            assertOneWasDestroyed();
        }
    }
}
