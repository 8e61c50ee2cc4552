package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.FaultyProxy;
import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Statement;
import java.net.ConnectException;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** How soon a connection is of use again after a cancel, and that the cancel hits nothing else. */
class ServerCancelIT {

    private static final Duration LONG = Duration.ofMinutes(5);

    /** The bigger form: {@code -Dcancel.trials=200}. */
    private static final int TRIALS = Integer.getInteger("cancel.trials", 5);

    /** The bigger form: {@code -Dcancel.storm=20000}. */
    private static final int STORM = Integer.getInteger("cancel.storm", 1_000);

    private static final String ROWS = "select generate_series(1, 20000000)";

    @RegisterExtension
    final Witness witness = new Witness();

    /** Statements that would go on for a long time. */
    enum Endless {
        PLAIN {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement(ROWS);
            }
        },
        PLAIN_FETCH {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement(ROWS).fetchSize(1_000);
            }
        },
        BOUND {
            @Override
            Statement on(Connection connection) {
                return connection
                        .createStatement("select generate_series(1, $1)")
                        .bind(0, 20_000_000);
            }
        },
        BOUND_FETCH {
            @Override
            Statement on(Connection connection) {
                return BOUND.on(connection).fetchSize(1_000);
            }
        },
        SLEEP {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement("select 1 from pg_sleep(60)");
            }
        },
        BOUND_SLEEP {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement("select 1 from pg_sleep($1)").bind(0, 60.0);
            }
        };

        abstract Statement on(Connection connection);

        boolean hasRows() {
            return !name().contains("SLEEP");
        }
    }

    @ParameterizedTest
    @CsvSource({
        "PLAIN, false",
        "PLAIN, true",
        "PLAIN_FETCH, true",
        "BOUND_FETCH, true",
        "PLAIN_FETCH, false",
        "BOUND_FETCH, false",
        "BOUND, false",
        "BOUND, true",
        "SLEEP, false",
        "SLEEP, true",
        "BOUND_SLEEP, false",
        "BOUND_SLEEP, true"
    })
    void theNextBorrowerHasTheConnectionSoon(Endless endless, boolean transactional) {
        try (WatchedPool pool = WatchedPool.of(1)) {
            pool.assertWhole();
            Set<Integer> before = pool.backends();
            Function<Connection, Flux<Integer>> body = c -> Rows.ints(endless.on(c));
            Flux<Integer> scope =
                    transactional ? pool.scopes.inTransactionMany(body) : pool.scopes.withConnectionMany(body);
            long[] nanos = new long[TRIALS];
            for (int i = 0; i < TRIALS; i++) {
                if (endless.hasRows()) {
                    scope.take(10).blockLast(LONG);
                } else {
                    Disposable running = scope.subscribe();
                    Await.until(() -> pool.inState("active") == 1, () -> "it does not run");
                    running.dispose();
                }
                long start = System.nanoTime();
                assertThat(pool.borrow(c -> Rows.ints(c, "select 42"))).containsExactly(42);
                nanos[i] = System.nanoTime() - start;
            }
            print(endless + (transactional ? " in a transaction" : ""), nanos);
            assertThat(percentile(nanos, 50)).isLessThan(TimeUnit.SECONDS.toNanos(5));
            pool.assertWhole();
            assertThat(pool.backends()).isEqualTo(before);
            assertThat(pool.destroyed()).isZero();
        }
    }

    /** Statements of 0 to 3 ms, each left at some moment of it, and whoever comes next on one of two connections. */
    @ParameterizedTest
    @CsvSource({"false, false", "true, false", "false, true"})
    void noCancelHitsWhoeverComesNext(boolean transactional, boolean sameScope) {
        Set<Throwable> unexpected = ConcurrentHashMap.newKeySet();
        try (WatchedPool pool = WatchedPool.of(2)) {
            List<ConnectionScopes> graces = Stream.of(0, 1, 2)
                    .map(millis -> pool.with(options -> options.withCancelGrace(Duration.ofMillis(millis))))
                    .toList();
            Flux.range(0, STORM)
                    .flatMap(
                            trial -> {
                                ConnectionScopes scopes = graces.get(trial % graces.size());
                                return sameScope
                                        ? scopes.withConnectionMany(c ->
                                                left(Rows.ints(shortSleep(c))).thenMany(next(c)))
                                        : left(transactional
                                                        ? scopes.inTransactionMany(c -> Rows.ints(shortSleep(c)))
                                                        : scopes.withConnectionMany(c -> Rows.ints(shortSleep(c))))
                                                .thenMany(scopes.withConnectionMany(ServerCancelIT::next));
                            },
                            4)
                    .doOnNext(value -> assertThat(value).isEqualTo(7))
                    .count()
                    .doOnSuccess(count -> assertThat(count).isEqualTo(STORM))
                    .doOnError(unexpected::add)
                    .block(LONG);
            pool.awaitQuiet();
            long hits = pool.events(ScopeEvent.StatementEnded.class).stream()
                    .filter(ended ->
                            ended.error() instanceof R2dbcException error && "57014".equals(error.getSqlState()))
                    .count();
            System.out.printf(
                    "%d trials, %s: %d requests, %d statements cancelled%n",
                    STORM,
                    sameScope ? "in the same scope" : transactional ? "in transactions" : "in plain scopes",
                    pool.events(ScopeEvent.CancelRequested.class).size(),
                    hits);
            assertThat(unexpected).isEmpty();
            assertThat(hits).isPositive();
            assertThat(pool.events(ScopeEvent.CancelRequested.class))
                    .isNotEmpty()
                    .allMatch(event -> event.error() == null);
            assertThat(pool.destroyed()).isZero();
            pool.assertWhole();
            witness.droppedValues().clear(); // rows that were on their way when takeUntilOther ended
        }
    }

    /** The driver is cancelled here, in the middle of fetches: connections must survive that, and answer nobody else's rows. */
    @ParameterizedTest
    @CsvSource({"false", "true"})
    void fetchesThatAreLeftAtRandomHarmNoConnection(boolean bound) {
        try (WatchedPool pool = WatchedPool.of(2)) {
            pool.assertWhole();
            Set<Integer> before = pool.backends();
            Flux.range(0, STORM)
                    .flatMap(
                            trial -> pool.scopes.withConnectionMany(c -> left(Rows.ints(fetched(c, bound)))
                                    .ignoreElements()
                                    .thenMany(next(c))),
                            4)
                    .doOnNext(value -> assertThat(value).isEqualTo(7))
                    .count()
                    .doOnSuccess(count -> assertThat(count).isEqualTo(STORM))
                    .block(LONG);
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
            assertThat(pool.backends()).isEqualTo(before);
            witness.droppedValues().clear(); // rows that were on their way when takeUntilOther ended
        }
    }

    private static Statement fetched(Connection connection, boolean bound) {
        return (bound
                        ? connection
                                .createStatement("select generate_series(1, $1)")
                                .bind(0, 3_000)
                        : connection.createStatement("select generate_series(1, 3000)"))
                .fetchSize(10);
    }

    private static Statement shortSleep(Connection connection) {
        return connection
                .createStatement("select 1 from pg_sleep($1)")
                .bind(0, ThreadLocalRandom.current().nextDouble(0.003));
    }

    private static Flux<Integer> next(Connection connection) {
        return Rows.ints(connection, "select 7 from pg_sleep(0.001)");
    }

    /** Leaves it after 0 to 4 ms, or when it has ended. */
    private static Flux<Integer> left(Flux<Integer> statement) {
        return Flux.defer(() -> statement.takeUntilOther(
                Mono.delay(Duration.ofNanos(ThreadLocalRandom.current().nextLong(4_000_000)), Schedulers.parallel())));
    }

    @Test
    void theRestOfAPlainScopeDoesNotWaitForAResultOfWhichItHasSeenEnough() {
        try (WatchedPool pool = WatchedPool.of(1)) {
            List<Integer> seen = pool.scopes
                    .withConnectionMany(c -> Rows.ints(Endless.BOUND.on(c))
                            .take(3)
                            .concatWith(Rows.ints(Endless.PLAIN.on(c)).take(2))
                            .concatWith(Rows.ints(c, "select 42")))
                    .collectList()
                    .block(LONG);
            assertThat(seen).containsExactly(1, 2, 3, 1, 2, 42);
            assertThat(pool.events(ScopeEvent.CancelRequested.class)).hasSizeGreaterThanOrEqualTo(2);
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
        }
    }

    // a network between that is in the way ---------------------------------------------------------------------------

    private static WatchedPool behind(FaultyProxy proxy, Duration releaseTimeout) {
        return WatchedPool.to(
                1,
                server -> server.host("127.0.0.1").port(proxy.port()),
                options -> options.withReleaseTimeout(releaseTimeout));
    }

    private static Disposable sleeping(WatchedPool pool, String seconds) {
        Disposable running = pool.scopes
                .withConnectionMany(c -> Rows.ints(c, "select 1 from pg_sleep(" + seconds + ")"))
                .subscribe();
        Await.until(() -> pool.inState("active") == 1, () -> "it does not run");
        return running;
    }

    @Test
    void theConnectionIsNobodysWhileARequestIsOnItsWay() throws Exception {
        try (FaultyProxy proxy = Postgres.network();
                WatchedPool pool = behind(proxy, LONG)) {
            pool.assertWhole();
            Set<Integer> before = pool.backends();
            Disposable running = sleeping(pool, "0.3");
            proxy.holdNewcomers();
            running.dispose();
            Await.until(
                    () -> pool.inState("active") == 0
                            && pool.inState("idle") == 1
                            && pool.scopes.live().stream().allMatch(scope -> scope.statementsInFlight() == 0),
                    () -> "it does not end by itself");
            assertThat(pool.scopes.live()).hasSize(1);
            assertThat(pool.events(ScopeEvent.CancelRequested.class)).isEmpty();
            proxy.letNewcomersIn();
            assertThat(pool.borrow(c -> Rows.ints(c, "select 42 from pg_sleep(0.1)")))
                    .containsExactly(42);
            assertThat(pool.backends()).isEqualTo(before);
            assertThat(pool.events(ScopeEvent.CancelRequested.class)).hasSize(1);
            assertThat(pool.destroyed()).isZero();
        }
    }

    @Test
    void aRequestThatIsRefusedHarmsNothing() throws Exception {
        try (FaultyProxy proxy = Postgres.network();
                WatchedPool pool = behind(proxy, LONG)) {
            pool.assertWhole();
            Set<Integer> before = pool.backends();
            Disposable running = sleeping(pool, "0.5");
            proxy.refuseNewcomers();
            running.dispose();
            pool.awaitQuiet();
            assertThat(pool.events(ScopeEvent.CancelRequested.class))
                    .isNotEmpty()
                    .allSatisfy(event -> assertThat(event.error()).isInstanceOf(ConnectException.class));
            assertThat(pool.destroyed()).isZero();
            assertThat(pool.borrow(c -> Rows.ints(c, "select 42"))).containsExactly(42);
            assertThat(pool.backends()).isEqualTo(before);
        }
    }

    @Test
    void aRequestThatHangsDestroysTheConnectionInTime() throws Exception {
        try (FaultyProxy proxy = Postgres.network();
                WatchedPool pool = behind(proxy, Duration.ofMillis(400))) {
            Disposable running = sleeping(pool, "60");
            proxy.holdNewcomers();
            long start = System.nanoTime();
            running.dispose();
            pool.awaitQuiet();
            assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofSeconds(30));
            assertThat(pool.destroyed()).isEqualTo(1);
            proxy.letNewcomersIn();
            assertThat(pool.borrow(c -> Rows.ints(c, "select 42"))).containsExactly(42);
        }
    }

    private static void print(String what, long[] nanos) {
        System.out.printf(
                "cancel of %s: usable after p50 %.1f ms, p99 %.1f ms, max %.1f ms (%d trials)%n",
                what,
                percentile(nanos, 50) / 1e6,
                percentile(nanos, 99) / 1e6,
                percentile(nanos, 100) / 1e6,
                nanos.length);
    }

    private static long percentile(long[] nanos, int percent) {
        long[] sorted = nanos.clone();
        Arrays.sort(sorted);
        return sorted[Math.max(0, (int) Math.ceil(sorted.length * percent / 100.0) - 1)];
    }

    /** {@code Mono.from(batch.execute())} leaves when it has the first result; a notice lets the server send that early. */
    @Test
    void whatFollowsAResultThatHasEndedIsNotCancelled() {
        Postgres.execute("drop table if exists cancel_script");
        Postgres.execute("create table cancel_script (i int)");
        List<String> script = List.of(
                "insert into cancel_script values (1)",
                "create table if not exists cancel_script (i int)",
                "select pg_sleep(0.3)",
                "insert into cancel_script values (2)");
        try (WatchedPool pool = WatchedPool.of(1)) {
            Long first = pool.scopes
                    .withConnection(c -> {
                        Batch batch = c.createBatch();
                        script.forEach(batch::add);
                        return Mono.from(batch.execute()).flatMap(result -> Mono.from(result.getRowsUpdated()));
                    })
                    .block(LONG);
            pool.scopes
                    .withConnection(c -> Mono.from(
                                    c.createStatement(String.join("; ", script)).execute())
                            .then())
                    .block(LONG);
            pool.assertWhole();
            assertThat(first).isEqualTo(1);
            assertThat(Postgres.number("select count(*) from cancel_script")).isEqualTo(4);
            assertThat(pool.events(ScopeEvent.CancelRequested.class)).isEmpty();
            assertThat(pool.destroyed()).isZero();
        }
    }
}
