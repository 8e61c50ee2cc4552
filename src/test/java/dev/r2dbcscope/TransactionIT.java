package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** What becomes of a transaction, as another connection sees it. */
class TransactionIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table transfers (id int, constraint once unique (id) deferrable initially deferred)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate transfers");
    }

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private static long durable() {
        return Postgres.number("select count(*) from transfers");
    }

    private static Mono<Long> insert(Connection connection, int id) {
        return Rows.update(connection
                        .createStatement("insert into transfers values ($1)")
                        .bind(0, id))
                .next();
    }

    @Nested
    class OnComplete {

        @Test
        @Tag("lifecycle-2")
        void valueArrivesWhenTheRowIsVisibleToOthers() {
            List<Long> seen = Flux.range(0, 50)
                    .concatMap(id -> scopes.inTransaction(c -> insert(c, id))
                            .publishOn(Schedulers.boundedElastic())
                            .map(changed -> durable()))
                    .collectList()
                    .block(LONG);
            assertThat(seen).hasSize(50).startsWith(1L, 2L, 3L).endsWith(50L).isSorted();
        }

        @Test
        @Tag("lifecycle-3")
        void streamedValuesComeBeforeTheCommitAndTheCompletionAfterIt() throws Exception {
            CountDownLatch value = new CountDownLatch(1);
            Sinks.Empty<Long> rest = Sinks.empty();
            CompletableFuture<Void> completion = scopes.inTransactionMany(
                            c -> insert(c, 1).concatWith(rest.asMono()))
                    .doOnNext(changed -> value.countDown())
                    .then()
                    .toFuture();
            assertThat(value.await(60, TimeUnit.SECONDS)).isTrue();
            assertThat(durable()).isZero();
            assertThat(completion).isNotDone();
            rest.tryEmitEmpty();
            completion.get(60, TimeUnit.SECONDS);
            assertThat(durable()).isEqualTo(1);
        }

        @Test
        @Tag("lifecycle-2")
        void firstElementOfAMonoShapedScopeCommits() {
            Integer first = scopes.inTransaction(c -> insert(c, 1).thenMany(Flux.range(7, 100)))
                    .block(LONG);
            assertThat(first).isEqualTo(7);
            assertThat(durable()).isEqualTo(1);
            assertThat(pool.events(ScopeEvent.Released.class))
                    .singleElement()
                    .extracting(ScopeEvent.Released::outcome)
                    .isEqualTo(ScopeOutcome.COMPLETED);
        }

        @Test
        @Tag("lifecycle-2")
        @Tag("lifecycle-10")
        void deferredConstraintThatFailsAtCommitIsTheDriversOwnError() {
            AtomicInteger values = new AtomicInteger();
            assertThatThrownBy(() -> scopes.inTransaction(c -> insert(c, 1).then(insert(c, 1)))
                            .doOnNext(value -> values.incrementAndGet())
                            .block(LONG))
                    .isInstanceOfSatisfying(
                            R2dbcDataIntegrityViolationException.class,
                            e -> assertThat(e.getSqlState()).isEqualTo("23505"));
            assertThat(values).hasValue(0);
            assertThat(durable()).isZero();
        }

        @Test
        @Tag("lifecycle-3")
        void deferredConstraintThatFailsAtCommitIsAnErrorAfterTheStreamedValues() {
            AtomicInteger values = new AtomicInteger();
            assertThatThrownBy(() -> scopes.inTransactionMany(c -> insert(c, 1).concatWith(insert(c, 1)))
                            .doOnNext(value -> values.incrementAndGet())
                            .blockLast(LONG))
                    .isInstanceOf(R2dbcDataIntegrityViolationException.class);
            assertThat(values).hasValue(2);
            assertThat(durable()).isZero();
        }
    }

    @Nested
    class OnErrorAndCancel {

        @Test
        @Tag("lifecycle-8")
        void errorRollsBackAndComesThroughUnchanged() {
            IllegalStateException own = new IllegalStateException("own");
            assertThatThrownBy(() -> scopes.inTransaction(c -> insert(c, 1).then(Mono.error(own)))
                            .block(LONG))
                    .isSameAs(own);
            assertThat(durable()).isZero();
        }

        @Test
        @Tag("lifecycle-22")
        void cancelRollsBack() throws InterruptedException {
            CountDownLatch inserted = new CountDownLatch(1);
            Disposable subscription = scopes.inTransaction(c ->
                            insert(c, 1).doOnNext(n -> inserted.countDown()).then(Mono.never()))
                    .subscribe();
            assertThat(inserted.await(60, TimeUnit.SECONDS)).isTrue();
            subscription.dispose();
            pool.awaitQuiet();
            assertThat(durable()).isZero();
        }
    }

    @Nested
    class InsideAnotherScope {

        @Test
        @Tag("lifecycle-44")
        void transactionInATransactionJoinsIt() {
            scopes.inTransaction(outer -> insert(outer, 1)
                            .then(scopes.inTransaction(inner -> insert(inner, 2)))
                            .publishOn(Schedulers.boundedElastic())
                            .doOnNext(n -> assertThat(durable())
                                    .as("not committed yet")
                                    .isZero()))
                    .block(LONG);
            assertThat(durable()).isEqualTo(2);
            assertThat(pool.events(ScopeEvent.Opened.class)).hasSize(1);
        }

        @Test
        @Tag("lifecycle-44")
        void swallowedFailureOfAJoinedTransactionRollsTheWholeBack() {
            IllegalStateException own = new IllegalStateException("own");
            assertThatThrownBy(() -> scopes.inTransaction(outer -> insert(outer, 1)
                                    .then(scopes.inTransaction(
                                                    inner -> insert(inner, 2).then(Mono.<Long>error(own)))
                                            .onErrorReturn(0L)))
                            .block(LONG))
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasCause(own);
            assertThat(durable()).isZero();
        }

        @Test
        @Tag("lifecycle-44")
        void transactionInAPlainScopeCommitsOnTheSameConnection() {
            List<Integer> backends = scopes.withConnectionMany(outer -> Rows.ints(outer, "select pg_backend_pid()")
                            .concatWith(scopes.inTransactionMany(
                                    inner -> insert(inner, 1).thenMany(Rows.ints(inner, "select pg_backend_pid()"))))
                            .concatWith(Mono.fromCallable(() -> (int) durable())
                                    .subscribeOn(Schedulers.boundedElastic())
                                    .doOnNext(rows -> assertThat(rows)
                                            .as("committed before the outer scope ends")
                                            .isEqualTo(1))
                                    .thenMany(Rows.ints(outer, "select pg_backend_pid()"))))
                    .collectList()
                    .block(LONG);
            assertThat(backends).hasSize(3);
            assertThat(Integer.valueOf(backends.get(0)))
                    .isEqualTo(backends.get(1))
                    .isEqualTo(backends.get(2));
        }

        /** Every second transaction fails; had a sibling's INSERT become part of it, that would be gone too. */
        @Test
        @Tag("lifecycle-44")
        @Tag("lifecycle-48")
        void siblingsOnTheSameConnectionDoNotBecomePartOfIt() {
            int rows = 200;
            scopes.withConnectionMany(outer -> Rows.ints(outer, "select generate_series(1, " + rows + ")")
                            .flatMap(
                                    id -> Flux.merge(
                                            insert(outer, id),
                                            scopes.inTransaction(inner -> insert(inner, id + 10_000)
                                                            .then(insert(inner, id + 20_000))
                                                            .then(
                                                                    id % 2 == 0
                                                                            ? Mono.just(1L)
                                                                            : Mono.<Long>error(
                                                                                    new IllegalStateException("own"))))
                                                    .onErrorResume(IllegalStateException.class, e -> Mono.empty())),
                                    16))
                    .blockLast(LONG);
            assertThat(Postgres.number("select count(*) from transfers where id < 10000"))
                    .as("the siblings'")
                    .isEqualTo(rows);
            assertThat(Postgres.number("select count(*) from transfers where id > 10000"))
                    .as("the committed transactions'")
                    .isEqualTo(rows);
            assertThat(Postgres.number("select count(*) from transfers where id > 10000 and id % 2 = 1"))
                    .isZero();
        }
    }
}
