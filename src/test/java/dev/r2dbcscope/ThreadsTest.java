package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.blockhound.BlockingOperationError;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.test.StepVerifier;
import reactor.test.subscriber.TestSubscriber;

/** On which threads a scope works, and which of them it leaves alone. */
class ThreadsTest extends FormContract {

    @Test
    @Tag("lifecycle-36")
    void exitsFromWhateverThreadTheBodyEndsOn() {
        AtomicReference<String> ending = new AtomicReference<>();
        Scheduler other = Schedulers.newSingle("the-other");
        try {
            TestSubscriber<Integer> subscriber = runToEnd(c -> Rows.ints(c, "select 1")
                    .publishOn(Schedulers.parallel())
                    .flatMap(n -> Rows.ints(c, "select 2").subscribeOn(Schedulers.boundedElastic()))
                    .publishOn(other)
                    .doOnNext(n -> ending.set(Thread.currentThread().getName())));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(ending.get()).startsWith("the-other");
            String[] statements = {"select 1#1", "select 2#1"};
            assertThat(database.log())
                    .isEqualTo(isTransactional() ? steps(statements[0], statements[1], "commit#1") : steps(statements));
        } finally {
            other.dispose();
        }
    }

    @Nested
    class SlowBodies {

        private final ConnectionPool pool = new ConnectionPool(
                ConnectionPoolConfiguration.builder(database).maxSize(2).build());
        private final AtomicLong spins = new AtomicLong();
        private volatile boolean slow = true;

        @Test
        @Tag("lifecycle-37")
        void doNotStallThePoolForUnrelatedBorrowers() throws InterruptedException {
            scopes = witness.watch(ConnectionScopes.of(pool));
            pool.warmup().block(PATIENCE);
            CountDownLatch started = new CountDownLatch(1);
            CountDownLatch ended = new CountDownLatch(1);

            scope(c -> {
                        started.countDown();
                        while (slow) {
                            spins.incrementAndGet();
                        }
                        return Mono.just(1);
                    })
                    .subscribeOn(Schedulers.boundedElastic())
                    .doFinally(end -> ended.countDown())
                    .subscribe();
            assertThat(started.await(PATIENCE.toSeconds(), TimeUnit.SECONDS)).isTrue();

            StepVerifier.create(scope(c -> Rows.ints(c, "select 1")))
                    .expectNext(1)
                    .expectComplete()
                    .verify(PATIENCE);

            assertThat(ended.getCount()).isEqualTo(1);
            slow = false;
            assertThat(ended.await(PATIENCE.toSeconds(), TimeUnit.SECONDS)).isTrue();
            assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
            pool.disposeLater().block(PATIENCE);
        }

        @Test
        @Tag("lifecycle-37")
        void doNotStallTheScopeThatHandedItsConnectionOn() throws InterruptedException {
            scopes = witness.watch(ConnectionScopes.of(new ConnectionPool(
                    ConnectionPoolConfiguration.builder(database).maxSize(1).build())));
            Step<Integer> work = new Step<>();
            TestSubscriber<Integer> first = run(c -> work.publisher());
            work.awaitReached();
            CountDownLatch started = new CountDownLatch(1);
            TestSubscriber<Integer> second = run(c -> {
                started.countDown();
                while (slow) {
                    spins.incrementAndGet();
                }
                return Mono.just(2);
            });

            work.complete(1);

            first.block(PATIENCE);
            assertThat(first.getReceivedOnNext()).containsExactly(1);
            assertThat(started.await(PATIENCE.toSeconds(), TimeUnit.SECONDS)).isTrue();
            assertThat(second.isTerminated()).isFalse();
            slow = false;
            second.block(PATIENCE);
            assertThat(second.getReceivedOnNext()).containsExactly(2);
            ((ConnectionPool) ((ScopedConnectionFactory) scopes.connectionFactory()).unwrap())
                    .disposeLater()
                    .block(PATIENCE);
        }
    }

    @Nested
    class NonBlockingThreads {

        @Test
        @Tag("lifecycle-38")
        void areWatchedByBlockHound() {
            StepVerifier.create(Mono.fromCallable(() -> new CountDownLatch(1).await(1, TimeUnit.MILLISECONDS))
                            .subscribeOn(Schedulers.parallel()))
                    .expectErrorMatches(error -> error instanceof BlockingOperationError
                            || error.getCause() instanceof BlockingOperationError)
                    .verify(PATIENCE);
        }

        @Test
        @Tag("lifecycle-38")
        void areNeverBlocked() {
            StepVerifier.create(Flux.range(0, 50)
                            .flatMap(
                                    i -> scope(c -> Flux.range(0, 10)
                                                    .flatMap(n -> Rows.ints(c, "select " + n)
                                                            .subscribeOn(Schedulers.parallel()))
                                                    .collectList()
                                                    .map(list -> list.size()))
                                            .subscribeOn(Schedulers.parallel()),
                                    64))
                    .expectNextCount(50)
                    .expectComplete()
                    .verify(PATIENCE);

            assertThat(database.log().stream().filter(step -> step.startsWith("close")))
                    .hasSize(50);
        }
    }

    @Nested
    class RejectingSchedulers {

        @Test
        @Tag("lifecycle-39")
        void ofTheBodyFailTheScope() {
            Scheduler disposed = Schedulers.newSingle("disposed");
            disposed.dispose();

            TestSubscriber<Integer> subscriber =
                    runToEnd(c -> Flux.range(1, 10).hide().publishOn(disposed));

            assertThat(subscriber.expectTerminalError()).isInstanceOf(RejectedExecutionException.class);
            assertThat(database.log()).isEqualTo(rolledBack());
            witness.droppedErrors().clear();
        }

        @Test
        @Tag("lifecycle-39")
        void ofTheConnectionFailTheStatementAndTheScope() {
            Scheduler eventLoop = Schedulers.newSingle("event-loop");
            database.onScheduler(() -> eventLoop);

            TestSubscriber<Integer> subscriber = runToEnd(c ->
                    Rows.ints(c, "select 1").doOnNext(n -> eventLoop.dispose()).thenMany(Rows.ints(c, "select 2")));

            assertThat(subscriber.expectTerminalError()).isInstanceOf(RejectedExecutionException.class);
            assertThat(database.log())
                    .isEqualTo(isTransactional() ? steps("select 1#1", "rollback#1") : steps("select 1#1"));
        }
    }

    @Test
    void statementsRunOnTheConnectionsOwnScheduler() {
        Scheduler eventLoop = Schedulers.newSingle("event-loop");
        database.onScheduler(() -> eventLoop);
        AtomicReference<String> thread = new AtomicReference<>();
        database.on("select 1", () -> {
            thread.set(Thread.currentThread().getName());
            return Flux.just(1);
        });

        assertThat(runToEnd(c -> Rows.ints(c, "select 1")).isTerminatedComplete())
                .isTrue();

        assertThat(thread.get()).startsWith("event-loop");
        eventLoop.dispose();
    }
}
