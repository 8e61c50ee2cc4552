package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** How a scope ends when its body completes or fails. */
class EndingsTest extends FormContract {

    private final IllegalStateException failure = new IllegalStateException("of the user");

    @Nested
    class BodyCompletes {

        @Test
        @Tag("lifecycle-1")
        void completesOnlyAfterTheConnectionWasGivenBack() {
            Step<Void> close = new Step<>();
            database.on("close", close);

            TestSubscriber<Integer> subscriber = run(c -> Flux.just(1));

            close.awaitReached();
            assertThat(subscriber.isTerminated()).isFalse();
            close.complete();
            subscriber.block(PATIENCE);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log()).isEqualTo(committed());
        }

        @Test
        @Tag("lifecycle-2")
        @Tag("lifecycle-3")
        void aMonoHoldsItsValueUntilTheExitIsDoneAndAFluxStreams() {
            Step<Void> close = new Step<>();
            database.on("close", close);

            TestSubscriber<Integer> subscriber = run(c -> Flux.just(1, 2));

            close.awaitReached();
            assertThat(subscriber.getReceivedOnNext()).isEqualTo(isMono() ? List.of() : List.of(1, 2));
            close.complete();
            subscriber.block(PATIENCE);
            assertThat(subscriber.getReceivedOnNext()).isEqualTo(isMono() ? List.of(1) : List.of(1, 2));
        }

        @Test
        @Tag("lifecycle-2")
        @Tag("lifecycle-3")
        @Tag("lifecycle-10")
        void aFailingCommitIsTheErrorAndAMonosValueIsDiscarded() {
            database.on("commit", () -> Mono.error(failure));
            List<Object> discarded = new ArrayList<>();
            TestSubscriber<String> subscriber = TestSubscriber.create();

            scope(c -> Flux.just("paid", "sent"))
                    .doOnDiscard(String.class, discarded::add)
                    .subscribe(subscriber);
            subscriber.block(PATIENCE);

            if (!isTransactional()) {
                assertThat(subscriber.isTerminatedComplete()).isTrue();
                return;
            }
            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(subscriber.getReceivedOnNext()).isEqualTo(isMono() ? List.of() : List.of("paid", "sent"));
            assertThat(discarded).isEqualTo(isMono() ? List.of("paid") : List.of());
            assertThat(database.log()).isEqualTo(steps("commit#1", "rollback#1"));
            assertThat(events(ScopeEvent.Released.class))
                    .singleElement()
                    .satisfies(released -> assertThat(released.error()).isSameAs(failure))
                    .satisfies(released -> assertThat(released.destroyed()).isFalse());
        }

        @Test
        @Tag("lifecycle-4")
        void anEmptyBodyExitsAndCompletes() {
            TestSubscriber<Object> subscriber = runToEnd(c -> Mono.empty());

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getReceivedOnNext()).isEmpty();
            assertThat(database.log()).isEqualTo(committed());
        }

        @Test
        void aMonoTakesTheFirstOfManyAndCommits() {
            TestSubscriber<Integer> subscriber = runToEnd(c -> Flux.range(1, 1_000));

            assertThat(subscriber.getReceivedOnNext()).hasSize(isMono() ? 1 : 1_000);
            assertThat(database.log()).isEqualTo(committed());
        }
    }

    @Nested
    class BodyFails {

        @Test
        @Tag("lifecycle-6")
        void passesOnWhatTheFunctionThrows() {
            assertFailsWith(run(c -> {
                throw failure;
            }));
        }

        @Test
        @Tag("lifecycle-6")
        @SuppressWarnings("NullAway")
        void failsWhenTheFunctionReturnsNull() {
            TestSubscriber<Object> subscriber = runToEnd(c -> null);

            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(NullPointerException.class)
                    .hasMessageContaining("returned a null")
                    .hasNoSuppressedExceptions();
            assertThat(database.log()).isEqualTo(rolledBack());
        }

        @Test
        @Tag("lifecycle-7")
        void passesOnWhatTheSubscriptionToTheBodyThrows() {
            Publisher<Object> throwing = subscriber -> {
                throw failure;
            };

            assertFailsWith(run(c -> throwing));
        }

        @Test
        @Tag("lifecycle-8")
        void rollsBackAndReleasesBeforeItPassesOnTheOriginalError() {
            Step<Void> close = new Step<>();
            database.on("close", close);

            TestSubscriber<Integer> subscriber = run(c -> Flux.concat(Mono.<Integer>error(failure), Mono.just(1)));

            close.awaitReached();
            assertThat(subscriber.isTerminated()).isFalse();
            close.complete();
            assertFailsWith(subscriber);
        }

        @Test
        @Tag("lifecycle-9")
        void suppressesAFailureOfTheExitUnderTheOriginalError() {
            IllegalArgumentException second = new IllegalArgumentException("of the exit");
            database.on(isTransactional() ? "rollback" : "close", () -> Mono.error(second));

            TestSubscriber<Object> subscriber = runToEnd(c -> Mono.error(failure));

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(failure.getSuppressed()).containsExactly(second);
            assertThat(database.log()).isEqualTo(rolledBack());
            assertThat(events(ScopeEvent.ReleaseFailed.class))
                    .singleElement()
                    .satisfies(failed -> assertThat(failed.error()).isSameAs(second));
            assertThat(events(ScopeEvent.Released.class))
                    .singleElement()
                    .satisfies(released -> assertThat(released.destroyed()).isTrue());
        }

        private void assertFailsWith(TestSubscriber<?> subscriber) {
            subscriber.block(PATIENCE);
            assertThat(subscriber.expectTerminalError()).isSameAs(failure).hasNoSuppressedExceptions();
            assertThat(subscriber.getReceivedOnNext()).isEmpty();
            assertThat(database.log()).isEqualTo(rolledBack());
        }
    }
}
