package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** Advisory locks: how long each kind is held, and that none is left behind. */
class AdvisoryLockIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int CANCELS = Integer.getInteger("lockCancels", 300);
    private static final AtomicInteger KEYS = new AtomicInteger(1_000);

    @RegisterExtension
    private final LogCapture log = new LogCapture();

    private final WatchedPool pool = WatchedPool.of(3);
    private final ConnectionScopes scopes = pool.scopes;
    private final int key = KEYS.incrementAndGet();
    private final AdvisoryLock lock = AdvisoryLock.of(key);

    @AfterEach
    void nothingIsHeld() {
        pool.awaitQuiet();
        assertThat(held(key)).isZero();
        pool.assertWhole();
        pool.close();
    }

    /** How many backends hold a lock on the number, or wait for one. */
    private static long held(long key) {
        return Postgres.number("select count(*) from pg_locks where locktype = 'advisory' and objid = " + key);
    }

    private static long waiting(long key) {
        return Postgres.number(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted and objid = " + key);
    }

    private Mono<Long> seen() {
        return Mono.fromCallable(() -> held(key)).subscribeOn(Schedulers.boundedElastic());
    }

    private boolean isFree() {
        return Boolean.TRUE.equals(scopes.withConnection(lock::tryAcquire).block(LONG));
    }

    /** Runs something while another scope holds the lock. */
    private void whileHeldElsewhere(AdvisoryLock other, Runnable task) {
        AtomicReference<Boolean> holds = new AtomicReference<>(false);
        Disposable holder = scopes.withConnection(c ->
                        other.acquire(c).doOnSuccess(done -> holds.set(true)).then(Mono.never()))
                .subscribe();
        Await.until(holds::get, () -> "not acquired");
        try {
            task.run();
        } finally {
            holder.dispose();
        }
    }

    private static <T> T failure(Supplier<Mono<?>> work, Class<T> type) {
        AtomicReference<Throwable> error = new AtomicReference<>();
        work.get()
                .onErrorResume(e -> {
                    error.set(e);
                    return Mono.empty();
                })
                .block(LONG);
        assertThat(error.get()).isInstanceOf(type);
        return type.cast(error.get());
    }

    @Nested
    class OfTheSessionLevel {

        @Test
        void isHeldUntilTheScopeEndsAndReleasedBeforeTheConnectionGoesBack() {
            assertThat(scopes.withConnection(c -> lock.acquire(c).then(seen())).block(LONG))
                    .isEqualTo(1);
            assertThat(held(key)).isZero();
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void isHeldUntilTheTransactionThatAcquiredItHasCommitted() {
            Postgres.execute("create table if not exists locked_work (key int)");
            AtomicReference<Long> rowsWhenFree = new AtomicReference<>();
            scopes.inTransaction(c -> lock.acquire(c)
                            .thenMany(Rows.update(c, "insert into locked_work values (" + key + ")"))
                            .then(Mono.fromRunnable(() -> scopes.withConnection(other -> lock.acquire(other)
                                            .thenMany(Rows.ints(
                                                    other, "select count(*)::int from locked_work where key = " + key))
                                            .next())
                                    .subscribe(rows -> rowsWhenFree.set((long) rows))))
                            .then(Mono.fromRunnable(() -> Await.until(() -> waiting(key) == 1, () -> "no one waits"))
                                    .subscribeOn(Schedulers.boundedElastic())))
                    .block(LONG);
            Await.until(() -> rowsWhenFree.get() != null, () -> "the other never got the lock");
            assertThat(rowsWhenFree.get()).isEqualTo(1);
        }

        @Test
        void isReleasedAfterARollback() {
            failure(
                    () -> scopes.inTransaction(c -> lock.acquire(c)
                            .thenMany(Rows.ints(c, "select 1 / 0"))
                            .then()),
                    R2dbcException.class);
            assertThat(held(key)).isZero();
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void isNotGivenToASecondScope() {
            whileHeldElsewhere(lock, () -> assertThat(isFree()).isFalse());
            Await.until(AdvisoryLockIT.this::isFree, () -> "still held");
        }

        @Test
        void sharedFormsAreHeldTogetherAndKeepTheExclusiveOneOut() {
            whileHeldElsewhere(lock.shared(), () -> {
                assertThat(scopes.withConnection(lock.shared()::tryAcquire).block(LONG))
                        .isTrue();
                assertThat(isFree()).isFalse();
            });
        }

        @Test
        void countsHowOftenItWasAcquired() {
            List<Long> counts = scopes.withConnection(c -> lock.acquire(c)
                            .then(lock.acquire(c))
                            .then(lock.release(c))
                            .then(seen())
                            .flatMap(first -> lock.release(c).then(seen()).map(second -> List.of(first, second))))
                    .block(LONG);
            assertThat(counts).containsExactly(1L, 0L);
        }

        @Test
        void manyAcquisitionsAreAllReleasedAtTheEnd() {
            scopes.withConnection(c -> Flux.range(0, 50)
                            .concatMap(i -> i % 2 == 0 ? lock.acquire(c) : lock.tryAcquire(c))
                            .then())
                    .block(LONG);
            assertThat(held(key)).isZero();
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void releasingWhatTheScopeDoesNotHoldSendsNothing() {
            assertThat(scopes.withConnection(lock::release).block(LONG)).isFalse();
        }

        @Test
        void anInnerTransactionLeavesTheLockOfTheScopeAroundIt() {
            long within = scopes.withConnection(c -> lock.acquire(c)
                            .then(scopes.inTransaction(
                                    t -> lock.acquire(t).then(lock.acquire(t)).thenReturn(1)))
                            .then(seen()))
                    .blockOptional(LONG)
                    .orElseThrow();
            assertThat(within).isEqualTo(1);
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void inASavepointItIsReleasedAtTheSavepointsEnd() {
            ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
            List<Long> counts = scopes.inTransaction(c -> nested.inTransaction(
                                    s -> lock.acquire(s).then(seen()))
                            .flatMap(inside -> nested.inTransaction(s -> lock.acquire(s)
                                            .thenMany(Rows.ints(s, "select 1 / 0"))
                                            .then())
                                    .onErrorComplete()
                                    .then(seen())
                                    .map(after -> List.of(inside, after))))
                    .block(LONG);
            assertThat(counts).containsExactly(1L, 0L);
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void isNeededToBeOfAScope() {
            assertThatThrownBy(() -> pool.borrow(c -> lock.acquire(c).flux()))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("withConnection");
        }

        @Test
        void isReleasedWithTheConnectionIfItsRequestFailedAndTheLockIsHeldAllTheSame() {
            failure(
                    () -> scopes.inTransaction(c -> Rows.ints(c, "select 1 from pg_advisory_lock(" + key + ")")
                            .thenMany(Rows.ints(c, "select 1 / 0"))
                            .onErrorComplete()
                            .then(lock.acquire(c))),
                    R2dbcException.class);
            pool.awaitQuiet();
            assertThat(pool.destroyed()).isEqualTo(1);
            Await.until(() -> held(key) == 0, () -> "still held");
            assertThat(log.lines()).hasSize(1).first().asString().contains("destroyed");
        }

        @Test
        void keepsTheConnectionIfItsRequestFailedAndTheLockIsNotHeld() {
            failure(
                    () -> scopes.inTransaction(
                            c -> Rows.ints(c, "select 1 / 0").onErrorComplete().then(lock.acquire(c))),
                    R2dbcException.class);
            pool.awaitQuiet();
            assertThat(pool.destroyed()).isZero();
        }
    }

    @Nested
    class OfTheTransactionLevel {

        private final AdvisoryLock local = lock.forTransaction();

        @Test
        void isRefusedOutsideATransaction() {
            TransactionRequiredException refused =
                    failure(() -> scopes.withConnection(local::acquire), TransactionRequiredException.class);
            assertThat(refused).hasMessageContaining("pg_advisory_xact_lock").hasMessageContaining("inTransaction");
            failure(() -> scopes.withConnection(local::tryAcquire), TransactionRequiredException.class);
            assertThat(scopes.withConnection(c -> local.acquire(c)
                                    .onErrorComplete()
                                    .thenMany(Rows.ints(c, "select 7"))
                                    .next())
                            .block(LONG))
                    .isEqualTo(7);
        }

        @Test
        void isTakenInATransactionThatCodeBeganByTheSpi() {
            scopes.withConnection(c -> Mono.from(c.beginTransaction())
                            .then(local.acquire(c))
                            .then(Mono.from(c.commitTransaction())))
                    .block(LONG);
            assertThat(held(key)).isZero();
        }

        @Test
        void isReleasedByTheEndOfTheTransaction() {
            assertThat(scopes.inTransaction(c -> local.acquire(c).then(seen())).block(LONG))
                    .isEqualTo(1);
            assertThat(held(key)).isZero();
        }

        @Test
        void isHeldBeyondASavepointThatWasKeptAndNotBeyondOneThatWasRolledBackTo() {
            ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
            AdvisoryLock kept = AdvisoryLock.of(-key).forTransaction();
            List<Long> counts = scopes.inTransaction(c -> nested.inTransaction(local::tryAcquire)
                            .then(nested.inTransaction(
                                            s -> kept.acquire(s).then(Mono.error(new IllegalStateException())))
                                    .onErrorComplete(IllegalStateException.class))
                            .then(seen())
                            .zipWith(
                                    Mono.fromCallable(() -> held((-key) & 0xFFFF_FFFFL))
                                            .subscribeOn(Schedulers.boundedElastic()),
                                    List::of))
                    .block(LONG);
            assertThat(counts).containsExactly(1L, 0L);
        }

        @Test
        void cannotBeReleasedEarly() {
            assertThatThrownBy(() -> scopes.inTransaction(local::release).block(LONG))
                    .isInstanceOf(IllegalStateException.class);
        }
    }

    @Nested
    class TheWait {

        @Test
        void isBoundedByTheLockWaitTimeout() {
            ConnectionScopes impatient = pool.with(o -> o.withLockWaitTimeout(Duration.ofMillis(200)));
            whileHeldElsewhere(lock, () -> {
                ScopeTimeoutException plain =
                        failure(() -> impatient.withConnection(lock::acquire), ScopeTimeoutException.class);
                assertThat(plain.limit()).isEqualTo(ScopeTimeoutException.Limit.LOCK_WAIT);
                failure(() -> impatient.inTransaction(lock.forTransaction()::acquire), ScopeTimeoutException.class);
            });
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void thatIsCancelledLeavesNothingHeldAndTheScopeUsable() {
            whileHeldElsewhere(lock, () -> {
                AtomicReference<Integer> after = new AtomicReference<>();
                scopes.withConnection(c -> {
                            Disposable wait = lock.acquire(c).subscribe();
                            return Mono.fromRunnable(() -> Await.until(() -> waiting(key) == 1, () -> "no wait"))
                                    .subscribeOn(Schedulers.boundedElastic())
                                    .doOnTerminate(wait::dispose)
                                    .thenMany(Rows.ints(c, "select 5"))
                                    .next()
                                    .doOnNext(after::set);
                        })
                        .block(LONG);
                assertThat(after.get()).isEqualTo(5);
                assertThat(held(key)).isEqualTo(1);
            });
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void thatIsCancelledInATransactionThatGoesOnIsWaitedForAndDoesNotAbortIt() {
            AtomicReference<Boolean> holds = new AtomicReference<>(false);
            Disposable holder = scopes.withConnection(c ->
                            lock.acquire(c).doOnSuccess(done -> holds.set(true)).then(Mono.never()))
                    .subscribe();
            Await.until(holds::get, () -> "not acquired");
            Integer after = scopes.inTransaction(c -> {
                        Disposable wait = lock.acquire(c).subscribe();
                        return Mono.fromRunnable(() -> Await.until(() -> waiting(key) == 1, () -> "no wait"))
                                .subscribeOn(Schedulers.boundedElastic())
                                .doOnTerminate(() -> {
                                    wait.dispose();
                                    holder.dispose();
                                })
                                .thenMany(Rows.ints(c, "select 6"))
                                .next();
                    })
                    .block(LONG);
            assertThat(after).isEqualTo(6);
            assertThat(held(key)).isZero();
            pool.awaitQuiet();
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void thatIsEndedWithItsScopeFreesTheConnectionAtOnce() {
            whileHeldElsewhere(lock, () -> {
                Disposable plain = scopes.withConnection(lock::acquire).subscribe();
                Disposable transaction =
                        scopes.inTransaction(lock.forTransaction()::acquire).subscribe();
                Await.until(() -> waiting(key) == 2, () -> "no wait");
                plain.dispose();
                transaction.dispose();
                Await.until(() -> scopes.live().size() == 1, () -> "still live: " + scopes.live());
            });
            pool.awaitQuiet();
            assertThat(pool.destroyed()).isZero();
        }

        /**
         * The holder lets go at the same time, so that some of those who are cancelled have got the lock. One that was got and whose statement
         * was cancelled all the same is released with its connection.
         */
        @Test
        void thatIsCancelledWhileTheLockBecomesFreeNeverLeavesItHeld() {
            for (int i = 0; i < CANCELS; i++) {
                AtomicReference<Boolean> holds = new AtomicReference<>(false);
                Disposable holder = scopes.withConnection(c -> lock.acquire(c)
                                .doOnSuccess(done -> holds.set(true))
                                .then(Mono.never()))
                        .subscribe();
                Await.until(holds::get, () -> "not acquired");
                Disposable waiter = scopes.withConnection(c -> lock.acquire(c).then(Mono.never()))
                        .subscribe();
                long pause = ThreadLocalRandom.current().nextLong(3_000_000);
                LockSupport.parkNanos(pause);
                if (i % 2 == 0) {
                    holder.dispose();
                    waiter.dispose();
                } else {
                    waiter.dispose();
                    holder.dispose();
                }
                if (i % 20 == 0) {
                    pool.awaitQuiet();
                    assertThat(held(key)).isZero();
                }
            }
            pool.awaitQuiet();
            assertThat(held(key)).isZero();
            assertThat(pool.events(ScopeEvent.ReleaseFailed.class))
                    .hasSize((int) pool.destroyed())
                    .hasSizeLessThan(CANCELS / 4)
                    .allSatisfy(failed -> assertThat(failed.error()).hasMessageContaining("but the lock is held"));
        }

        @Test
        void thatDeadlocksFailsWithTheDatabasesOwnError() {
            AdvisoryLock other = AdvisoryLock.of(key, 1);
            AtomicInteger first = new AtomicInteger();
            List<String> ends = Flux.just(List.of(lock, other), List.of(other, lock))
                    .flatMap(order -> scopes.withConnection(c -> order.get(0)
                            .acquire(c)
                            .doOnSuccess(done -> first.incrementAndGet())
                            .then(Mono.fromRunnable(() -> Await.until(() -> first.get() == 2, () -> "no rival"))
                                    .subscribeOn(Schedulers.boundedElastic()))
                            .then(order.get(1).acquire(c))
                            .thenReturn("acquired")
                            .onErrorResume(R2dbcException.class, e -> Mono.just(String.valueOf(e.getSqlState())))))
                    .collectList()
                    .block(LONG);
            assertThat(ends).containsExactlyInAnyOrder("40P01", "acquired");
            assertThat(pool.destroyed()).isZero();
        }
    }

    @Nested
    class During {

        @Test
        void isHeldForTheLengthOfTheFunctionAlone() {
            List<Long> counts = scopes.withConnection(
                            c -> lock.during(scopes, held -> seen()).zipWhen(inside -> seen(), List::of))
                    .block(LONG);
            assertThat(counts).containsExactly(1L, 0L);
        }

        @Test
        void emitsAllElementsAndIsHeldMeanwhile() {
            List<Long> counts = lock.duringMany(scopes, c -> Flux.range(0, 3).concatMap(i -> seen()))
                    .collectList()
                    .block(LONG);
            assertThat(counts).containsExactly(1L, 1L, 1L);
        }

        @Test
        void isReleasedWhenTheFunctionFailsOrItsSubscriberCancels() {
            failure(
                    () -> lock.duringMany(scopes, c -> Flux.error(new IllegalStateException()))
                            .then(),
                    IllegalStateException.class);
            assertThat(lock.duringMany(scopes, c -> Flux.range(0, 100))
                            .take(2)
                            .collectList()
                            .block(LONG))
                    .containsExactly(0, 1);
            pool.awaitQuiet();
            assertThat(held(key)).isZero();
            assertThat(pool.destroyed()).isZero();
        }

        @Test
        void isATransactionForALockOfThatLevel() {
            Connection[] used = new Connection[1];
            AdvisoryLock local = lock.forTransaction();
            assertThat(local.during(scopes, c -> {
                                used[0] = c;
                                return seen().filter(n -> !c.isAutoCommit());
                            })
                            .block(LONG))
                    .isEqualTo(1);
            assertThat(local.duringMany(scopes, c -> Flux.just(!c.isAutoCommit()))
                            .blockLast(LONG))
                    .isTrue();
        }

        @Test
        void letsTheTransactionInsideCommitBeforeItIsReleased() {
            assertThat(lock.during(scopes, c -> scopes.inTransaction(t -> seen()))
                            .block(LONG))
                    .isEqualTo(1);
        }

        @Test
        void namesTheCallerAsTheOrigin() {
            String origin = scopes.live().toString();
            Mono<String> during = lock.during(scopes, c -> CurrentScope.get().map(CurrentScope::origin));
            assertThat(during.block(LONG)).contains("AdvisoryLockIT");
            assertThat(origin).isEqualTo("[]");
        }
    }

    @Nested
    class TheKey {

        @Test
        void ofATextIsTheStartOfItsDigestAsSqlComputesIt() {
            for (String text : List.of("", "nightly report", "täglich \uD83D\uDE80", "x".repeat(10_000))) {
                boolean same = Boolean.TRUE.equals(scopes.withConnection(c -> AdvisoryLock.of(text)
                                .acquire(c)
                                .thenMany(Flux.from(c.createStatement(
                                                "select exists (select from pg_locks, lateral (select ('x' || encode("
                                                        + "substring(sha256(convert_to($1, 'UTF8')) for 8), 'hex'))"
                                                        + "::bit(64)::bigint as key) t where locktype = 'advisory'"
                                                        + " and pid = pg_backend_pid() and objsubid = 1"
                                                        + " and (classid::bigint << 32 | objid::bigint) = key)")
                                        .bind(0, text)
                                        .execute()))
                                .flatMap(result -> result.map(row -> row.get(0, Boolean.class)))
                                .next())
                        .block(LONG));
                assertThat(same).as(text).isTrue();
            }
        }

        @Test
        void maybeAnyNumberOrPairOfNumbersAndIsFoundAgainAfterAFailedRequest() {
            List<AdvisoryLock> locks = List.of(
                    AdvisoryLock.of(Long.MIN_VALUE),
                    AdvisoryLock.of(-1),
                    AdvisoryLock.of(Long.MAX_VALUE).shared(),
                    AdvisoryLock.of(Integer.MIN_VALUE, -1),
                    AdvisoryLock.of(-7, Integer.MAX_VALUE).shared());
            List<String> raw = List.of(
                    "pg_advisory_lock(" + Long.MIN_VALUE + ")",
                    "pg_advisory_lock(-1)",
                    "pg_advisory_lock_shared(" + Long.MAX_VALUE + ")",
                    "pg_advisory_lock(" + Integer.MIN_VALUE + ", -1)",
                    "pg_advisory_lock_shared(-7, " + Integer.MAX_VALUE + ")");
            for (int i = 0; i < locks.size(); i++) {
                AdvisoryLock each = locks.get(i);
                String function = raw.get(i);
                failure(
                        () -> scopes.inTransaction(c -> Rows.ints(c, "select 1 from " + function)
                                .thenMany(Rows.ints(c, "select 1 / 0"))
                                .onErrorComplete()
                                .then(each.acquire(c))),
                        R2dbcException.class);
                pool.awaitQuiet();
                assertThat(pool.destroyed()).as(function).isEqualTo(i + 1);
                scopes.withConnection(c -> each.acquire(c).then(each.release(c)))
                        .block(LONG);
            }
        }
    }
}
