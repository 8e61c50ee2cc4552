package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.Rows;
import dev.r2dbcscope.Settling;
import dev.r2dbcscope.WatchedPool;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.util.RaceTestUtils;

/** Issues of r2dbc/r2dbc-pool about subscribers that leave. */
class R2dbcPoolCancelIssuesIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int ROUNDS = Settling.RACES / 4;

    /**
     * A request that was cancelled after the pool had validated its connection, and before its first statement, kept the
     * connection for ever. Here the connection is back in the pool whichever of the two is first.
     */
    @Test
    @Tag("r2dbc-pool#140")
    void aConnectionIsBackWhenTheSubscriberLeavesAsItIsValidated() {
        ProbeConnectionFactory database = ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate());
        AtomicReference<Sinks.Empty<Void>> validated = new AtomicReference<>(Sinks.empty());
        database.on("validate", () -> validated.get().asMono());
        ConnectionPool pool = new ConnectionPool(ConnectionPoolConfiguration.builder(database)
                .validationDepth(ValidationDepth.REMOTE)
                .maxSize(1)
                .build());
        ConnectionScopes scopes = ConnectionScopes.of(pool);
        AtomicInteger statements = new AtomicInteger();
        database.on("select 1", () -> Flux.just(statements.incrementAndGet()));
        for (int i = 0; i < ROUNDS; i++) {
            validated.set(Sinks.empty());
            Disposable subscription =
                    scopes.withConnection(c -> Rows.ints(c, "select 1")).subscribe();
            RaceTestUtils.race(() -> validated.get().tryEmitEmpty(), subscription::dispose);
            Await.until(() -> scopes.live().isEmpty() && acquired(pool) == 0, () -> "still held: " + scopes.live());
        }
        assertThat(statements).as("some were in time").hasValueLessThan(ROUNDS);
        assertThat(database.opened()).isEqualTo(1);
        assertThat(pool.getMetrics().orElseThrow().idleSize()).isEqualTo(1);
        pool.disposeLater().block(LONG);
        Settling.assertSettled(scopes, database);
    }

    private static int acquired(ConnectionPool pool) {
        return pool.getMetrics().orElseThrow().acquiredSize();
    }

    /**
     * A service whose requests were cancelled at random, each a statement by Spring's client, had lost all its connections
     * after a while. Here the pool is whole afterwards, and the client works on.
     */
    @Test
    @Tag("r2dbc-pool#143")
    void aServiceWhoseRequestsAreCancelledKeepsItsConnections() {
        try (WatchedPool pool = WatchedPool.of(3)) {
            DatabaseClient client = DatabaseClient.create(pool.scopes.connectionFactory());
            Mono<Integer> request = client.sql("select 1 from pg_sleep(0.001)")
                    .map(row -> row.get(0, Integer.class))
                    .one()
                    .as(pool.scopes::connected);
            AtomicInteger answered = new AtomicInteger();
            AtomicInteger left = new AtomicInteger();
            Flux.range(0, 600)
                    .flatMap(
                            i -> request.doOnNext(one -> answered.incrementAndGet())
                                    .doOnCancel(left::incrementAndGet)
                                    .takeUntilOther(i % 4 == 0 ? Mono.never() : soon(6_000)),
                            5)
                    .blockLast(LONG);
            assertThat(answered).hasPositiveValue();
            assertThat(left).hasPositiveValue();
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
        }
    }

    private static Mono<Long> soon(int withinMicros) {
        return Mono.delay(Duration.ofNanos(1_000L * ThreadLocalRandom.current().nextInt(withinMicros)));
    }

    /**
     * When the pool had been repaired, a connection was still stuck at times: usingWhen had got it, and did not see that
     * the request was gone before the first statement was sent. Here it is back, and the statement was never sent.
     */
    @Test
    @Tag("r2dbc-pool#144")
    void aConnectionIsBackWhenTheSubscriberLeavesBeforeTheFirstStatement() {
        Postgres.execute("create table never_sent (n int)");
        try (WatchedPool pool = WatchedPool.of(1)) {
            for (int i = 0; i < 200; i++) {
                Sinks.Empty<Void> leave = Sinks.empty();
                pool.scopes
                        .withConnectionMany(c -> Flux.defer(() -> {
                            leave.tryEmitEmpty();
                            return Rows.update(c, "insert into never_sent values (1)");
                        }))
                        .takeUntilOther(leave.asMono())
                        .blockLast(LONG);
                pool.awaitQuiet();
            }
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
            assertThat(pool.backends()).hasSize(1);
        }
        assertThat(Postgres.number("select count(*) from never_sent")).isZero();
    }

    /**
     * A query of many rows was zipped with something that failed; its connection went back to the pool with the answer
     * unread, and hung whoever got it next. Here everybody who comes after is served.
     */
    @Test
    @Tag("r2dbc-pool#198")
    void queriesAreAnsweredAfterOthersWereCancelledByAZipThatFails() {
        try (WatchedPool raw = WatchedPool.of(1)) {
            raw.assertWhole();
            boolean hangs = false;
            for (int millis = 10; !hangs; millis *= 2) {
                assertThat(millis)
                        .as("the driver was repaired: the shield may go")
                        .isLessThan(10_000);
                Duration patience = Duration.ofMillis(millis);
                Mono.usingWhen(raw.pool.create(), c -> failingZip(c, patience).then(), Connection::close)
                        .onErrorComplete(IllegalStateException.class)
                        .block(LONG);
                Connection next = raw.pool.create().blockOptional(LONG).orElseThrow();
                hangs = hangs(Rows.ints(next, "select 1").next());
                Mono.from(hangs ? Physical.of(next).close() : Mono.empty()).block(LONG);
                Mono.from(next.close()).block(LONG);
            }
        }

        try (WatchedPool pool = WatchedPool.of(2)) {
            AtomicInteger good = new AtomicInteger();
            AtomicInteger bad = new AtomicInteger();
            Flux.range(0, 200)
                    .flatMap(
                            i -> i % 2 == 0
                                    ? pool.scopes
                                            .withConnectionMany(c -> failingZip(c, Duration.ofMillis(i / 20)))
                                            .doOnError(e -> bad.incrementAndGet())
                                            .onErrorComplete(IllegalStateException.class)
                                    : pool.scopes
                                            .withConnectionMany(c -> Rows.ints(c, "select generate_series(1, 350)"))
                                            .doOnComplete(good::incrementAndGet),
                            4)
                    .blockLast(LONG);
            assertThat(good).hasValue(100);
            assertThat(bad).hasValue(100);
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
        }
    }

    /** A query of 350 rows, as in the issue, whose consumer is slower than the failure of what it is zipped with. */
    private static Flux<Integer> failingZip(Connection connection, Duration patience) {
        Sinks.Empty<Void> answered = Sinks.empty();
        Mono<Integer> query = Flux.from(connection
                        .createStatement("select generate_series(1, 350)")
                        .execute())
                .doOnNext(result -> answered.tryEmitEmpty())
                .concatMap(result ->
                        Mono.delay(LONG).thenMany(result.map((row, metadata) -> row.get(0, Integer.class))))
                .last();
        Mono<Integer> failure = answered.asMono()
                .then(Mono.delay(patience))
                .then(Mono.error(() -> new IllegalStateException("the other half fails")));
        return Mono.zip(query, failure, Integer::sum).flux();
    }

    /** Whether it does not end within two seconds; one row takes a millisecond. */
    static boolean hangs(Mono<?> query) {
        return query.hasElement()
                .map(any -> false)
                .timeout(Duration.ofSeconds(2), Mono.just(true))
                .blockOptional(LONG)
                .orElseThrow();
    }

    /**
     * The pool takes a connection back whose acquisition is cancelled, even when it was delivered; what takes only the first
     * element of a publisher cancels it then, and the next borrower gets the same connection. Here the acquisition is never
     * cancelled, and the scope stays the only owner.
     */
    @Test
    @Tag("r2dbc-pool#211")
    void theConnectionIsNobodyElsesWhenThePoolIsAskedByWayOfAFlux() {
        try (WatchedPool pool = WatchedPool.of(1)) {
            ConnectionFactory flux = new ConnectionFactory() {
                @Override
                public Publisher<? extends Connection> create() {
                    return Flux.from(pool.pool.create());
                }

                @Override
                public ConnectionFactoryMetadata getMetadata() {
                    return pool.pool.getMetadata();
                }
            };
            Mono<Long> shared = Flux.interval(Duration.ofMillis(1))
                    .filter(tick -> pool.pool.getMetrics().orElseThrow().idleSize() > 0)
                    .next();
            Flux<Long> byHand = Flux.usingWhen(flux.create(), c -> shared, c -> Mono.empty());
            assertThat(byHand.blockLast(LONG)).as("the pool was repaired").isNotNull();

            ConnectionScopes scopes = ConnectionScopes.of(flux);
            assertThat(scopes.withConnectionMany(c -> shared.takeUntilOther(Mono.delay(Duration.ofMillis(200))))
                            .blockLast(LONG))
                    .isNull();
            Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
            pool.assertWhole();
        }
    }
}
