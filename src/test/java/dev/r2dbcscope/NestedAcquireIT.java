package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Signal;
import reactor.core.publisher.Sinks;

/**
 * Pipelines that hold a connection and need another one, on PostgreSQL behind r2dbc-pool. The acquire timeout is an hour,
 * so whatever ends, did not end by it.
 */
@Tag("lifecycle-45")
class NestedAcquireIT {

    private static final Duration LONG = Duration.ofMinutes(3);

    private final List<WatchedPool> pools = new ArrayList<>();

    @BeforeAll
    static void table() {
        Postgres.execute("create table nested_acquire (n int)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate nested_acquire");
    }

    @AfterEach
    void thePoolsAreWholeAndNobodyIsRemembered() {
        for (WatchedPool pool : pools) {
            pool.awaitQuiet();
            assertThat(pool.destroyed()).isZero();
            pool.assertWhole();
            pool.close();
        }
        assertThat(WaitGraph.INSTANCE.isEmpty()).isTrue();
    }

    private WatchedPool pool(int size) {
        WatchedPool pool = WatchedPool.of(size, options -> options.withAcquireTimeout(Duration.ofHours(1)));
        pools.add(pool);
        return pool;
    }

    private static Mono<Integer> insert(Connection connection, int n) {
        return Rows.update(connection
                        .createStatement("insert into nested_acquire values ($1)")
                        .bind(0, n))
                .then(Mono.just(n));
    }

    private static List<Integer> durable() {
        return Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Rows.ints(c, "select n from nested_acquire order by n")
                                .collectList(),
                        Connection::close)
                .blockOptional(LONG)
                .orElseThrow();
    }

    private static Mono<Integer> separate(ConnectionScopes scopes, Function<Connection, Mono<Integer>> work) {
        return scopes.transactions(Propagation.REQUIRES_NEW).inTransaction(work);
    }

    /** Lets nobody pass until a number of pipelines are there; whoever comes later passes at once. */
    private static Mono<Void> meeting(int number) {
        AtomicInteger missing = new AtomicInteger(number);
        Sinks.Empty<Void> complete = Sinks.empty();
        return Mono.defer(() -> {
            if (missing.decrementAndGet() == 0) {
                complete.tryEmitEmpty();
            }
            return complete.asMono();
        });
    }

    /** Runs all at once and says how each ended, in order. */
    private static List<Signal<Integer>> all(List<Mono<Integer>> pipelines) {
        List<Signal<Integer>> ends = Flux.mergeSequential(
                        Flux.fromIterable(pipelines).map(Mono::materialize), pipelines.size(), 1)
                .collectList()
                .blockOptional(LONG)
                .orElseThrow();
        assertThat(ends).hasSize(pipelines.size());
        assertThat(ends)
                .allMatch(end -> end.isOnNext() || end.getThrowable() instanceof NestedAcquireDeadlockException);
        return ends;
    }

    private static long failures(List<Signal<Integer>> ends) {
        return ends.stream().filter(Signal::isOnError).count();
    }

    private static Stream<Arguments> sizesAndPipelines() {
        return Stream.of(1, 2, 4, 16)
                .flatMap(size -> Stream.of(1, 2, 8, 64).map(pipelines -> Arguments.of(size, pipelines)));
    }

    @ParameterizedTest
    @MethodSource("sizesAndPipelines")
    void everyPipelineSucceedsOrFailsAtOnce(int size, int pipelines) {
        WatchedPool pool = pool(size);
        Mono<Void> meeting = meeting(Math.min(size, pipelines));
        List<Mono<Integer>> all = new ArrayList<>();
        for (int i = 1; i <= pipelines; i++) {
            int n = i;
            all.add(pool.scopes.inTransaction(outer ->
                    insert(outer, n).then(meeting).then(separate(pool.scopes, inner -> insert(inner, n)))));
        }

        List<Signal<Integer>> ends = all(all);

        long failures = failures(ends);
        if (2 * pipelines <= size) {
            assertThat(failures).isZero();
        } else {
            assertThat(failures)
                    .as("all held a connection before any asked for another")
                    .isPositive();
        }
        if (size > 1) {
            assertThat(failures).isLessThan(pipelines);
        }
        assertThat(pool.events(ScopeEvent.DeadlockAverted.class)).hasSize((int) failures);
        assertThat(pool.events(ScopeEvent.OpenFailed.class)).hasSize((int) failures);
        assertThat(durable())
                .containsExactlyElementsOf(ends.stream()
                        .filter(Signal::isOnNext)
                        .map(Signal::get)
                        .flatMap(n -> Stream.of(n, n))
                        .toList());
    }

    @ParameterizedTest
    @MethodSource("sizesAndPipelines")
    void everyPipelineThatNeedsThreeSucceedsOrFailsAtOnce(int size, int pipelines) {
        WatchedPool pool = pool(size);
        List<Mono<Integer>> all = new ArrayList<>();
        for (int i = 1; i <= pipelines; i++) {
            int n = i;
            all.add(pool.scopes.inTransaction(first -> insert(first, n)
                    .then(separate(
                            pool.scopes,
                            second -> insert(second, n).then(separate(pool.scopes, third -> insert(third, n)))))));
        }

        List<Signal<Integer>> ends = all(all);

        long failures = failures(ends);
        if (3 * pipelines <= size) {
            assertThat(failures).isZero();
        }
        if (size < 3) {
            assertThat(failures).isEqualTo(pipelines);
        }
        assertThat(pool.events(ScopeEvent.DeadlockAverted.class)).hasSize((int) failures);
        assertThat(durable())
                .containsExactlyElementsOf(ends.stream()
                        .filter(Signal::isOnNext)
                        .map(Signal::get)
                        .flatMap(n -> Stream.of(n, n, n))
                        .toList());
    }

    @ParameterizedTest
    @MethodSource("sizesAndPipelines")
    void pipelinesThatTakeTwoPoolsInOppositeOrderSucceedOrFailAtOnce(int size, int pipelines) {
        WatchedPool one = pool(size);
        WatchedPool other = pool(size);
        Mono<Void> meeting = meeting(2 * Math.min(size, pipelines));
        List<Mono<Integer>> all = new ArrayList<>();
        for (int i = 1; i <= 2 * pipelines; i++) {
            int n = i;
            ConnectionScopes first = n % 2 == 0 ? one.scopes : other.scopes;
            ConnectionScopes second = n % 2 == 0 ? other.scopes : one.scopes;
            all.add(first.inTransaction(
                    outer -> insert(outer, n).then(meeting).then(second.inTransaction(inner -> insert(inner, n)))));
        }

        List<Signal<Integer>> ends = all(all);

        long failures = failures(ends);
        if (2 * pipelines <= size) {
            assertThat(failures).isZero();
        } else if (pipelines >= size) {
            assertThat(failures).isPositive();
        }
        assertThat(failures).isLessThan(2L * pipelines);
    }

    @Test
    void theOuterTransactionCanCatchTheErrorAndCommit() {
        WatchedPool pool = pool(1);

        Integer result = pool.scopes
                .inTransaction(outer -> insert(outer, 1)
                        .then(separate(pool.scopes, inner -> insert(inner, 2)))
                        .onErrorResume(NestedAcquireDeadlockException.class, e -> insert(outer, 3)))
                .block(LONG);

        assertThat(result).isEqualTo(3);
        assertThat(durable()).containsExactly(1, 3);
    }

    @Test
    void nobodyFailsWhileAHolderRunsALongQuery() {
        WatchedPool pool = pool(2);
        Mono<Void> meeting = meeting(2);
        Mono<Integer> slow = pool.scopes.inTransaction(connection ->
                meeting.then(Rows.ints(connection, "select 1 from pg_sleep(1)").next()));
        Mono<Integer> waiting =
                pool.scopes.inTransaction(outer -> meeting.then(separate(pool.scopes, inner -> insert(inner, 2))));

        assertThat(failures(all(List.of(slow, waiting)))).isZero();
        assertThat(durable()).containsExactly(2);
    }

    @Test
    void nobodyFailsWhileABorrowerWithoutAScopeHoldsAConnection() {
        WatchedPool pool = pool(2);
        Connection raw = pool.pool.create().blockOptional(LONG).orElseThrow();
        Mono<Integer> waiting = pool.scopes.inTransaction(outer ->
                insert(outer, 1).then(separate(pool.scopes, inner -> insert(inner, 2))));
        Sinks.One<Integer> end = Sinks.one();
        waiting.subscribe(end::tryEmitValue, end::tryEmitError);
        Await.until(() -> !WaitGraph.INSTANCE.isEmpty(), () -> "nobody waits: " + pool.scopes.live());

        Mono.from(raw.close()).block(LONG);

        assertThat(end.asMono().block(LONG)).isEqualTo(2);
        assertThat(durable()).containsExactly(1, 2);
    }
}
