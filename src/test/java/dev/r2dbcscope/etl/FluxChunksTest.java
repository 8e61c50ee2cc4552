package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Await;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;
import reactor.test.StepVerifier;
import reactor.test.publisher.TestPublisher;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.util.RaceTestUtils;

class FluxChunksTest {

    private static final int RACES = 20_000;
    private static final Duration BOUND = Duration.ofSeconds(60);

    private static ChunkBounds<Integer> rows(int maxRows) {
        return ChunkBounds.<Integer>defaults().withMaxRows(maxRows);
    }

    private static List<List<Integer>> rowsOf(List<Chunk<Integer>> chunks) {
        return chunks.stream().map(Chunk::rows).toList();
    }

    @Test
    void endsAChunkAtItsRows() {
        List<Chunk<Integer>> chunks =
                FluxChunks.of(Flux.range(1, 7), rows(3)).collectList().block(BOUND);

        assertThat(rowsOf(chunks)).containsExactly(List.of(1, 2, 3), List.of(4, 5, 6), List.of(7));
        assertThat(chunks).extracting(Chunk::number).containsExactly(1L, 2L, 3L);
        assertThat(chunks).extracting(Chunk::firstRow).containsExactly(1L, 4L, 7L);
        assertThat(chunks).extracting(Chunk::lastRow).containsExactly(3L, 6L, 7L);
    }

    @Test
    void hasNoEmptyChunkAtTheEnd() {
        assertThat(rowsOf(FluxChunks.of(Flux.range(1, 4), rows(2)).collectList().block(BOUND)))
                .containsExactly(List.of(1, 2), List.of(3, 4));
        assertThat(FluxChunks.of(Flux.<Integer>empty(), rows(2)).collectList().block(BOUND))
                .isEmpty();
    }

    @Test
    void endsAChunkWithTheRowThatReachesItsBytes() {
        ChunkBounds<Integer> bounds = rows(100).withMaxBytes(10, row -> row);

        assertThat(rowsOf(FluxChunks.of(Flux.just(4, 5, 1, 20, 3, 3), bounds)
                        .collectList()
                        .block(BOUND)))
                .containsExactly(List.of(4, 5, 1), List.of(20), List.of(3, 3));
    }

    @Test
    void countsOnFromWhereItBegins() {
        Flux<Positioned<String>> source = Flux.just("a", "b", "c").map(row -> new Positioned<>(row, row.toUpperCase()));

        List<Chunk<String>> chunks = FluxChunks.ofPositioned(
                        source, ChunkBounds.<String>defaults().withMaxRows(2), new FluxChunks.Start(5, 100))
                .collectList()
                .block(BOUND);

        assertThat(chunks)
                .containsExactly(
                        new Chunk<>(6, 101, List.of("a", "b"), List.of("A", "B")),
                        new Chunk<>(7, 103, List.of("c"), List.of("C")));
    }

    @Test
    void endsAChunkThatLongAfterItsFirstRow() {
        StepVerifier.withVirtualTime(() -> FluxChunks.of(
                                Flux.interval(Duration.ofSeconds(2)).take(5).map(Long::intValue),
                                rows(100).withMaxWait(Duration.ofSeconds(5)))
                        .map(Chunk::rows))
                .expectSubscription()
                .expectNoEvent(Duration.ofMillis(6_999)) // the first row is there after two seconds
                .thenAwait(Duration.ofMillis(1))
                .expectNext(List.of(0, 1, 2))
                .thenAwait(Duration.ofSeconds(3))
                .expectNext(List.of(3, 4))
                .expectComplete()
                .verify(BOUND);
    }

    @Test
    void growsOnWhenItsTimeIsUpAndItIsNotWanted() {
        StepVerifier.withVirtualTime(
                        () -> FluxChunks.of(
                                        Flux.interval(Duration.ofSeconds(1)).map(Long::intValue),
                                        rows(100).withMaxWait(Duration.ofMillis(2_500)))
                                .map(Chunk::rows),
                        0)
                .expectSubscription()
                .thenRequest(1)
                .thenAwait(Duration.ofSeconds(4))
                .expectNext(List.of(0, 1, 2))
                .thenAwait(Duration.ofSeconds(30))
                .thenRequest(1)
                .expectNext(IntStream.range(3, 34).boxed().toList())
                .thenCancel()
                .verify(BOUND);
    }

    @Test
    void waitsWithTheSourceWhenTheChunkIsFullAndNotWanted() {
        AtomicLong asked = new AtomicLong();
        List<Chunk<Integer>> chunks = new ArrayList<>();
        BaseSubscriber<Chunk<Integer>> subscriber = new BaseSubscriber<>() {
            @Override
            protected void hookOnSubscribe(Subscription subscription) {
                request(1);
            }

            @Override
            protected void hookOnNext(Chunk<Integer> chunk) {
                chunks.add(chunk);
            }
        };
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet(); // so that all of it is on this thread
        try {
            FluxChunks.of(
                            Flux.range(0, 1_000_000).doOnRequest(asked::addAndGet),
                            rows(1_000).withPrefetch(64))
                    .subscribe(subscriber);
            time.advanceTime();

            assertThat(chunks).hasSize(1);
            assertThat(asked.get()).isBetween(2_000L, 2_064L);
        } finally {
            subscriber.cancel();
            VirtualTimeScheduler.reset();
        }
    }

    @Test
    void isNoFurtherAheadThanTheBytesOfAChunk() {
        AtomicLong ahead = new AtomicLong();
        AtomicLong most = new AtomicLong();
        Flux<Integer> large = Flux.range(0, 10_000).doOnRequest(n -> most.accumulateAndGet(n, Math::max));

        FluxChunks.of(large, rows(1_000).withMaxBytes(10_000, row -> 1_000).withPrefetch(256))
                .doOnNext(chunk -> ahead.incrementAndGet())
                .then()
                .block(BOUND);

        assertThat(ahead.get()).isEqualTo(1_000);
        assertThat(most.get()).as("before the first row is known").isLessThanOrEqualTo(16);
    }

    /** The source is asked on another thread. */
    private static void awaitDemand(TestPublisher<Integer> source) {
        Await.until(
                () -> {
                    try {
                        source.assertMinRequested(1);
                        return true;
                    } catch (AssertionError none) {
                        return false;
                    }
                },
                () -> "not asked");
    }

    @Nested
    class Endings {

        @Test
        void anErrorComesBehindTheRowsBeforeIt() {
            IllegalStateException error = new IllegalStateException("stop");

            StepVerifier.create(FluxChunks.of(Flux.range(1, 5).concatWith(Flux.error(error)), rows(3))
                            .map(Chunk::rows))
                    .expectNext(List.of(1, 2, 3))
                    .expectNext(List.of(4, 5))
                    .expectErrorSatisfies(seen -> assertThat(seen).isSameAs(error))
                    .verify(BOUND);
        }

        @Test
        void anErrorOfTheSizeCancelsTheSource() {
            IllegalStateException error = new IllegalStateException("size");
            TestPublisher<Integer> source = TestPublisher.create();

            StepVerifier.create(FluxChunks.of(source, rows(3).withMaxBytes(10, row -> {
                        throw error;
                    })))
                    .then(() -> awaitDemand(source))
                    .then(() -> source.next(1))
                    .expectErrorSatisfies(seen -> assertThat(seen).isSameAs(error))
                    .verify(BOUND);
            source.assertCancelled();
        }

        @Test
        void aCancelDiscardsWhatIsNotInAChunkYet() {
            Queue<Object> discarded = new ConcurrentLinkedQueue<>();
            TestPublisher<Integer> source = TestPublisher.create();
            AtomicReference<Subscription> subscription = new AtomicReference<>();
            FluxChunks.of(source, rows(3))
                    .doOnDiscard(Integer.class, discarded::add)
                    .subscribe(new BaseSubscriber<>() {
                        @Override
                        protected void hookOnSubscribe(Subscription s) {
                            subscription.set(s);
                            s.request(1);
                        }
                    });
            awaitDemand(source);
            source.next(1, 2);
            subscription.get().cancel();

            source.assertCancelled();
            Await.until(() -> discarded.size() == 2, () -> "discarded: " + discarded);
        }

        @Test
        void aSourceThatEmitsMoreThanWasAskedForFails() {
            TestPublisher<Integer> source = TestPublisher.createNoncompliant(TestPublisher.Violation.REQUEST_OVERFLOW);

            StepVerifier.create(FluxChunks.of(source, rows(100).withPrefetch(8)), 0)
                    .expectSubscription()
                    .then(() -> IntStream.range(0, 100).forEach(source::next))
                    .thenRequest(1)
                    .expectNextCount(1)
                    .expectErrorMessage("The source emits more rows than it was asked for")
                    .verify(BOUND);
        }
    }

    @Nested
    @Tag("race")
    class Races {

        private final Queue<Integer> seen = new ConcurrentLinkedQueue<>();
        private final Queue<Integer> discarded = new ConcurrentLinkedQueue<>();
        private final AtomicInteger endings = new AtomicInteger();
        private final AtomicInteger chunks = new AtomicInteger();

        private BaseSubscriber<Chunk<Integer>> subscriber(long demand) {
            seen.clear();
            discarded.clear();
            endings.set(0);
            chunks.set(0);
            return new BaseSubscriber<>() {
                @Override
                protected void hookOnSubscribe(Subscription s) {
                    s.request(demand);
                }

                @Override
                protected void hookOnNext(Chunk<Integer> chunk) {
                    chunks.incrementAndGet();
                    seen.addAll(chunk.rows());
                }

                @Override
                protected void hookOnComplete() {
                    endings.incrementAndGet();
                }

                @Override
                protected void hookOnError(Throwable error) {
                    endings.addAndGet(100);
                }
            };
        }

        @Test
        void noRowIsLostWhenTimeIsUpAndMoreIsWantedWhileRowsArrive() {
            for (int i = 0; i < RACES; i++) {
                Sinks.Many<Integer> source = Sinks.many().unicast().onBackpressureBuffer();
                BaseSubscriber<Chunk<Integer>> subscriber = subscriber(1);
                FluxChunks.of(source.asFlux(), rows(2).withMaxWait(Duration.ofNanos(20_000)))
                        .subscribe(subscriber);
                source.tryEmitNext(1);

                RaceTestUtils.race(
                        () -> {
                            source.tryEmitNext(2);
                            source.tryEmitNext(3);
                            source.tryEmitComplete();
                        },
                        subscriber::requestUnbounded);

                Await.until(() -> endings.get() > 0, () -> "seen: " + seen);
                assertThat(endings).hasValue(1);
                assertThat(seen).containsExactly(1, 2, 3);
                assertThat(chunks.get()).isBetween(2, 3);
            }
        }

        /** {@code Sinks} discards a value twice at times, when a cancel meets it. */
        private static final class Source extends Flux<Integer> {
            private CoreSubscriber<? super Integer> subscriber;

            @Override
            public void subscribe(CoreSubscriber<? super Integer> actual) {
                subscriber = actual;
                actual.onSubscribe(new Subscription() {
                    @Override
                    public void request(long n) {}

                    @Override
                    public void cancel() {}
                });
            }
        }

        @Test
        void everyRowIsInAChunkOrDiscardedWhenACancelMeetsThem() {
            for (int i = 0; i < RACES; i++) {
                Source source = new Source();
                BaseSubscriber<Chunk<Integer>> subscriber = subscriber(Long.MAX_VALUE);
                FluxChunks.of(source, rows(2))
                        .doOnDiscard(Integer.class, discarded::add)
                        .subscribe(subscriber);
                source.subscriber.onNext(1);
                source.subscriber.onNext(2);

                RaceTestUtils.race(() -> source.subscriber.onNext(3), subscriber::cancel);

                Await.until(
                        () -> seen.size() + discarded.size() >= 3, () -> "seen: " + seen + ", discarded: " + discarded);
                assertThat(List.copyOf(seen)).isIn(List.of(), List.of(1, 2));
                assertThat(Stream.concat(seen.stream(), discarded.stream())).containsExactlyInAnyOrder(1, 2, 3);
            }
        }
    }
}
