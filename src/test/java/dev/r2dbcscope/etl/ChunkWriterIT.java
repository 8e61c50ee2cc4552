package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.WatchedPool;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.StepVerifier;

class ChunkWriterIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final WatchedPool watched = WatchedPool.of(4);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists chunk_rows; create table chunk_rows (id int primary key, note text)");
    }

    @AfterEach
    void whole() {
        watched.assertWhole();
        watched.close();
    }

    static CopyIn<Integer> copy() {
        return CopyIn.<Integer>into("chunk_rows")
                .column("id", CopyType.INTEGER, row -> row)
                .column("note", CopyType.TEXT, row -> "note " + row);
    }

    static UnnestWriter<Integer> unnest() {
        return UnnestWriter.<Integer>into("chunk_rows")
                .column("id", "int", row -> row)
                .column("note", "text", row -> "note " + row);
    }

    private static long written() {
        return Postgres.number("select count(*) from chunk_rows");
    }

    private static Mono<Void> run(Connection connection, String sql) {
        return Flux.from(connection.createStatement(sql).execute())
                .flatMap(Result::getRowsUpdated)
                .then();
    }

    static Stream<ChunkSink<Integer>> sinks() {
        return Stream.of(
                ChunkSink.of(copy()),
                ChunkSink.of(CopyUpsert.of(copy(), OnConflict.doUpdate("id"))),
                ChunkSink.of(unnest()),
                (connection, rows) -> Flux.fromIterable(rows)
                        .concatMap(row -> run(connection, "insert into chunk_rows values (" + row + ")")
                                .thenReturn(1L)));
    }

    @ParameterizedTest
    @MethodSource("sinks")
    void emitsAChunkAfterItsCommit(ChunkSink<Integer> sink) {
        List<Long> seen = ChunkWriter.to(sink)
                .withMaxRows(400)
                .write(watched.scopes, Flux.range(1, 1_000))
                .concatMap(result -> Mono.fromCallable(ChunkWriterIT::written)
                        .subscribeOn(reactor.core.scheduler.Schedulers.boundedElastic())
                        .doOnNext(count -> assertThat(result.written()).isEqualTo(result.rows()))
                        .map(count -> count - result.lastRow()))
                .collectList()
                .block(BOUND);

        // others may have been committed since
        assertThat(seen).hasSize(3).allMatch(ahead -> ahead >= 0);
        assertThat(written()).isEqualTo(1_000);
    }

    @Test
    void tellsWhatEachChunkHas() {
        List<ChunkResult> results = ChunkWriter.to(ChunkSink.of(copy()))
                .withMaxRows(400)
                .write(watched.scopes, Flux.range(1, 1_000))
                .collectList()
                .block(BOUND);

        assertThat(results)
                .extracting(
                        ChunkResult::partition,
                        ChunkResult::number,
                        ChunkResult::rows,
                        ChunkResult::firstRow,
                        ChunkResult::lastRow,
                        ChunkResult::attempts,
                        ChunkResult::lastPosition)
                .containsExactly(
                        org.assertj.core.groups.Tuple.tuple(0, 1L, 400L, 1L, 400L, 1, null),
                        org.assertj.core.groups.Tuple.tuple(0, 2L, 400L, 401L, 800L, 1, null),
                        org.assertj.core.groups.Tuple.tuple(0, 3L, 200L, 801L, 1_000L, 1, null));
        assertThat(results).allMatch(result -> !result.duration().isNegative());
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void writesSeveralChunksAtOnce(boolean ordered) {
        AtomicInteger now = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();
        ChunkSink<Integer> slow = (connection, rows) -> Mono.defer(() -> {
                    most.accumulateAndGet(now.incrementAndGet(), Math::max);
                    // the first chunk takes longest
                    return run(connection, "select pg_sleep(" + (rows.get(0) == 1 ? 0.3 : 0.01) + ")");
                })
                .then(unnest().write(connection, Flux.fromIterable(rows)))
                .doOnTerminate(now::decrementAndGet);

        List<Long> numbers = ChunkWriter.to(slow)
                .withMaxRows(10)
                .withConcurrency(4)
                .withOrder(ordered)
                .write(watched.scopes, Flux.range(1, 100))
                .map(ChunkResult::number)
                .collectList()
                .block(BOUND);

        assertThat(written()).isEqualTo(100);
        assertThat(most.get()).isEqualTo(4);
        assertThat(numbers).hasSize(10);
        if (ordered) {
            assertThat(numbers).isSorted();
        } else {
            assertThat(numbers.get(0)).isNotEqualTo(1);
        }
    }

    @Test
    void readsAndWritesWithAPoolOfTwo() {
        Postgres.execute("drop table if exists chunk_source; create table chunk_source as"
                + " select i as id from generate_series(1, 20000) i");
        WatchedPool two = WatchedPool.of(2);
        try {
            Flux<Integer> source = two.scopes.inTransactionMany(connection -> Flux.from(connection
                            .createStatement("select id from chunk_source")
                            .fetchSize(500)
                            .execute())
                    .flatMap(result -> result.map(row -> row.get(0, Integer.class))));

            List<ChunkResult> results = ChunkWriter.to(ChunkSink.of(copy()))
                    .withMaxRows(1_000)
                    .write(two.scopes, source)
                    .collectList()
                    .block(BOUND);

            assertThat(results).hasSize(20);
            assertThat(written()).isEqualTo(20_000);
            two.assertWhole();
        } finally {
            two.close();
        }
    }

    @Test
    void commitsWhatASlowSourceHasEmittedInTime() {
        Flux<Integer> slow = Flux.range(1, 3).concatWith(Flux.never());

        StepVerifier.create(ChunkWriter.to(ChunkSink.of(copy()))
                        .withMaxWait(Duration.ofMillis(50))
                        .write(watched.scopes, slow))
                .assertNext(result -> assertThat(result.rows()).isEqualTo(3))
                .then(() -> assertThat(written()).isEqualTo(3))
                .then(watched::awaitQuiet)
                .thenCancel()
                .verify(BOUND);
    }

    @Nested
    class Endings {

        @Test
        void aChunkThatIsRefusedIsNamedAndWhatWasCommittedBeforeStays() {
            Postgres.execute("insert into chunk_rows values (25)");

            StepVerifier.create(ChunkWriter.to(ChunkSink.of(unnest()))
                            .withMaxRows(10)
                            .write(watched.scopes, Flux.range(1, 1_000_000)))
                    .expectNextCount(2)
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOfSatisfying(ChunkFailedException.class, failed -> {
                                assertThat(failed)
                                        .hasMessageStartingWith("Chunk 3, rows 21 to 30, could not be written: ");
                                assertThat(failed.getSqlState()).isEqualTo("23505");
                                assertThat(failed).hasMessageNotContaining("id=25");
                                assertThat(failed.firstRow()).isEqualTo(21);
                                assertThat(failed.lastRow()).isEqualTo(30);
                                assertThat(failed.attempts()).isEqualTo(1);
                            }))
                    .verify(BOUND);
            assertThat(written()).isEqualTo(21);
        }

        @Test
        void chunksThatAreBeingWrittenAreFinishedWhenAnotherOneFails() {
            ChunkSink<Integer> sink = (connection, rows) -> rows.get(0) == 11
                    ? Flux.error(new IllegalStateException("no"))
                    : run(connection, "select pg_sleep(0.2)").then(unnest().write(connection, Flux.fromIterable(rows)));

            StepVerifier.create(ChunkWriter.to(sink)
                            .withMaxRows(10)
                            .withConcurrency(3)
                            .withOrder(false)
                            .write(watched.scopes, Flux.range(1, 1_000)))
                    .expectNextCount(2)
                    .expectErrorMessage("Chunk 2, rows 11 to 20, could not be written: no")
                    .verify(BOUND);
            assertThat(written()).isEqualTo(20);
        }

        @Test
        void whatTheSourceHasEmittedBeforeItsErrorIsWritten() {
            IllegalStateException error = new IllegalStateException("source");

            StepVerifier.create(ChunkWriter.to(ChunkSink.of(copy()))
                            .withMaxRows(10)
                            .write(watched.scopes, Flux.range(1, 25).concatWith(Flux.error(error))))
                    .expectNextCount(3)
                    .expectErrorSatisfies(seen -> assertThat(seen).isSameAs(error))
                    .verify(BOUND);
            assertThat(written()).isEqualTo(25);
        }

        @Test
        void aCancelRollsBackTheChunkThatIsBeingWritten() {
            ChunkSink<Integer> sink = (connection, rows) -> unnest().write(connection, Flux.fromIterable(rows))
                    .delayUntil(count -> rows.get(0) == 11 ? run(connection, "select pg_sleep(60)") : Mono.empty());

            StepVerifier.create(ChunkWriter.to(sink).withMaxRows(10).write(watched.scopes, Flux.range(1, 100)))
                    .expectNextCount(1)
                    .then(() -> Await.until(
                            () -> Postgres.number("select count(*) from pg_stat_activity where query like"
                                            + " 'select pg_sleep(60)' and state = 'active'")
                                    > 0,
                            () -> "it does not sleep"))
                    .thenCancel()
                    .verify(BOUND);
            watched.awaitQuiet();
            assertThat(written()).isEqualTo(10);
        }

        @Test
        void aTransactionAroundItIsRefused() {
            StepVerifier.create(watched.scopes.inTransactionMany(connection ->
                            ChunkWriter.to(ChunkSink.of(copy())).write(watched.scopes, Flux.range(1, 10))))
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOf(IllegalStateException.class)
                            .hasMessageContaining("inside a transaction"))
                    .verify(BOUND);
            assertThat(written()).isZero();
        }

        @Test
        void aPlainScopeAroundItLendsItsConnection() {
            assertThat(watched.scopes
                            .withConnectionMany(connection -> ChunkWriter.to(ChunkSink.of(unnest()))
                                    .withMaxRows(10)
                                    .write(watched.scopes, Flux.range(1, 100)))
                            .count()
                            .block(BOUND))
                    .isEqualTo(10);
            assertThat(watched.backends()).hasSize(1);
            assertThat(written()).isEqualTo(100);
        }
    }

    @Nested
    class Retries {

        private final AtomicInteger attempts = new AtomicInteger();

        private ChunkWriter<Integer> writer(String trouble, int times) {
            ChunkSink<Integer> sink = (connection, rows) -> unnest().write(connection, Flux.fromIterable(rows))
                    .delayUntil(count -> rows.get(0) == 11 && attempts.incrementAndGet() <= times
                            ? run(connection, trouble)
                            : Mono.empty());
            return ChunkWriter.to(sink).withMaxRows(10).withRetries(3, Duration.ofMillis(10), Duration.ofMillis(50));
        }

        @ParameterizedTest
        @ValueSource(
                strings = {
                    "do $$ begin raise exception 'no' using errcode = '40001'; end $$",
                    "do $$ begin raise exception 'no' using errcode = '40P01'; end $$",
                    "select pg_terminate_backend(pg_backend_pid())"
                })
        void aTransientErrorIsTriedAgain(String trouble) {
            List<ChunkResult> results = writer(trouble, 2)
                    .write(watched.scopes, Flux.range(1, 30))
                    .collectList()
                    .block(BOUND);

            assertThat(results).extracting(ChunkResult::attempts).containsExactly(1, 3, 1);
            assertThat(written()).isEqualTo(30);
        }

        @Test
        void aTransientErrorThatDoesNotGoAwayIsTold() {
            StepVerifier.create(writer("select pg_terminate_backend(pg_backend_pid())", 100)
                            .write(watched.scopes, Flux.range(1, 30)))
                    .expectNextCount(1)
                    .expectErrorSatisfies(error -> assertThat(error)
                            .isInstanceOfSatisfying(
                                    ChunkFailedException.class,
                                    failed -> assertThat(failed.attempts()).isEqualTo(4))
                            .hasMessageContaining("in 4 attempts"))
                    .verify(BOUND);
            assertThat(written()).isEqualTo(10);
        }

        @Test
        void anotherErrorIsNotTriedAgain() {
            StepVerifier.create(writer("select 1 / 0", 100).write(watched.scopes, Flux.range(1, 30)))
                    .expectNextCount(1)
                    .expectErrorSatisfies(error ->
                            assertThat(((R2dbcException) error).getSqlState()).isEqualTo("22012"))
                    .verify(BOUND);
            assertThat(attempts).hasValue(1);
        }
    }

    @Test
    void tellsTheCallerAsTheOriginOfItsScopes() {
        ChunkWriter.to(ChunkSink.of(copy()))
                .withMaxRows(10)
                .write(watched.scopes, Flux.range(1, 20))
                .blockLast(BOUND);

        assertThat(watched.events(ScopeEvent.Released.class))
                .hasSize(2)
                .allMatch(event -> event.scope().origin().contains("ChunkWriterIT"));
    }

    @Test
    void isNotHeldUpByASubscriberThatDoesNotAskForResults() {
        StepVerifier.create(
                        ChunkWriter.to(ChunkSink.of(copy()))
                                .withMaxRows(10)
                                .write(watched.scopes, Flux.range(1, 1_000)),
                        0)
                .expectSubscription()
                .thenRequest(2)
                .expectNextCount(2)
                .then(watched::awaitQuiet)
                .thenRequest(Long.MAX_VALUE)
                .expectNextCount(98)
                .expectComplete()
                .verify(BOUND);
        assertThat(IntStream.of((int) written()).sum()).isEqualTo(1_000);
    }
}
