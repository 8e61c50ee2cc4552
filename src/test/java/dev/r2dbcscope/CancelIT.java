package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** Cancels at random moments, on a real pool. What the usual code makes of the same work is in FACTS. */
class CancelIT {

    private static final Duration LONG = Duration.ofMinutes(5);
    private static final long SWEEP = TimeUnit.MILLISECONDS.toNanos(8);

    private final Set<Throwable> unexpected = ConcurrentHashMap.newKeySet();

    @ParameterizedTest
    @CsvSource({"false, false", "false, true", "true, false", "true, true"})
    @Tag("lifecycle-22")
    @Tag("lifecycle-54")
    @Tag("lifecycle-65")
    @Tag("lifecycle-66")
    void randomCancelsLeaveEveryConnectionAliveAndIdle(boolean bound, boolean transactional) {
        try (WatchedPool pool = WatchedPool.of(5)) {
            pool.assertWhole();
            Set<Integer> before = pool.backends();
            java.util.function.Function<Connection, Flux<Integer>> body =
                    c -> Rows.ints(thousand(c, bound)).concatWith(Rows.ints(thousand(c, bound)));
            Flux<Integer> scope =
                    transactional ? pool.scopes.inTransactionMany(body) : pool.scopes.withConnectionMany(body);
            Flux.range(0, 2_500).flatMap(operation -> cancelled(scope), 10).blockLast(LONG);
            pool.awaitQuiet();
            assertThat(unexpected).isEmpty();
            assertThat(pool.inState("idle in transaction%")).isZero();
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
            assertThat(pool.backends()).isEqualTo(before);
            assertThat(pool.events(ScopeEvent.Released.class))
                    .extracting(ScopeEvent.Released::outcome)
                    .contains(ScopeOutcome.CANCELLED);
        }
    }

    private static Statement thousand(Connection connection, boolean bound) {
        return bound
                ? connection.createStatement("select generate_series(1, $1)").bind(0, 1_000)
                : connection.createStatement("select generate_series(1, 1000)");
    }

    /** Subscribes, cancels after 0 to 8 ms, and completes then. */
    private Mono<Void> cancelled(Flux<?> scope) {
        return Mono.defer(() -> {
            Disposable subscription = scope.subscribe(value -> {}, unexpected::add);
            return after(ThreadLocalRandom.current().nextLong(SWEEP), subscription);
        });
    }

    private static Mono<Void> after(long nanos, Disposable subscription) {
        return Mono.delay(Duration.ofNanos(nanos), Schedulers.parallel())
                .doOnNext(tick -> subscription.dispose())
                .then();
    }

    /**
     * A row is durable if and only if its scope says that it completed. The cancel can come while the COMMIT is under
     * way, which then goes on: so the scope's own last event is the truth, not whether the subscriber still listened.
     */
    @Test
    @Tag("lifecycle-22")
    @Tag("lifecycle-54")
    @Tag("lifecycle-66")
    void cancelledTransactionsLeaveNothingDurableAndNothingOpen() {
        Postgres.execute("create table swept (trial int)");
        int pools = 4;
        Sweep total = new Sweep();
        Flux.range(0, pools)
                .flatMap(
                        pool -> Mono.fromRunnable(() -> total.run(pool, 10_000 / pools))
                                .subscribeOn(Schedulers.boundedElastic()),
                        pools)
                .blockLast(LONG);

        assertThat(unexpected).isEmpty();
        assertThat(total.dirty).hasValue(0);
        assertThat(total.destroyed).hasValue(0);
        Set<Integer> durable = Set.copyOf(rows("select trial from swept"));
        assertThat(durable).isEqualTo(total.committed);
        assertThat(total.committed).as("some came too late").isNotEmpty();
        assertThat(total.rolledBack).as("most were in time").hasSizeGreaterThan(1_000);
    }

    /** Trials on a pool of one connection, one after the other. */
    private final class Sweep {

        final Set<Integer> committed = ConcurrentHashMap.newKeySet();
        final Set<Integer> rolledBack = ConcurrentHashMap.newKeySet();
        final AtomicInteger dirty = new AtomicInteger();
        final AtomicInteger destroyed = new AtomicInteger();

        void run(int number, int trials) {
            try (WatchedPool pool = WatchedPool.of(1)) {
                for (int i = 0; i < trials; i++) {
                    int trial = number * trials + i;
                    Disposable subscription = pool.with(options -> options.withListener(event -> note(trial, event)))
                            .inTransactionMany(c -> Flux.concat(
                                    Rows.update(c.createStatement("insert into swept values ($1)")
                                            .bind(0, trial)),
                                    Rows.ints(c, "select generate_series(1, 100)"),
                                    Rows.ints(c.createStatement("select generate_series(1, $1)")
                                            .bind(0, 100))))
                            .subscribe(value -> {}, unexpected::add);
                    after(SWEEP * i / trials, subscription).block(LONG);
                    // the next borrower: what the driver says, and what the server says
                    pool.borrow(c -> c.isAutoCommit()
                                    ? Rows.ints(c, "select (now() = statement_timestamp())::int")
                                    : Flux.just(0))
                            .forEach(clean -> dirty.addAndGet(1 - clean));
                }
                pool.assertWhole();
                destroyed.addAndGet((int) pool.destroyed());
            }
        }

        private void note(int trial, ScopeEvent event) {
            if (event instanceof ScopeEvent.Released released) {
                boolean durable = released.outcome() == ScopeOutcome.COMPLETED && released.error() == null;
                (durable ? committed : rolledBack).add(trial);
            }
        }
    }

    private static List<Integer> rows(String sql) {
        return Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Rows.ints(c, sql).collectList(),
                        Connection::close)
                .blockOptional(LONG)
                .orElseThrow();
    }
}
