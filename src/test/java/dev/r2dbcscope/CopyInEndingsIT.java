package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.CopyFormat;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** A COPY ends with its scope, whatever ends that, and takes no more from its source than the server takes from it. */
class CopyInEndingsIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private static final CopyIn<Integer> ROWS = CopyIn.<Integer>into("ended")
            .column("id", CopyType.INTEGER, i -> i)
            .column("note", CopyType.TEXT, i -> "note " + i);

    private final WatchedPool pool = WatchedPool.of(2, options -> options.withReleaseTimeout(Duration.ofSeconds(20)));

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists ended");
        Postgres.execute("create table ended (id int primary key, note text not null)");
    }

    @AfterEach
    void poolIsWhole() {
        pool.assertWhole();
        pool.close();
    }

    private static long count() {
        return Postgres.number("select count(*) from ended");
    }

    /** Rows without end, some of them at once, some of them later. */
    private static Flux<Integer> endless() {
        return Flux.range(0, Integer.MAX_VALUE);
    }

    @Test
    void aCancelEndsASourceThatHasNoRowForTheMoment() throws InterruptedException {
        AtomicBoolean cancelled = new AtomicBoolean();
        CountDownLatch asked = new CountDownLatch(1);
        Disposable copy = ROWS.write(
                        pool.scopes,
                        Flux.range(0, 1000)
                                .concatWith(Flux.<Integer>never().doOnSubscribe(s -> asked.countDown()))
                                .doOnCancel(() -> cancelled.set(true)))
                .subscribe();
        asked.await();
        copy.dispose();
        Await.until(cancelled::get, () -> "the source was not cancelled");
        pool.awaitQuiet();
        assertThat(count()).isZero();
    }

    @Test
    void aCancelEndsASourceThatIsFast() {
        AtomicBoolean cancelled = new AtomicBoolean();
        AtomicLong pulled = new AtomicLong();
        Disposable copy = ROWS.write(
                        pool.scopes,
                        endless().doOnNext(i -> pulled.incrementAndGet()).doOnCancel(() -> cancelled.set(true)))
                .subscribe();
        Await.until(() -> pulled.get() > 10_000, () -> "pulled " + pulled);
        copy.dispose();
        Await.until(cancelled::get, () -> "the source was not cancelled");
        pool.awaitQuiet();
        assertThat(count()).isZero();
    }

    /** In a plain scope every COPY commits by itself, so that a row that is there belongs to one that has ended well. */
    @Test
    void cancelsAtRandomMomentsLeaveNothing() {
        int times = Integer.getInteger("copy.cancels", 60);
        long seed = Long.getLong("copy.seed", System.nanoTime());
        System.out.println("copy.seed=" + seed + " copy.cancels=" + times);
        Random random = new Random(seed);
        AtomicInteger ended = new AtomicInteger();
        int[] sizes = new int[times];
        List<Integer> told = new ArrayList<>();
        for (int i = 0; i < times; i++) {
            int first = i * 10_000;
            int rows = random.nextInt(10_000);
            sizes[i] = rows;
            boolean slow = random.nextInt(4) == 0;
            CopyIn<Integer> writer = ROWS.withFormat(random.nextBoolean() ? CopyFormat.BINARY : CopyFormat.TEXT);
            Flux<Integer> source = Flux.range(first, rows);
            Flux<Integer> some = slow ? source.publishOn(Schedulers.parallel(), 16) : source;
            CountDownLatch over = new CountDownLatch(1);
            AtomicBoolean written = new AtomicBoolean();
            Disposable copy = pool.scopes
                    .withConnection(c -> writer.write(c, random.nextInt(3) == 0 ? some.concatWith(Mono.never()) : some))
                    .doFinally(signal -> over.countDown())
                    .subscribe(n -> written.set(true), error -> {
                        throw new AssertionError(error);
                    });
            long until = System.nanoTime() + random.nextInt(8_000_000);
            while (System.nanoTime() < until) {
                Thread.onSpinWait();
            }
            copy.dispose();
            Await.until(() -> over.getCount() == 0, () -> "not over");
            if (written.get()) {
                ended.incrementAndGet();
                if (rows > 0) {
                    told.add(i);
                }
            }
            if (i % 50 == 0) {
                pool.awaitQuiet();
            }
        }
        pool.awaitQuiet();
        System.out.println(
                ended + " had ended before their cancel, " + pool.destroyed() + " connections were destroyed");
        List<Integer> whole = pool.borrow(
                c -> Rows.ints(c, "select (id / 10000) * 100000 + count(*)::int from ended group by id / 10000"));
        assertThat(whole)
                .as("all rows of a COPY or none")
                .allSatisfy(n -> assertThat(n % 100_000).isEqualTo(sizes[n / 100_000]));
        assertThat(whole.stream().map(n -> n / 100_000)).containsAll(told);
    }

    @Test
    void cancelsAtRandomMomentsRollBack() {
        int times = Integer.getInteger("copy.cancels", 60);
        Random random = new Random(times);
        for (int i = 0; i < times; i++) {
            AtomicLong pulled = new AtomicLong();
            long until = random.nextInt(40_000);
            Disposable copy = ROWS.write(pool.scopes, endless().doOnNext(n -> pulled.incrementAndGet()))
                    .subscribe();
            Await.until(() -> pulled.get() > until, () -> "pulled " + pulled);
            copy.dispose();
        }
        pool.awaitQuiet();
        assertThat(count()).isZero();
        assertThat(pool.destroyed()).isEqualTo(times);
    }

    @Test
    void aRollbackTakesItBack() {
        assertThatThrownBy(() -> pool.scopes
                        .inTransaction(c -> ROWS.write(c, Flux.range(0, 5000))
                                .doOnNext(n -> assertThat(n).isEqualTo(5000))
                                .then(Rows.ints(c, "select count(*)::int from ended")
                                        .next())
                                .doOnNext(n -> assertThat(n).isEqualTo(5000))
                                .then(Mono.error(new IllegalStateException("no"))))
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class);
        assertThat(count()).isZero();
        assertThat(pool.destroyed()).as("it had ended well").isZero();
    }

    @Test
    void joinsTheTransactionAround() {
        assertThatThrownBy(() -> ROWS.write(pool.scopes, Flux.range(0, 10))
                        .then(Mono.error(new IllegalStateException("no")))
                        .as(pool.scopes::transactional)
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class);
        assertThat(count()).isZero();
    }

    @Test
    void oneAfterTheOtherAndStatementsBetween() {
        Long sum = pool.scopes
                .inTransaction(c -> Flux.range(0, 20)
                        .flatMap(i -> ROWS.write(c, Flux.range(i * 100, 100))
                                .flatMap(n -> Rows.ints(c, "select count(*)::int from ended")
                                        .next()
                                        .thenReturn(n)))
                        .reduce(Long::sum))
                .block(LONG);
        assertThat(sum).isEqualTo(2000);
        assertThat(count()).isEqualTo(2000);
        assertThat(pool.destroyed()).isZero();
    }

    @Test
    void aTimeLimitEndsIt() {
        AtomicBoolean cancelled = new AtomicBoolean();
        assertThatThrownBy(() -> ROWS.write(
                                pool.with(options -> options.withMaxHold(Duration.ofMillis(300))),
                                Flux.range(0, 1000).concatWith(Mono.never()).doOnCancel(() -> cancelled.set(true)))
                        .block(LONG))
                .isInstanceOf(ScopeTimeoutException.class);
        assertThat(cancelled).isTrue();
        pool.awaitQuiet();
        assertThat(count()).isZero();
    }

    @Test
    void aSourceWithoutRowsCountsAsIdle() {
        assertThatThrownBy(() -> ROWS.write(
                                pool.with(options -> options.withMaxIdle(Duration.ofMillis(400))),
                                Flux.range(0, 1000).concatWith(Mono.never()))
                        .block(LONG))
                .isInstanceOf(ScopeTimeoutException.class);
    }

    /** The server looks at the time only when rows come. */
    @Test
    void theServersTimeLimitIsToldAsTheScopes() {
        AtomicBoolean cancelled = new AtomicBoolean();
        CopyIn<Long> large = CopyIn.<Long>into("ended")
                .column("id", CopyType.INTEGER.from(Long::intValue), i -> i)
                .column("note", CopyType.TEXT, i -> "large".repeat(10_000));
        assertThatThrownBy(() -> large.write(
                                pool.with(options -> options.withStatementTimeout(Duration.ofMillis(300))),
                                Flux.interval(Duration.ofMillis(1))
                                        .onBackpressureDrop()
                                        .doOnCancel(() -> cancelled.set(true)))
                        .block(LONG))
                .isInstanceOf(ScopeTimeoutException.class)
                .hasMessageContaining("COPY ended");
        Await.until(cancelled::get, () -> "the source was not cancelled");
    }

    /** While the server waits for a lock it reads nothing, and the source is asked for nothing. */
    @Test
    void aServerThatDoesNotReadStopsTheSource() {
        AtomicLong pulled = new AtomicLong();
        AtomicLong requested = new AtomicLong();
        pool.scopes
                .inTransactionMany(holder -> Rows.update(holder, "lock table ended in access exclusive mode")
                        .thenMany(Flux.defer(() -> {
                            Mono<Long> copy = ROWS.write(
                                    pool.scopes.transactions(Propagation.REQUIRES_NEW),
                                    Flux.range(0, 2_000_000)
                                            .doOnNext(i -> pulled.incrementAndGet())
                                            .doOnRequest(requested::addAndGet));
                            Mono<Long> stopped = Mono.fromCallable(() -> standsStill(pulled))
                                    .subscribeOn(Schedulers.boundedElastic())
                                    .doOnNext(
                                            n -> assertThat(requested.get() - n).isLessThanOrEqualTo(256));
                            return Flux.merge(copy.takeUntilOther(stopped.ignoreElement()), stopped);
                        })))
                .doOnNext(n -> System.out.println("The source stopped after " + n + " rows"))
                .doOnNext(n -> assertThat(n).isBetween(1L, 1_900_000L))
                .blockLast(LONG);
    }

    /** What the source or the subscriber does is no news to a server that waits for a lock; it is asked to give up. */
    @Test
    void aCancelEndsACopyThatWaitsForALock() {
        try (WatchedPool patient = WatchedPool.of(1, options -> options.withReleaseTimeout(Duration.ofHours(1)))) {
            AtomicBoolean cancelled = new AtomicBoolean();
            pool.scopes
                    .inTransaction(holder -> Rows.update(holder, "lock table ended in access exclusive mode")
                            .then(Mono.fromRunnable(() -> {
                                        AtomicLong pulled = new AtomicLong();
                                        Disposable copy = ROWS.write(
                                                        patient.scopes,
                                                        endless()
                                                                .doOnNext(i -> pulled.incrementAndGet())
                                                                .doOnCancel(() -> cancelled.set(true)))
                                                .subscribe();
                                        standsStill(pulled);
                                        copy.dispose();
                                        patient.awaitQuiet();
                                    })
                                    .subscribeOn(Schedulers.boundedElastic())))
                    .block(LONG);
            assertThat(cancelled).isTrue();
            assertThat(patient.destroyed()).isOne();
            patient.assertWhole();
        }
    }

    private static long standsStill(AtomicLong pulled) {
        long[] seen = {-1, System.nanoTime()};
        Await.until(
                () -> {
                    long now = pulled.get();
                    if (now != seen[0]) {
                        seen[0] = now;
                        seen[1] = System.nanoTime();
                    }
                    return now > 0 && System.nanoTime() - seen[1] > 500_000_000L;
                },
                () -> "pulled on");
        return pulled.get();
    }

    @Test
    void aSourceThatQueriesItsOwnConnectionFailsAtOnce() {
        assertThatThrownBy(() -> pool.scopes
                        .withConnection(c -> ROWS.write(c, Rows.ints(c, "select 1")))
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("would wait for");
        assertThatThrownBy(() -> ROWS.write(
                                pool.scopes,
                                Mono.from(pool.scopes.connectionFactory().create())
                                        .flatMapMany(c -> Rows.ints(c, "select 1")))
                        .block(LONG))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("would wait for");
    }

    @Test
    void aSourceMayReadFromAnotherScope() {
        Long written = ROWS.write(
                        pool.scopes,
                        pool.scopes
                                .transactions(Propagation.REQUIRES_NEW)
                                .inTransactionMany(c -> Rows.ints(c, "select generate_series(1, 5000)")))
                .block(LONG);
        assertThat(written).isEqualTo(5000);
    }

    @Test
    void aConnectionThatDiesEndsTheSource() {
        AtomicBoolean cancelled = new AtomicBoolean();
        AtomicBoolean ended = new AtomicBoolean();
        AtomicLong pulled = new AtomicLong();
        ROWS.write(
                        pool.scopes,
                        endless().doOnNext(i -> pulled.incrementAndGet()).doOnCancel(() -> cancelled.set(true)))
                .subscribe(n -> {}, error -> ended.set(true));
        Await.until(() -> pulled.get() > 10_000, () -> "pulled " + pulled);
        pool.terminateBackends();
        Await.until(ended::get, () -> "no error");
        Await.until(cancelled::get, () -> "the source was not cancelled");
        pool.awaitQuiet();
        assertThat(count()).isZero();
    }

    @Test
    void aTransactionThatIsInTheWayOfAnotherIsTriedAgain() {
        Postgres.execute("drop sequence if exists ended_attempts");
        Postgres.execute("create sequence ended_attempts");
        Postgres.execute("create or replace function ended_conflict() returns trigger language plpgsql as $$"
                + " begin if new.id = 500 and nextval('ended_attempts') < 3 then"
                + " raise exception 'conflict' using errcode = '40001'; end if; return new; end $$");
        Postgres.execute(
                "create trigger conflict before insert on ended for each row execute function ended_conflict()");
        Long written = ROWS.write(
                        pool.scopes.transactions(TransactionOptions.defaults().withRetry(RetryPolicy.serialization(5))),
                        Flux.range(0, 1000))
                .block(LONG);
        assertThat(written).isEqualTo(1000);
        assertThat(count()).isEqualTo(1000);
        assertThat(pool.destroyed()).isEqualTo(2);
    }

    @Test
    void rowsThatATriggerSkipsAreNotCounted() {
        Postgres.execute("create or replace function ended_skip() returns trigger language plpgsql as $$"
                + " begin if new.id % 10 = 0 then return null; end if; return new; end $$");
        Postgres.execute("create trigger skip before insert on ended for each row execute function ended_skip()");
        assertThat(ROWS.write(pool.scopes, Flux.range(0, 1000)).block(LONG)).isEqualTo(900);
    }
}
