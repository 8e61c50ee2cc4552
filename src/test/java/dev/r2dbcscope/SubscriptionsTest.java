package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** Every subscription has a scope of its own, and no operator downstream can make it skip its exit. */
class SubscriptionsTest extends FormContract {

    @Nested
    class Again {

        @Test
        @Tag("lifecycle-55")
        void resubscriptionsHaveScopesOfTheirOwn() {
            Flux<Integer> flux = scope(c -> Rows.ints(c, "select 1"));

            flux.blockLast(PATIENCE);
            flux.blockLast(PATIENCE);

            assertOneAfterTheOther(2);
        }

        @Test
        @Tag("lifecycle-55")
        void repeatsHaveScopesOfTheirOwn() {
            assertThat(scope(c -> Rows.ints(c, "select 1"))
                            .repeat(2)
                            .collectList()
                            .block(PATIENCE))
                    .containsExactly(1, 1, 1);

            assertOneAfterTheOther(3);
        }

        @Test
        @Tag("lifecycle-55")
        @Tag("lifecycle-59")
        void retriesHaveScopesOfTheirOwn() {
            AtomicInteger attempts = new AtomicInteger();

            Integer value = scope(c -> Rows.ints(c, "select 1").doOnNext(n -> {
                        if (attempts.incrementAndGet() < 3) {
                            throw new IllegalStateException("attempt " + attempts);
                        }
                    }))
                    .retry(2)
                    .blockLast(PATIENCE);

            assertThat(value).isEqualTo(1);
            assertOneAfterTheOther(3);
        }

        private void assertOneAfterTheOther(int count) {
            List<String> log = database.log();
            assertThat(log.stream().filter("create"::equals)).hasSize(count);
            for (int i = 1; i < count; i++) {
                assertThat(log.indexOf("close#" + i)).isLessThan(log.indexOf("select 1#" + (i + 1)));
            }
        }
    }

    @Nested
    class AtOnce {

        @Test
        @Tag("lifecycle-56")
        void everySubscriptionHasItsOwnConnection() {
            Flux<Integer> flux = scope(c -> Rows.ints(c, "select 1").concatWith(Mono.never()));
            int count = 50;

            List<TestSubscriber<Integer>> subscribers = IntStream.range(0, count)
                    .mapToObj(i -> {
                        TestSubscriber<Integer> subscriber = TestSubscriber.create();
                        (isMono() ? scope(c -> Rows.ints(c, "select 1").then(Mono.<Integer>never())) : flux)
                                .subscribe(subscriber);
                        return subscriber;
                    })
                    .toList();
            Await.until(
                    () -> database.log().stream()
                                    .filter(step -> step.startsWith("select 1"))
                                    .count()
                            == count,
                    () -> "log " + database.log());

            assertThat(database.live()).isEqualTo(count);
            assertThat(database.opened()).isEqualTo(count);
            assertThat(scopes.live()).hasSize(count);
            subscribers.forEach(TestSubscriber::cancel);
        }
    }

    @Nested
    class ErrorsDownstream {

        private final IllegalStateException failure = new IllegalStateException("of the user");
        private final List<Throwable> skipped = new CopyOnWriteArrayList<>();

        @Test
        @Tag("lifecycle-59")
        void onErrorContinueSkipsAnElementAndNotTheExit() {
            List<Integer> values = scope(c -> Flux.range(1, 3).map(n -> {
                        if (n == 1) {
                            throw failure;
                        }
                        return n;
                    }))
                    .onErrorContinue((error, value) -> skipped.add(error))
                    .collectList()
                    .block(PATIENCE);

            assertThat(values).isEqualTo(isMono() ? List.of(2) : List.of(2, 3));
            assertThat(skipped).containsExactly(failure);
            assertThat(database.log()).isEqualTo(committed());
        }

        @Test
        @Tag("lifecycle-59")
        void onErrorContinueDoesNotHideAFailingCommit() {
            database.on(
                    "commit",
                    () -> Flux.just(1).map(n -> {
                        throw failure;
                    }));
            TestSubscriber<Integer> subscriber = TestSubscriber.create();

            scope(c -> Mono.just(1))
                    .onErrorContinue((error, value) -> skipped.add(error))
                    .subscribe(subscriber);
            subscriber.block(PATIENCE);

            if (isTransactional()) {
                assertThat(subscriber.expectTerminalError()).isSameAs(failure);
                assertThat(database.log()).isEqualTo(steps("commit#1", "rollback#1"));
            }
            assertThat(skipped).isEmpty();
        }

        @Test
        @Tag("lifecycle-59")
        void onErrorContinueDoesNotHideAFailingAcquisition() {
            database.on(
                    "create",
                    () -> Flux.just(1).map(n -> {
                        throw failure;
                    }));
            TestSubscriber<Integer> subscriber = TestSubscriber.create();

            scope(c -> Mono.just(1))
                    .onErrorContinue((error, value) -> skipped.add(error))
                    .subscribe(subscriber);
            subscriber.block(PATIENCE);

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(skipped).isEmpty();
        }

        @Test
        @Tag("lifecycle-59")
        void onErrorStopLeavesTheEndingAsItIs() {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();

            scope(c -> Mono.<Integer>error(failure)).onErrorStop().subscribe(subscriber);
            subscriber.block(PATIENCE);

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(database.log()).isEqualTo(rolledBack());
        }
    }

    @Nested
    class PoolShutDown {

        @Test
        @Tag("lifecycle-58")
        void failsThoseWhoWaitAndLetsThoseExitWhoHold() {
            ConnectionPool pool = new ConnectionPool(
                    ConnectionPoolConfiguration.builder(database).maxSize(1).build());
            scopes = witness.watch(ConnectionScopes.of(pool));
            Step<Integer> work = new Step<>();
            TestSubscriber<Integer> holding = run(c -> work.publisher());
            work.awaitReached();
            TestSubscriber<Integer> waiting = run(c -> Mono.just(2));

            pool.disposeLater().block(PATIENCE);
            waiting.block(PATIENCE);
            assertThat(waiting.expectTerminalError()).hasMessageContaining("Pool has been shut down");

            work.complete(1);
            holding.block(PATIENCE);
            assertThat(holding.isTerminatedComplete()).isTrue();
            assertThat(holding.getReceivedOnNext()).containsExactly(1);

            TestSubscriber<Integer> late = runToEnd(c -> Mono.just(3));
            assertThat(late.expectTerminalError()).hasMessageContaining("Pool has been shut down");
        }
    }
}
