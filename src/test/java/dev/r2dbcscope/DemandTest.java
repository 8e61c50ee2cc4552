package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;
import reactor.core.publisher.Sinks;
import reactor.test.subscriber.TestSubscriber;

/** What a scope does with its subscriber's demand, and with a subscriber that misbehaves. */
class DemandTest extends FormContract {

    private final Step<Connection> acquisition = new Step<>();
    private final Queue<Long> requests = new ConcurrentLinkedQueue<>();
    private final AtomicInteger bodies = new AtomicInteger();
    private final AtomicInteger cancels = new AtomicInteger();

    private Flux<Integer> numbers(int count) {
        return Flux.range(1, count)
                .doOnSubscribe(s -> bodies.incrementAndGet())
                .doOnRequest(requests::add)
                .doOnCancel(cancels::incrementAndGet);
    }

    @Nested
    class BeforeTheConnectionArrives {

        @Test
        @Tag("lifecycle-32")
        void addsTheDemandUpAndHandsItOver() {
            database.on("create", acquisition);
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(3).build();
            scope(c -> numbers(100)).subscribe(subscriber);
            acquisition.awaitReached();
            subscriber.request(4);
            assertThat(requests).isEmpty();

            acquisition.complete(database.newConnection());

            int wanted = isMono() ? 1 : 7;
            Await.until(
                    () -> subscriber.getReceivedOnNext().size() == wanted,
                    () -> "got " + subscriber.getReceivedOnNext());
            if (!isMono()) {
                assertThat(requests.stream().mapToLong(n -> n).sum()).isEqualTo(7);
                assertThat(subscriber.isTerminated()).isFalse();
                subscriber.cancel();
            }
        }

        @Test
        @Tag("lifecycle-33")
        void capsTheDemandInsteadOfOverflowing() {
            database.on("create", acquisition);
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(Long.MAX_VALUE - 1).build();
            scope(c -> numbers(100)).subscribe(subscriber);
            subscriber.request(Long.MAX_VALUE - 1);

            acquisition.awaitReached().complete(database.newConnection());
            subscriber.block(PATIENCE);

            assertThat(subscriber.getReceivedOnNext()).hasSize(isMono() ? 1 : 100);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(requests).allMatch(n -> n > 0);
        }

        @ParameterizedTest
        @ValueSource(longs = {0, -1, Long.MIN_VALUE})
        @Tag("lifecycle-33")
        void refusesDemandThatIsNotPositiveAndDoesNotStartTheBody(long n) {
            database.on("create", acquisition);
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(0).build();
            Raw<Integer> raw = new Raw<>(subscriber);
            scope(c -> numbers(100)).subscribe(raw);
            acquisition.awaitReached();

            raw.subscription().request(n);
            subscriber.block(PATIENCE);
            acquisition.complete(database.newConnection());

            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("3.9")
                    .hasMessageContaining(String.valueOf(n));
            Await.until(() -> database.live() == 0, () -> "open");
            assertThat(bodies).hasValue(0);
        }
    }

    @Nested
    class WhileTheBodyRuns {

        @ParameterizedTest
        @ValueSource(longs = {0, -1, Long.MIN_VALUE})
        @Tag("lifecycle-33")
        void refusesDemandThatIsNotPositive(long n) {
            CountDownLatch started = new CountDownLatch(1);
            Sinks.Many<Integer> endless = Sinks.many().unicast().onBackpressureBuffer();
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(0).build();
            Raw<Integer> raw = new Raw<>(subscriber);
            scope(c -> endless.asFlux().doOnSubscribe(s -> started.countDown()).doOnCancel(cancels::incrementAndGet))
                    .subscribe(raw);
            await(started);

            raw.subscription().request(n);
            subscriber.block(PATIENCE);

            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageContaining("3.9");
            assertThat(subscriber.getReceivedOnNext()).isEmpty();
            // the body may be on its way to onSubscribe when it is refused, and is cancelled when it gets there
            Await.until(() -> cancels.get() == 1, () -> "cancels " + cancels);
            assertThat(database.log()).isEqualTo(rolledBack());
        }

        @Test
        @Tag("lifecycle-34")
        void takesDemandFromInsideOnNextWithoutGrowingTheStack() {
            AtomicLong count = new AtomicLong();
            AtomicInteger deepest = new AtomicInteger();
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(0).build();
            Raw<Integer> raw = new Raw<>(subscriber) {
                @Override
                public void onNext(Integer value) {
                    count.incrementAndGet();
                    if (value % 10_000 == 0) {
                        deepest.accumulateAndGet(new Throwable().getStackTrace().length, Math::max);
                    }
                    subscription().request(1);
                }
            };
            scope(c -> numbers(100_000)).subscribe(raw);

            raw.subscription().request(1);
            subscriber.block(PATIENCE);

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(count).hasValue(isMono() ? 1 : 100_000);
            assertThat(deepest.get()).isLessThan(500);
            assertThat(database.log()).isEqualTo(committed());
        }

        @Test
        @Tag("lifecycle-34")
        void stopsWhenCancelledFromInsideOnNext() {
            AtomicInteger count = new AtomicInteger();
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(0).build();
            Raw<Integer> raw = new Raw<>(subscriber) {
                @Override
                public void onNext(Integer value) {
                    if (count.incrementAndGet() == 3) {
                        subscription().cancel();
                    }
                }
            };
            scope(c -> numbers(100_000)).subscribe(raw);

            raw.subscription().request(Long.MAX_VALUE);

            Await.until(
                    () -> database.log().contains("close#1") && count.get() >= (isMono() ? 1 : 3),
                    () -> "log " + database.log());
            assertThat(count).hasValue(isMono() ? 1 : 3);
            assertThat(database.log()).isEqualTo(isMono() ? committed() : rolledBack());
        }

        @Test
        @Tag("lifecycle-35")
        void cancelsTheBodyAndExitsWhenTheSubscriberThrows() {
            IllegalStateException thrown = new IllegalStateException("in onNext");
            TestSubscriber<Integer> subscriber = TestSubscriber.create();

            scope(c -> numbers(100_000))
                    .doOnNext(value -> {
                        throw thrown;
                    })
                    .subscribe(subscriber);
            subscriber.block(PATIENCE);

            assertThat(subscriber.expectTerminalError()).isSameAs(thrown);
            Await.until(() -> database.log().contains("close#1"), () -> "log " + database.log());
            assertThat(database.log()).isEqualTo(isMono() ? committed() : rolledBack());
            assertThat(cancels).hasValue(1);
        }

        @Test
        @Tag("lifecycle-35")
        void exitsWhenASubscriberThrowsAgainstTheRules() {
            if (isMono()) {
                return;
            }
            IllegalStateException thrown = new IllegalStateException("in onNext");
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(0).build();
            Raw<Integer> raw = new Raw<>(subscriber) {
                @Override
                public void onNext(Integer value) {
                    throw thrown;
                }
            };
            scope(c -> numbers(100_000)).subscribe(raw);

            raw.subscription().request(Long.MAX_VALUE);
            subscriber.block(PATIENCE);

            assertThat(subscriber.expectTerminalError()).isSameAs(thrown);
            assertThat(database.log()).isEqualTo(rolledBack());
            assertThat(cancels).hasValue(1);
        }
    }

    @Nested
    class AfterTheEnd {

        @Test
        @Tag("lifecycle-34")
        void ignoresDemandAndCancel() {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            Raw<Integer> raw = new Raw<>(subscriber);
            scope(c -> numbers(3)).subscribe(raw);
            subscriber.block(PATIENCE);
            List<String> before = database.log();

            raw.subscription().request(1);
            raw.subscription().request(-1);
            raw.subscription().cancel();

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getProtocolErrors()).isEmpty();
            assertThat(database.log()).isEqualTo(before).isEqualTo(committed());
            assertThat(cancels).hasValue(isMono() ? 1 : 0);
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            assertThat(latch.await(PATIENCE.toSeconds(), TimeUnit.SECONDS)).isTrue();
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }

    /** Hands the subscription to the test as it is, without the checks of a well-behaved subscriber. */
    private static class Raw<T> implements CoreSubscriber<T> {

        private final TestSubscriber<T> actual;
        private Subscription subscription = Operators.emptySubscription();

        Raw(TestSubscriber<T> actual) {
            this.actual = actual;
        }

        Subscription subscription() {
            return subscription;
        }

        @Override
        public void onSubscribe(Subscription s) {
            subscription = s;
            actual.onSubscribe(s);
        }

        @Override
        public void onNext(T value) {
            actual.onNext(value);
        }

        @Override
        public void onError(Throwable error) {
            actual.onError(error);
        }

        @Override
        public void onComplete() {
            actual.onComplete();
        }
    }
}
