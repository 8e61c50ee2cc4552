package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.scheduler.Schedulers;
import reactor.test.StepVerifier;
import reactor.test.publisher.TestPublisher;
import reactor.test.util.RaceTestUtils;

/** What the batches ask of the source, and when. */
class UnnestBatchesTest {

    private static final java.time.Duration BOUND = java.time.Duration.ofSeconds(60);

    private static UnnestWriter<Integer> writer(int batchSize) {
        return UnnestWriter.<Integer>into("t").column("n", "int", n -> n).withBatchSize(batchSize);
    }

    private static Flux<String> sizes(Flux<Integer> rows, int batchSize) {
        return new FluxUnnestBatches<>(rows, writer(batchSize).plan())
                .map(batch -> batch.firstRow() + "-" + batch.lastRow());
    }

    @Test
    void asksForNothingUntilABatchIsWanted() {
        AtomicLong requested = new AtomicLong();
        Flux<Integer> rows = Flux.range(1, 1_000).doOnRequest(requested::addAndGet);
        StepVerifier.create(sizes(rows, 100), 0)
                .expectSubscription()
                .then(() -> assertThat(requested).hasValue(0))
                .thenRequest(1)
                .expectNext("1-100")
                .then(() -> assertThat(requested).hasValue(100))
                .thenRequest(2)
                .expectNext("101-200", "201-300")
                .then(() -> assertThat(requested).hasValue(300))
                .thenCancel()
                .verify(BOUND);
        assertThat(requested).hasValue(300);
    }

    @Test
    void theRestIsABatch() {
        StepVerifier.create(sizes(Flux.range(1, 250), 100))
                .expectNext("1-100", "101-200", "201-250")
                .expectComplete()
                .verify(BOUND);
        StepVerifier.create(sizes(Flux.range(1, 200), 100))
                .expectNext("1-100", "101-200")
                .expectComplete()
                .verify(BOUND);
    }

    @Test
    void anEndWithoutDemandIsTold() {
        StepVerifier.create(sizes(Flux.empty(), 10), 0).expectComplete().verify(BOUND);
        StepVerifier.create(sizes(Flux.error(new ArithmeticException()), 10), 0)
                .expectError(ArithmeticException.class)
                .verify(BOUND);
    }

    @Test
    void rowsThatWereCollectedBeforeAFailureAreNotEmitted() {
        StepVerifier.create(sizes(Flux.range(1, 5).concatWith(Flux.error(new ArithmeticException())), 10))
                .expectError(ArithmeticException.class)
                .verify(BOUND);
    }

    @Test
    void aCancelReachesTheSource() {
        TestPublisher<Integer> rows = TestPublisher.create();
        StepVerifier.create(sizes(rows.flux(), 10)).thenCancel().verify(BOUND);
        rows.assertCancelled();
    }

    @Test
    void aFailingFunctionCancelsTheSource() {
        AtomicLong cancelled = new AtomicLong();
        UnnestWriter<Integer> failing = UnnestWriter.<Integer>into("t").column("n", "int", n -> {
            throw new ArithmeticException();
        });
        Flux<Integer> rows = Flux.range(1, 5).doOnCancel(cancelled::incrementAndGet);
        StepVerifier.create(new FluxUnnestBatches<>(rows, failing.plan()))
                .expectError(ArithmeticException.class)
                .verify(BOUND);
        assertThat(cancelled).hasValue(1);
    }

    @Test
    void demandThatRacesWithTheEndOfABatchIsNotLost() {
        for (int i = 0; i < 20_000; i++) {
            List<String> batches = new CopyOnWriteArrayList<>();
            TestPublisher<Integer> rows = TestPublisher.create();
            var subscriber = reactor.test.subscriber.TestSubscriber.<String>builder()
                    .initialRequest(1)
                    .build();
            sizes(rows.flux(), 1).doOnNext(batches::add).subscribe(subscriber);
            while (!rows.wasRequested()) {
                Thread.onSpinWait();
            }
            RaceTestUtils.race(() -> rows.next(1), () -> subscriber.request(1));
            // the source is asked again by whoever came second, perhaps on the scheduler's thread
            AtomicLong waited = new AtomicLong(System.nanoTime());
            while (!isAsked(rows)) {
                assertThat(System.nanoTime() - waited.get()).isLessThan(BOUND.toNanos());
                Thread.onSpinWait();
            }
            rows.next(2).complete();
            subscriber.block(BOUND);
            assertThat(subscriber.getReceivedOnNext()).containsExactly("1-1", "2-2");
        }
    }

    private static boolean isAsked(TestPublisher<Integer> rows) {
        try {
            rows.assertMinRequested(1);
            return true;
        } catch (AssertionError notYet) {
            return false;
        }
    }

    @Test
    void encodesOffTheThreadThatAsks() {
        List<String> threads = new ArrayList<>();
        UnnestWriter<Integer> writer = UnnestWriter.<Integer>into("t").column("n", "int", n -> {
            threads.add(Thread.currentThread().getName());
            return n;
        });
        StepVerifier.create(new FluxUnnestBatches<>(Flux.range(1, 3), writer.plan()).subscribeOn(Schedulers.single()))
                .expectNextCount(1)
                .expectComplete()
                .verify(BOUND);
        assertThat(threads).hasSize(3).allMatch(name -> name.startsWith("parallel-"));
    }
}
