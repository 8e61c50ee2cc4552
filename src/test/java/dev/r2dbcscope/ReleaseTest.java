package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.function.Supplier;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** What happens when a step of the exit does not do what it should. */
class ReleaseTest extends FormContract {

    private final IllegalStateException failure = new IllegalStateException("of the exit");

    @Nested
    class CloseFails {

        @Test
        @Tag("lifecycle-10")
        void completesBecauseTheWorkIsDone() {
            assertCompletesWithReleaseFailure(() -> Mono.error(failure), failure.getMessage());
        }

        @Test
        @Tag("lifecycle-11")
        void completesWhenCloseThrows() {
            assertCompletesWithReleaseFailure(
                    () -> {
                        throw failure;
                    },
                    failure.getMessage());
        }

        @Test
        @Tag("lifecycle-11")
        @SuppressWarnings("NullAway")
        void completesWhenCloseReturnsNull() {
            assertCompletesWithReleaseFailure(() -> null, "null publisher");
        }

        private void assertCompletesWithReleaseFailure(Supplier<Publisher<?>> close, String message) {
            database.on("close", close);

            TestSubscriber<Integer> subscriber = runToEnd(c -> Mono.just(1));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log()).isEqualTo(committed());
            assertThat(events(ScopeEvent.ReleaseFailed.class))
                    .singleElement()
                    .satisfies(failed -> assertThat(failed.error()).hasMessageContaining(message));
            assertThat(events.get(events.size() - 1)).isInstanceOfSatisfying(ScopeEvent.Released.class, released -> {
                assertThat(released.outcome()).isEqualTo(ScopeOutcome.COMPLETED);
                assertThat(released.destroyed()).isTrue();
                assertThat(released.error()).isNull();
            });
        }
    }

    @Nested
    class UserCloses {

        @Test
        @Tag("lifecycle-12")
        void leavesTheConnectionToTheScope() {
            TestSubscriber<Integer> subscriber = runToEnd(c -> Mono.from(c.close())
                    .then(Mono.from(c.close()))
                    .then(Rows.ints(c, "select 1").next()));

            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log())
                    .isEqualTo(isTransactional() ? steps("select 1#1", "commit#1") : steps("select 1#1"));
        }
    }

    @Nested
    class StepHangs {

        private final VirtualTimeScheduler time = witness.virtualTime();

        private final Duration bound = ScopeOptions.defaults().releaseTimeout();

        @Test
        @Tag("lifecycle-13")
        void completesWhenCloseIsNotAnswered() {
            database.on("close", Mono::never);

            TestSubscriber<Integer> subscriber = hang(Mono.just(1));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log()).isEqualTo(committed());
            assertReleaseFailure("The connection was not taken back");
        }

        @Test
        @Tag("lifecycle-13")
        void failsWhenCommitIsNotAnswered() {
            database.on("commit", Mono::never);

            TestSubscriber<Integer> subscriber =
                    isTransactional() ? hang(Mono.just(1)) : settled(run(c -> Mono.just(1)));

            assertThat(database.log()).isEqualTo(committed());
            if (isTransactional()) {
                assertThat(subscriber.expectTerminalError())
                        .isInstanceOf(CommitOutcomeUnknownException.class)
                        .hasMessageContaining("whether the transaction was committed is not known")
                        .hasMessageContaining("scope 'contract' assembled at ")
                        .hasNoSuppressedExceptions();
                assertReleaseFailure(CommitOutcomeUnknownException.class, "COMMIT was not answered");
            } else {
                assertThat(subscriber.isTerminatedComplete()).isTrue();
            }
        }

        @Test
        @Tag("lifecycle-13")
        void passesOnTheOriginalErrorWhenRollbackIsNotAnswered() {
            IllegalArgumentException original = new IllegalArgumentException("of the user");
            String step = isTransactional() ? "rollback" : "close";
            database.on(step, Mono::never);

            TestSubscriber<Integer> subscriber = hang(Mono.error(original));

            assertThat(subscriber.expectTerminalError()).isSameAs(original);
            assertThat(original.getSuppressed()).singleElement().isInstanceOf(ScopeReleaseException.class);
            assertThat(database.log()).isEqualTo(rolledBack());
            assertReleaseFailure(isTransactional() ? "ROLLBACK" : "The connection was not taken back");
        }

        @Test
        @Tag("lifecycle-13")
        void destroysTheConnectionWhenAStatementDoesNotEnd() {
            database.on("select endless", Mono::never);
            TestSubscriber<Integer> detached = TestSubscriber.create();

            TestSubscriber<Integer> subscriber = settled(run(c -> {
                Rows.ints(c, "select endless").subscribe(detached);
                return Mono.just(1);
            }));
            time.advanceTimeBy(bound);

            if (isTransactional()) {
                assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeReleaseException.class);
            } else {
                assertThat(subscriber.isTerminatedComplete()).isTrue();
            }
            assertThat(detached.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            assertThat(database.log()).isEqualTo(steps("select endless#1"));
            assertReleaseFailure("A statement was still running at the end of the scope: select endless");
        }

        private TestSubscriber<Integer> hang(Mono<Integer> body) {
            TestSubscriber<Integer> subscriber = settled(run(c -> body));
            time.advanceTimeBy(bound.minusMillis(1));
            assertThat(subscriber.isTerminated()).isFalse();
            time.advanceTimeBy(Duration.ofMillis(1));
            return subscriber;
        }

        private TestSubscriber<Integer> settled(TestSubscriber<Integer> subscriber) {
            time.advanceTime();
            return subscriber;
        }

        private void assertReleaseFailure(String message) {
            assertReleaseFailure(ScopeReleaseException.class, message);
        }

        private void assertReleaseFailure(Class<?> type, String message) {
            assertThat(events(ScopeEvent.ReleaseFailed.class))
                    .singleElement()
                    .satisfies(failed -> assertThat(failed.error())
                            .isInstanceOf(type)
                            .hasMessageContaining(message)
                            .hasMessageContaining(bound.toString()));
            assertThat(events(ScopeEvent.Released.class))
                    .singleElement()
                    .satisfies(released -> assertThat(released.destroyed()).isTrue());
        }
    }

    @Nested
    class StepSignalsTwice {

        @Test
        @Tag("lifecycle-14")
        void ignoresWhatComesAfterTheFirstTerminalSignal() {
            Publisher<Object> twice = subscriber -> {
                subscriber.onSubscribe(Operators.emptySubscription());
                subscriber.onComplete();
                subscriber.onComplete();
                subscriber.onError(failure);
            };
            database.on("close", () -> twice);

            TestSubscriber<Integer> subscriber = runToEnd(c -> Flux.just(1));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getProtocolErrors()).isEmpty();
            assertThat(database.log()).isEqualTo(committed());
            assertThat(witness.droppedErrors()).containsExactly(failure);
            witness.droppedErrors().clear();
        }

        @Test
        @Tag("lifecycle-14")
        void ignoresACompletionAfterAnError() {
            Publisher<Object> both = subscriber -> {
                subscriber.onSubscribe(Operators.emptySubscription());
                subscriber.onError(failure);
                subscriber.onComplete();
                subscriber.onNext(1);
            };
            database.on("close", () -> both);

            TestSubscriber<Integer> subscriber = runToEnd(c -> Flux.just(1));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getProtocolErrors()).isEmpty();
            assertThat(events(ScopeEvent.ReleaseFailed.class)).hasSize(1);
        }
    }
}
