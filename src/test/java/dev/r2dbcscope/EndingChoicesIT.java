package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** The choices of how a transaction ends, as another connection sees the result. */
class EndingChoicesIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table choices (id int primary key, note text)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate choices");
    }

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private static long durable() {
        return Postgres.number("select count(*) from choices");
    }

    private static Mono<Long> insert(Connection connection, int id) {
        return Rows.update(connection
                        .createStatement("insert into choices values ($1)")
                        .bind(0, id))
                .next();
    }

    private ConnectionScopes onCancel(OnCancel choice) {
        return scopes.transactions(TransactionOptions.defaults().withOnCancel(choice));
    }

    private List<TransactionOutcome> outcomes() {
        return pool.events(ScopeEvent.Released.class).stream()
                .map(ScopeEvent.Released::transaction)
                .toList();
    }

    @Nested
    class RollbackOnly {

        @Test
        void ofTheOutermostScopeEndsWithItsValueAndNothingDurable() {
            Long changed = scopes.inTransaction(c -> insert(c, 1)
                            .flatMap(n -> CurrentScope.get()
                                    .doOnNext(CurrentScope::setRollbackOnly)
                                    .thenReturn(n)))
                    .block(LONG);

            assertThat(changed).isEqualTo(1);
            assertThat(durable()).isZero();
            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        @Test
        void ofAJoinedScopeIsAnErrorOfTheOutermost() {
            assertThatThrownBy(() -> scopes.inTransaction(c -> insert(c, 1)
                                    .then(scopes.inTransaction(
                                            d -> CurrentScope.get().doOnNext(CurrentScope::setRollbackOnly))))
                            .block(LONG))
                    .isInstanceOf(ScopeRolledBackException.class);
            assertThat(durable()).isZero();
        }

        @Test
        void ofASavepointUndoesThatPartOnly() {
            scopes.inTransaction(c -> insert(c, 1)
                            .then(scopes.transactions(Propagation.NESTED)
                                    .inTransaction(d -> insert(d, 2)
                                            .then(CurrentScope.get().doOnNext(CurrentScope::setRollbackOnly)))))
                    .block(LONG);

            assertThat(Postgres.number("select sum(id) from choices")).isEqualTo(1);
        }
    }

    @Nested
    class Hooks {

        @Test
        void afterCommitSeesTheRowAndCanUseAPoolOfOne() {
            AtomicReference<Long> seen = new AtomicReference<>();
            scopes.inTransaction(c -> insert(c, 1)
                            .then(CurrentScope.get())
                            .doOnNext(scope -> scope.afterCommit(Mono.fromCallable(EndingChoicesIT::durable)
                                    .subscribeOn(Schedulers.boundedElastic())
                                    .doOnNext(seen::set)
                                    .then(scopes.inTransaction(d -> insert(d, 2))))))
                    .block(LONG);

            assertThat(seen).hasValue(1L);
            assertThat(durable()).isEqualTo(2);
            assertThat(pool.events(ScopeEvent.HookFailed.class)).isEmpty();
        }

        @Test
        void afterRollbackRunsWhenAnErrorWasSwallowedAndTheCommitIsRefused() {
            AtomicInteger rolledBack = new AtomicInteger();
            assertThatThrownBy(() -> scopes.inTransaction(c -> CurrentScope.get()
                                    .doOnNext(scope -> {
                                        scope.afterCommit(Mono.fromRunnable(() -> rolledBack.set(-1)));
                                        scope.afterRollback(Mono.fromRunnable(rolledBack::incrementAndGet));
                                    })
                                    .then(insert(c, 1))
                                    .then(insert(c, 1).onErrorReturn(0L)))
                            .block(LONG))
                    .isInstanceOf(RuntimeException.class);

            assertThat(rolledBack).hasValue(1);
            assertThat(durable()).isZero();
            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }
    }

    @Nested
    class CommitOnCancel {

        @Test
        void makesNextSafeAfterAnInsert() {
            onCancel(OnCancel.COMMIT)
                    .inTransactionMany(c -> insert(c, 1).thenMany(Flux.range(1, 100)))
                    .next()
                    .block(LONG);

            pool.awaitQuiet();
            assertThat(durable()).isEqualTo(1);
            assertThat(outcomes()).containsExactly(TransactionOutcome.COMMITTED);
        }

        @Test
        void makesTakeSafeWhileALongResultIsRead() {
            Flux<Integer> rows = onCancel(OnCancel.COMMIT)
                    .inTransactionMany(c -> insert(c, 1).thenMany(Rows.ints(c, "select generate_series(1, 20000)")));

            assertThat(rows.take(100).count().block(LONG)).isEqualTo(100);
            pool.awaitQuiet();

            assertThat(durable()).isEqualTo(1);
            assertThat(outcomes()).containsExactly(TransactionOutcome.COMMITTED);
        }

        @Test
        void rollsBackWhileAStatementRuns() throws InterruptedException {
            CountDownLatch inserted = new CountDownLatch(1);
            Disposable subscription = onCancel(OnCancel.COMMIT)
                    .inTransactionMany(c -> insert(c, 1)
                            .doOnNext(n -> inserted.countDown())
                            .thenMany(Rows.ints(c, "select 1 from pg_sleep(0.3)")))
                    .subscribe();
            assertThat(inserted.await(60, TimeUnit.SECONDS)).isTrue();
            Await.until(
                    () -> scopes.live().stream()
                            .anyMatch(scope -> String.valueOf(scope.statement()).contains("pg_sleep")),
                    () -> "not running: " + scopes.live());
            subscription.dispose();

            pool.awaitQuiet();
            assertThat(durable()).isZero();
            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        /** Each transaction inserts pairs; a cancel at any moment leaves whole ones, and what the report says. */
        @Test
        void neverLeavesAnythingElseThanItReportsWhenTheCancelComesAtAnyMoment() {
            int trials = 400;
            for (int trial = 0; trial < trials; trial++) {
                pool.events.clear();
                int base = trial * 100;
                Disposable subscription = onCancel(OnCancel.COMMIT)
                        .inTransactionMany(c -> Flux.range(base, 10).concatMap(id -> insert(c, id)))
                        .subscribe(n -> {}, e -> {});
                long until = System.nanoTime() + ThreadLocalRandom.current().nextLong(6_000_000);
                while (System.nanoTime() < until) {
                    Thread.onSpinWait();
                }
                subscription.dispose();
                pool.awaitQuiet();
                Await.until(
                        () -> !pool.events(ScopeEvent.Released.class).isEmpty()
                                || !pool.events(ScopeEvent.OpenFailed.class).isEmpty(),
                        () -> "no last event: " + pool.events);
                long answered = pool.events(ScopeEvent.StatementEnded.class).size();
                long expected = outcomes().contains(TransactionOutcome.COMMITTED) ? answered : 0;
                assertThat(Postgres.number(
                                "select count(*) from choices where id between " + base + " and " + (base + 99)))
                        .as("trial %s: %s", trial, pool.events)
                        .isEqualTo(expected);
            }
        }
    }

    @Nested
    class CompleteOnCancel {

        @Test
        void finishesTheWorkOfAClientThatHungUp() throws InterruptedException {
            CountDownLatch inserted = new CountDownLatch(1);
            Sinks.Empty<Long> rest = Sinks.empty();
            Disposable subscription = onCancel(OnCancel.COMPLETE)
                    .inTransaction(c -> insert(c, 1)
                            .doOnNext(n -> inserted.countDown())
                            .then(rest.asMono())
                            .then(insert(c, 2)))
                    .subscribe();
            assertThat(inserted.await(60, TimeUnit.SECONDS)).isTrue();
            subscription.dispose();
            assertThat(scopes.live()).hasSize(1);
            rest.tryEmitEmpty();

            pool.awaitQuiet();
            assertThat(durable()).isEqualTo(2);
            assertThat(pool.events(ScopeEvent.Detached.class)).hasSize(1);
            assertThat(outcomes()).containsExactly(TransactionOutcome.COMMITTED);
        }
    }

    @Nested
    class Bridges {

        @Test
        void keepTheConnectionForAFutureAfterTheCancel() throws Exception {
            CountDownLatch started = new CountDownLatch(1);
            CompletableFuture<Void> go = new CompletableFuture<>();
            CompletableFuture<Long> seen = new CompletableFuture<>();
            Disposable subscription = scopes.inTransaction(ScopeBridge.<Long>stage(c -> {
                        started.countDown();
                        return go.thenCompose(ignored -> insert(c, 1)
                                        .then(Mono.from(Rows.ints(c, "select count(*)::int from choices")))
                                        .map(Integer::longValue)
                                        .toFuture())
                                .whenComplete((value, error) -> {
                                    if (error == null) {
                                        seen.complete(value);
                                    } else {
                                        seen.completeExceptionally(error);
                                    }
                                });
                    }))
                    .subscribe();
            assertThat(started.await(60, TimeUnit.SECONDS)).isTrue();
            subscription.dispose();
            go.complete(null);

            assertThat(seen.get(60, TimeUnit.SECONDS))
                    .as("in its own transaction")
                    .isEqualTo(1);
            pool.awaitQuiet();
            assertThat(durable()).isZero();
            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        @Test
        void commitWhatAFutureDid() {
            Long changed = scopes.inTransaction(
                            ScopeBridge.<Long>stage(c -> insert(c, 1).toFuture()))
                    .block(LONG);

            assertThat(changed).isEqualTo(1);
            assertThat(durable()).isEqualTo(1);
        }
    }
}
