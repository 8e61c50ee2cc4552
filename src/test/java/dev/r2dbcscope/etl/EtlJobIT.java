package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.WatchedPool;
import dev.r2dbcscope.postgresql.KeysetRead;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.StepVerifier;

class EtlJobIT {

    private static final Duration BOUND = Duration.ofSeconds(120);
    private static final Checkpoints CHECKPOINTS = Checkpoints.inTable("job Checkpoints");

    private final WatchedPool watched = WatchedPool.of(4);

    /** Without a key, so that a row that is written twice is there twice. */
    @BeforeEach
    void tables() {
        Postgres.execute("drop table if exists job_target; create table job_target (id int);"
                + " drop table if exists \"job Checkpoints\"");
        CHECKPOINTS.create(watched.scopes).block(BOUND);
    }

    @AfterEach
    void whole() {
        watched.assertWhole();
        watched.close();
    }

    private static Mono<Long> insert(Connection connection, List<Integer> rows) {
        return Flux.from(connection
                        .createStatement("insert into job_target select unnest($1::int[])")
                        .bind(0, rows.toArray(Integer[]::new))
                        .execute())
                .flatMap(Result::getRowsUpdated)
                .reduce(0L, Long::sum);
    }

    private static ChunkWriter<Integer> writer(ChunkSink<Integer> sink) {
        return ChunkWriter.to(sink).withMaxRows(10).withRetries(20, Duration.ofMillis(5), Duration.ofMillis(200));
    }

    private static Source<Integer> behind(int from, int to) {
        return Source.of(
                position -> {
                    int first = position == null ? from : Integer.parseInt(position) + 1;
                    return Flux.range(first, to - first + 1);
                },
                row -> Integer.toString(row));
    }

    private static EtlJob<Integer> job(Source<Integer> source, ChunkSink<Integer> sink) {
        return EtlJob.of("numbers", source, writer(sink)).withCheckpoints(CHECKPOINTS);
    }

    private static void assertTarget(int rows) {
        assertThat(Postgres.number("select count(*) from job_target")).isEqualTo(rows);
        assertThat(Postgres.number("select count(distinct id) from job_target where id between 1 and " + rows))
                .isEqualTo(rows);
    }

    private List<Checkpoint> checkpoints() {
        return CHECKPOINTS.of(watched.scopes, "numbers").collectList().block(BOUND);
    }

    @Test
    void notesWhereItIsWithEachChunk() {
        StepVerifier.create(job(behind(1, 25), EtlJobIT::insert).run(watched.scopes), 0)
                .expectSubscription()
                .thenRequest(1)
                .assertNext(first -> {
                    assertThat(first.number()).isEqualTo(1);
                    assertThat(first.firstPosition()).isEqualTo("1");
                    assertThat(first.lastPosition()).isEqualTo("10");
                })
                .thenRequest(10)
                .expectNextCount(2)
                .expectComplete()
                .verify(BOUND);

        assertTarget(25);
        assertThat(checkpoints()).singleElement().satisfies(checkpoint -> {
            assertThat(checkpoint.position()).isEqualTo("25");
            assertThat(checkpoint.rows()).isEqualTo(25);
            assertThat(checkpoint.chunks()).isEqualTo(3);
            assertThat(checkpoint.finished()).isTrue();
        });
    }

    @Test
    void doesNothingWhenItIsFinished() {
        EtlJob<Integer> job = job(behind(1, 25), EtlJobIT::insert);
        job.run(watched.scopes).blockLast(BOUND);

        assertThat(job.run(watched.scopes).collectList().block(BOUND)).isEmpty();
        assertTarget(25);

        assertThat(CHECKPOINTS.forget(watched.scopes, "numbers").block(BOUND)).isTrue();
        assertThat(CHECKPOINTS.forget(watched.scopes, "numbers").block(BOUND)).isFalse();
        assertThat(job.run(watched.scopes).count().block(BOUND)).isEqualTo(3);
        assertThat(Postgres.number("select count(*) from job_target")).isEqualTo(50);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void goesOnBehindWhatItHasCommitted(boolean counted) {
        Source<Integer> source = counted ? Source.of(Flux.range(1, 95)) : behind(1, 95);
        for (int i = 0; i < 5; i++) {
            int stop = 20 * (i + 1) + 1;
            job(
                            source,
                            (connection, rows) -> rows.contains(stop)
                                    ? insert(connection, rows).then(Mono.error(new IllegalStateException("stop")))
                                    : insert(connection, rows))
                    .run(watched.scopes)
                    .onErrorComplete(ChunkFailedException.class)
                    .blockLast(BOUND);
            if (stop < 95) {
                assertThat(Postgres.number("select count(*) from job_target")).isEqualTo(stop - 1);
            }
        }
        assertTarget(95);
        assertThat(checkpoints().get(0).finished()).isTrue();
    }

    @ParameterizedTest
    @CsvSource({"1, 4", "2, 4", "4, 4", "4, 2", "4, 1"})
    void writesPartitionsAtOnceWithWhatThePoolHas(int concurrency, int size) {
        WatchedPool pool = WatchedPool.of(size);
        int lanes = Math.min(concurrency, size);
        AtomicInteger now = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        // the first of them wait for each other
        ChunkSink<Integer> sink = (connection, rows) -> Mono.defer(() -> {
            most.accumulateAndGet(now.incrementAndGet(), Math::max);
            return insert(connection, rows)
                    .delayUntil(count -> Mono.delay(Duration.ofMillis(1)).repeat(() -> most.get() < lanes))
                    .doFinally(end -> now.decrementAndGet());
        });
        List<Source<Integer>> partitions = IntStream.range(0, 6)
                .mapToObj(i -> behind(i * 50 + 1, i * 50 + 50))
                .toList();
        try {
            List<ChunkResult> results = EtlJob.ofPartitions(
                            "numbers", partitions, writer(sink).withConcurrency(concurrency))
                    .withCheckpoints(CHECKPOINTS)
                    .run(pool.scopes)
                    .collectList()
                    .block(BOUND);

            assertThat(results).hasSize(30);
            for (int i = 0; i < 6; i++) {
                int partition = i;
                assertThat(results)
                        .filteredOn(result -> result.partition() == partition)
                        .extracting(ChunkResult::number)
                        .containsExactly(1L, 2L, 3L, 4L, 5L);
            }
            assertTarget(300);
            assertThat(most.get()).isEqualTo(lanes);
            pool.assertWhole();
        } finally {
            pool.close();
        }
    }

    @Nested
    class Databases {

        @BeforeEach
        void source() {
            Postgres.execute("drop table if exists job_source; create table job_source (id int primary key);"
                    + " insert into job_source select generate_series(1, 5000)");
        }

        private Source<Integer> pages(WatchedPool pool) {
            return Source.of(
                    KeysetRead.ofQuery("select id from job_source", "id").withPageSize(70),
                    pool.scopes,
                    row -> row.get("id", Integer.class));
        }

        @ParameterizedTest
        @ValueSource(ints = {1, 2})
        void pagesOfTheSameDatabaseNeedOneConnection(int size) {
            WatchedPool pool = WatchedPool.of(size);
            try {
                assertThat(job(pages(pool), EtlJobIT::insert)
                                .run(pool.scopes)
                                .count()
                                .block(BOUND))
                        .isEqualTo(500);
                assertTarget(5_000);
                assertThat(checkpoints().get(0).position()).isEqualTo("[5000]");
                assertThat(pool.backends()).hasSize(1);
                pool.assertWhole();
            } finally {
                pool.close();
            }
        }

        private Source<Integer> stream(WatchedPool pool) {
            return Source.of(
                    position -> pool.scopes.inTransactionMany(connection -> Flux.from(connection
                                    .createStatement("select id from job_source where id > $1 order by id")
                                    .bind(0, position == null ? 0 : Integer.parseInt(position))
                                    .fetchSize(100)
                                    .execute())
                            .flatMap(result -> result.map(row -> row.get(0, Integer.class)))),
                    row -> Integer.toString(row));
        }

        @Test
        void aStreamOfTheSameDatabaseNeedsTwo() {
            WatchedPool pool = WatchedPool.of(2);
            try {
                assertThat(job(stream(pool), EtlJobIT::insert)
                                .run(pool.scopes)
                                .count()
                                .block(BOUND))
                        .isEqualTo(500);
                assertTarget(5_000);
                pool.assertWhole();
            } finally {
                pool.close();
            }
        }

        @Test
        void aStreamThatCanNeverHaveASecondOneFailsAtOnce() {
            WatchedPool pool = WatchedPool.of(1);
            try {
                StepVerifier.create(job(stream(pool), EtlJobIT::insert).run(pool.scopes))
                        .expectError(dev.r2dbcscope.NestedAcquireDeadlockException.class)
                        .verify(BOUND);
                pool.assertWhole();
            } finally {
                pool.close();
            }
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        void everyRowOnceThoughConnectionsAreLostAllTheTime(boolean takeover) {
            WatchedPool pool = WatchedPool.of(3, options -> options.withReleaseTimeout(Duration.ofSeconds(5)));
            AtomicBoolean over = new AtomicBoolean();
            Random random = new Random(42);
            AtomicInteger kills = new AtomicInteger();
            Disposable killer = Flux.defer(() -> Mono.delay(Duration.ofMillis(20 + random.nextInt(60))))
                    .publishOn(reactor.core.scheduler.Schedulers.boundedElastic())
                    .doOnNext(tick -> {
                        pool.terminateBackends();
                        kills.incrementAndGet();
                    })
                    .repeat(() -> !over.get())
                    .subscribe();
            ChunkSink<Integer> slow =
                    (connection, rows) -> insert(connection, rows).delayElement(Duration.ofMillis(1));
            try {
                List<Source<Integer>> partitions =
                        List.of(behind(1, 1_500), behind(1_501, 3_000), behind(3_001, 4_500));
                EtlJob.ofPartitions("numbers", partitions, writer(slow).withConcurrency(3))
                        .withCheckpoints(CHECKPOINTS)
                        .withTakeover(takeover)
                        .run(pool.scopes)
                        .blockLast(BOUND);
                assertTarget(4_500);
                assertThat(checkpoints()).allMatch(Checkpoint::finished);
                assertThat(kills.get()).isPositive();
            } finally {
                over.set(true);
                killer.dispose();
            }
            pool.awaitQuiet();
            pool.close();
        }
    }

    @Nested
    class TwoOfThem {

        private final AtomicBoolean waits = new AtomicBoolean();
        private final AtomicBoolean go = new AtomicBoolean();

        private EtlJob<Integer> waiting() {
            return job(
                    behind(1, 100),
                    (connection, rows) -> insert(connection, rows).delayUntil(count -> {
                        if (rows.get(0) != 31 || go.get()) {
                            return Mono.empty();
                        }
                        waits.set(true);
                        return Mono.delay(Duration.ofMillis(10)).repeat(() -> !go.get());
                    }));
        }

        @Test
        void theSecondFailsWhileTheFirstRuns() {
            AtomicInteger chunks = new AtomicInteger();
            Mono<Long> first = waiting()
                    .run(watched.scopes)
                    .doOnNext(r -> chunks.incrementAndGet())
                    .count()
                    .cache();
            Disposable running = first.subscribe();
            Await.until(() -> chunks.get() == 3 && waits.get(), () -> "chunks: " + chunks);

            StepVerifier.create(job(behind(1, 100), EtlJobIT::insert)
                            .withLockWait(Duration.ofMillis(200))
                            .run(watched.scopes))
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOf(JobRunningException.class)
                            .hasMessageStartingWith("Job \"numbers\" is run by another connection"))
                    .verify(BOUND);
            go.set(true);

            assertThat(first.block(BOUND)).isEqualTo(10);
            assertTarget(100);
            running.dispose();
        }

        @Test
        void theSecondGoesOnWhenTheFirstHasGone() {
            AtomicInteger chunks = new AtomicInteger();
            Disposable first = waiting()
                    .run(watched.scopes)
                    .doOnNext(r -> chunks.incrementAndGet())
                    .subscribe();
            Await.until(() -> chunks.get() == 3 && waits.get(), () -> "chunks: " + chunks);
            Mono<Long> second = job(behind(1, 100), EtlJobIT::insert)
                    .run(watched.scopes)
                    .count()
                    .cache();
            Disposable waiting = second.subscribe();
            first.dispose();

            assertThat(second.block(BOUND)).isEqualTo(7);
            assertTarget(100);
            waiting.dispose();
        }

        @Test
        void theSecondTakesOverIfItIsToldTo() {
            AtomicInteger chunks = new AtomicInteger();
            Mono<Long> first = waiting()
                    .withTakeover(true)
                    .run(watched.scopes)
                    .doOnNext(r -> chunks.incrementAndGet())
                    .count()
                    .cache();
            Disposable running = first.subscribe(count -> {}, error -> {});
            Await.until(() -> chunks.get() == 3 && waits.get(), () -> "chunks: " + chunks);

            Mono<Long> second = job(behind(1, 100), EtlJobIT::insert)
                    .withTakeover(true)
                    .run(watched.scopes)
                    .count()
                    .cache();
            Disposable taking = second.subscribe();
            // for the chunk that the first has not committed yet
            Await.until(
                    () -> Postgres.number("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                                    + " and query like '%job Checkpoints%'")
                            > 0,
                    () -> "the second does not wait");
            go.set(true);

            assertThat(second.block(BOUND)).isEqualTo(6);
            StepVerifier.create(first)
                    .expectErrorSatisfies(error -> assertThat(error)
                            .satisfiesAnyOf(
                                    one -> assertThat(one).isInstanceOf(JobRunningException.class),
                                    one -> assertThat(one).hasCauseInstanceOf(JobRunningException.class)))
                    .verify(BOUND);
            assertTarget(100);
            running.dispose();
            taking.dispose();
        }
    }

    @Nested
    class Controlled {

        private final JobControl control = JobControl.create();
        private final AtomicInteger chunks = new AtomicInteger();

        private Mono<Long> running(int at, Runnable then) {
            Mono<Long> running = job(behind(1, 200), EtlJobIT::insert)
                    .run(watched.scopes, control)
                    .doOnNext(chunk -> {
                        if (chunks.incrementAndGet() == at) {
                            then.run();
                        }
                    })
                    .count()
                    .cache();
            running.subscribe();
            return running;
        }

        @Test
        void pausesBetweenTwoChunksAndGoesOn() {
            Mono<Long> running = running(3, control::pause);
            Await.until(() -> chunks.get() >= 3, () -> "chunks: " + chunks);
            StepVerifier.create(running)
                    .expectSubscription()
                    .expectNoEvent(Duration.ofMillis(300))
                    .thenCancel()
                    .verify(BOUND);

            // one may have begun before
            assertThat(chunks.get()).isBetween(3, 4);
            assertThat(watched.inState("idle in transaction%")).isZero();
            control.resume();

            assertThat(running.block(BOUND)).isEqualTo(20);
            assertTarget(200);
        }

        @Test
        void stopsBetweenTwoChunksAndGoesOnInTheNextRun() {
            Mono<Long> running = running(3, control::stop);

            long first = running.blockOptional(BOUND).orElseThrow();
            assertThat(first).isBetween(3L, 4L);
            assertThat(checkpoints().get(0).finished()).isFalse();
            control.resume();
            assertThat(job(behind(1, 200), EtlJobIT::insert)
                            .run(watched.scopes, control)
                            .count()
                            .block(BOUND))
                    .isZero();

            assertThat(job(behind(1, 200), EtlJobIT::insert)
                            .run(watched.scopes)
                            .count()
                            .block(BOUND))
                    .isEqualTo(20 - first);
            assertTarget(200);
        }

        @Test
        void stopsWhileItIsPausedAndWhileItsSourceIsSilent() {
            Source<Integer> silent = Source.of(position -> Flux.range(1, 10).concatWith(Flux.never()), row -> "" + row);
            Mono<Long> running = job(silent, EtlJobIT::insert)
                    .run(watched.scopes, control)
                    .doOnNext(chunk -> chunks.incrementAndGet())
                    .count()
                    .cache();
            running.subscribe();
            Await.until(() -> chunks.get() == 1, () -> "chunks: " + chunks);

            control.pause();
            control.stop();

            assertThat(running.block(BOUND)).isEqualTo(1);
        }
    }

    @Nested
    class Mistakes {

        @Test
        void aTableThatIsNotThereIsNamedWithItsDefinition() {
            StepVerifier.create(job(behind(1, 10), EtlJobIT::insert)
                            .withCheckpoints(Checkpoints.inTable("nowhere"))
                            .run(watched.scopes))
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOf(CheckpointException.class)
                            .hasMessageStartingWith("There is no table \"nowhere\" of checkpoints; create it with"
                                    + " Checkpoints.create(scopes), or by create table"))
                    .verify(BOUND);
        }

        @Test
        void anotherNumberOfPartitionsIsRefused() {
            job(behind(1, 10), EtlJobIT::insert).run(watched.scopes).blockLast(BOUND);

            StepVerifier.create(EtlJob.ofPartitions(
                                    "numbers", List.of(behind(1, 5), behind(6, 10)), writer(EtlJobIT::insert))
                            .withCheckpoints(CHECKPOINTS)
                            .run(watched.scopes))
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOf(CheckpointException.class)
                            .hasMessageStartingWith("Job \"numbers\" was begun with 1 partitions and has 2 now"))
                    .verify(BOUND);
        }

        @Test
        void checkpointsOfAnotherVersionAreRefused() {
            job(behind(1, 10), EtlJobIT::insert).run(watched.scopes).blockLast(BOUND);
            Postgres.execute("update \"job Checkpoints\" set version = 2");

            StepVerifier.create(job(behind(1, 10), EtlJobIT::insert).run(watched.scopes))
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOf(CheckpointException.class)
                            .hasMessageContaining("has checkpoints of version 2, and this library writes version 1"))
                    .verify(BOUND);
        }

        @Test
        void anEmptyNameIsRefused() {
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> EtlJob.of("", behind(1, 2), writer(EtlJobIT::insert)));
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> EtlJob.ofPartitions("x", List.of(), writer(EtlJobIT::insert)));
        }

        @Test
        void aTransactionAroundItIsRefused() {
            StepVerifier.create(watched.scopes.inTransactionMany(
                            c -> job(behind(1, 10), EtlJobIT::insert).run(watched.scopes)))
                    .expectError(IllegalStateException.class)
                    .verify(BOUND);
        }
    }

    @Test
    void anErrorOfTheSourceComesBehindWhatItHasRead() {
        IllegalStateException error = new IllegalStateException("source");
        Source<Integer> source =
                Source.of(position -> Flux.range(1, 25).concatWith(Flux.error(error)), row -> Integer.toString(row));

        StepVerifier.create(job(source, EtlJobIT::insert).run(watched.scopes))
                .expectNextCount(3)
                .expectErrorSatisfies(seen -> assertThat(seen).isSameAs(error))
                .verify(BOUND);
        assertThat(checkpoints().get(0).finished()).isFalse();
        assertTarget(25);
    }

    @Test
    void aCancelRollsBackAndCanBeResumed() {
        for (int i = 0; i < 20; i++) {
            int chunks = i % 3;
            StepVerifier.create(job(behind(1, 500), EtlJobIT::insert).run(watched.scopes), chunks + 1)
                    .expectNextCount(chunks)
                    .thenCancel()
                    .verify(BOUND);
            watched.awaitQuiet();
        }
        job(behind(1, 500), EtlJobIT::insert).run(watched.scopes).blockLast(BOUND);
        assertTarget(500);
    }

    @Test
    void optionsOfTheScopesAreThoseOfTheChunks() {
        ScopeOptions options = watched.scopes.options();
        assertThat(options.name()).isNotEqualTo("etl");
        job(behind(1, 10), EtlJobIT::insert)
                .run(watched.with(o -> o.withName("etl")))
                .blockLast(BOUND);
        assertThat(watched.events(dev.r2dbcscope.ScopeEvent.Released.class))
                .filteredOn(event -> event.scope().name().equals("etl"))
                .isNotEmpty();
    }
}
