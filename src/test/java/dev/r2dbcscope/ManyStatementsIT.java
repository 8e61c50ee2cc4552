package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/** Many statements at once, from many threads, on one and the same connection. */
class ManyStatementsIT {

    private static final int THREADS = 8;
    private static final Duration LONG = Duration.ofMinutes(2);

    private final WatchedPool pool = WatchedPool.of(1);
    private final Scheduler threads = Schedulers.newBoundedElastic(THREADS, 100, "many");

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
        threads.dispose();
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @Tag("lifecycle-47")
    void completesTenThousandSubscribedAtOnceFromEightThreads(boolean bound) {
        int each = 10_000 / THREADS;
        List<Integer> all = pool.scopes
                .withConnectionMany(connection -> fromAllThreads(thread ->
                        Flux.range(thread * each, each).flatMap(number -> number(connection, number, bound), each)))
                .collectList()
                .block(LONG);
        assertThat(all).hasSize(10_000).doesNotHaveDuplicates();
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @Tag("lifecycle-47")
    void completesThemInATransaction(boolean bound) {
        List<Integer> all = pool.scopes
                .inTransactionMany(connection -> fromAllThreads(
                        thread -> Flux.range(0, 500).flatMap(number -> number(connection, number, bound), 500)))
                .collectList()
                .block(LONG);
        assertThat(all).hasSize(500 * THREADS);
    }

    /** The driver's statement cache is check-then-act: the raw driver fails with 42P05 here now and then. */
    @ParameterizedTest
    @ValueSource(ints = {300})
    @Tag("lifecycle-69")
    void preparesABoundStatementOnceWhenManyThreadsExecuteItFirst(int rounds) {
        for (int round = 0; round < rounds; round++) {
            // a text that this connection has never prepared is as good as a fresh connection, and far cheaper
            String sql = "select $1::int + " + round;
            int added = round;
            List<Integer> sums = pool.scopes
                    .withConnectionMany(connection -> fromAllThreads(thread -> Flux.range(0, 8)
                            .flatMap(number ->
                                    Rows.ints(connection.createStatement(sql).bind(0, thread * 8 + number)))))
                    .collectList()
                    .block(LONG);
            assertThat(sums)
                    .containsExactlyInAnyOrderElementsOf(
                            IntStream.range(added, added + 64).boxed().toList());
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {40})
    @Tag("lifecycle-69")
    void preparesItOnceOnFreshConnections(int rounds) {
        ConnectionScopes fresh = ConnectionScopes.of(Postgres.connectionFactory());
        for (int round = 0; round < rounds; round++) {
            Long sums = fresh.withConnectionMany(connection -> fromAllThreads(
                            thread -> Flux.range(0, 8).flatMap(number -> number(connection, number, true))))
                    .count()
                    .block(LONG);
            assertThat(sums).isEqualTo(64);
        }
    }

    private static Flux<Integer> number(Connection connection, int number, boolean bound) {
        return Rows.ints(
                bound
                        ? connection.createStatement("select $1::int").bind(0, number)
                        : connection.createStatement("select " + number));
    }

    /** Subscribes one publisher on each of the threads, all at the same moment. */
    private Flux<Integer> fromAllThreads(java.util.function.IntFunction<Flux<Integer>> work) {
        CountDownLatch ready = new CountDownLatch(THREADS);
        return Flux.range(0, THREADS)
                .flatMap(
                        thread -> Mono.fromCallable(() -> {
                                    ready.countDown();
                                    ready.await();
                                    return thread;
                                })
                                .subscribeOn(threads)
                                .flatMapMany(work::apply),
                        THREADS);
    }
}
