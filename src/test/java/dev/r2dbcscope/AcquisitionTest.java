package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** What a scope does with the connections, and with the lack of them, that its factory gives. */
class AcquisitionTest extends FormContract {

    private final IllegalStateException failure = new IllegalStateException("of the factory");
    private final AtomicInteger bodies = new AtomicInteger();

    private TestSubscriber<Integer> start() {
        return run(c -> {
            bodies.incrementAndGet();
            return Mono.just(1);
        });
    }

    private TestSubscriber<Integer> finish() {
        TestSubscriber<Integer> subscriber = start();
        subscriber.block(PATIENCE);
        return subscriber;
    }

    @Nested
    class NoConnection {

        @Test
        @Tag("lifecycle-5")
        void failsWithATypedErrorWhenTheFactoryCompletesWithoutOne() {
            database.on("create", Mono::empty);

            assertThat(finish().expectTerminalError())
                    .isInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("completed without a connection")
                    .hasMessageContaining("scope 'contract' assembled at ");
            assertNothingHeld();
        }

        @Test
        @Tag("lifecycle-5")
        void passesOnTheErrorOfTheFactoryWithANoteOfTheScope() {
            database.on("create", () -> Mono.error(failure));

            assertThat(finish().expectTerminalError()).isSameAs(failure);
            assertThat(failure.getSuppressed())
                    .singleElement()
                    .isInstanceOfSatisfying(
                            ScopeAcquisitionException.class,
                            note -> assertThat(note.scopeName()).isEqualTo("contract"));
            assertNothingHeld();
        }

        @Test
        @Tag("lifecycle-5")
        void passesOnWhatTheFactoryThrows() {
            database.on("create", () -> {
                throw failure;
            });

            assertThat(finish().expectTerminalError()).isSameAs(failure);
            assertNothingHeld();
        }

        @Test
        @Tag("lifecycle-5")
        @SuppressWarnings("NullAway")
        void failsWhenTheFactoryReturnsNull() {
            database.on("create", () -> null);

            assertThat(finish().expectTerminalError())
                    .isInstanceOf(NullPointerException.class)
                    .hasMessage("The connection factory returned a null publisher");
            assertNothingHeld();
        }

        @Test
        @Tag("lifecycle-5")
        void passesOnTheErrorOfBeginAndGivesTheConnectionBack() {
            if (!isTransactional()) {
                return;
            }
            database.on("begin", () -> Mono.error(failure));

            assertThat(finish().expectTerminalError()).isSameAs(failure);
            assertThat(bodies).hasValue(0);
            assertThat(database.log().get(database.log().size() - 1)).isEqualTo("close#1");
            assertThat(database.log()).doesNotContain("commit#1");
            assertThat(events(ScopeEvent.OpenFailed.class)).hasSize(1);
        }

        private void assertNothingHeld() {
            assertThat(bodies).hasValue(0);
            assertThat(database.log()).containsExactly("create");
            assertThat(scopes.live()).isEmpty();
            assertThat(events).hasExactlyElementsOfTypes(ScopeEvent.Waiting.class, ScopeEvent.OpenFailed.class);
        }
    }

    @Nested
    class NoAnswer {

        private final VirtualTimeScheduler time = witness.virtualTime();
        private final Duration bound = ScopeOptions.defaults().acquireTimeout();

        @Test
        @Tag("lifecycle-57")
        void failsWithinTheAcquireTimeoutAndReleasesALateConnection() {
            Step<Connection> acquisition = new Step<>();
            database.on("create", acquisition);
            TestSubscriber<Integer> subscriber = start();
            time.advanceTimeBy(bound.minusMillis(1));
            assertThat(subscriber.isTerminated()).isFalse();
            time.advanceTimeBy(Duration.ofMillis(1));

            assertThat(subscriber.expectTerminalError())
                    .isInstanceOfSatisfying(ScopeAcquisitionException.class, error -> {
                        assertThat(error.scopeName()).isEqualTo("contract");
                        assertThat(error.scopeOrigin()).contains("Form.java:");
                    })
                    .hasMessageContaining("No connection within the acquire timeout of " + bound)
                    .hasMessageContaining("live scopes: {WAITING=1}");
            assertThat(scopes.live()).isEmpty();
            assertThat(acquisition.cancels()).isZero();

            acquisition.complete(database.newConnection());
            time.advanceTime();
            assertThat(database.log()).containsExactly("create", "close#1");
            assertThat(bodies).hasValue(0);
            assertThat(subscriber.getProtocolErrors()).isEmpty();
        }

        @Test
        @Tag("lifecycle-57")
        void failsWithinTheAcquireTimeoutWhenBeginIsNotAnswered() {
            if (!isTransactional()) {
                return;
            }
            database.on("begin", Mono::never);
            TestSubscriber<Integer> subscriber = start();
            time.advanceTimeBy(bound);

            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("the database did not answer while the transaction began");
            assertThat(bodies).hasValue(0);
            assertThat(database.log()).containsExactly("create", "begin#1", "close#1");
        }
    }

    @Nested
    class TooMuch {

        @Test
        @Tag("lifecycle-40")
        void usesTheFirstConnectionAndReleasesTheOthers() {
            database.on("create", () -> Flux.range(1, 3).map(i -> database.newConnection()));

            TestSubscriber<Integer> subscriber = finish();

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(bodies).hasValue(1);
            assertThat(database.log()).containsOnlyOnce("close#1", "close#2", "close#3");
            assertThat(database.log()).endsWith("close#1");
            assertThat(database.log()).doesNotContain("begin#2", "begin#3");
        }

        @Test
        @Tag("lifecycle-41")
        void releasesAConnectionThatComesAfterAnError() {
            Publisher<Object> errorThenConnection = subscriber -> {
                subscriber.onSubscribe(Operators.emptySubscription());
                subscriber.onError(failure);
                subscriber.onNext(database.newConnection());
            };
            database.on("create", () -> errorThenConnection);

            TestSubscriber<Integer> subscriber = finish();

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(subscriber.getProtocolErrors()).isEmpty();
            assertThat(bodies).hasValue(0);
            assertThat(database.log()).containsExactly("create", "close#1");
        }

        @Test
        @Tag("lifecycle-41")
        void dropsAnErrorThatComesAfterTheConnection() {
            Publisher<Object> connectionThenError = subscriber -> {
                subscriber.onSubscribe(Operators.emptySubscription());
                subscriber.onNext(database.newConnection());
                subscriber.onError(failure);
            };
            database.on("create", () -> connectionThenError);

            TestSubscriber<Integer> subscriber = finish();

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(database.log()).isEqualTo(committed());
            assertThat(witness.droppedErrors()).containsExactly(failure);
            witness.droppedErrors().clear();
        }

        @Test
        @Tag("lifecycle-42")
        void neverCancelsAFactoryThatGoesOnAfterItsConnection() {
            AtomicInteger cancels = new AtomicInteger();
            database.on(
                    "create",
                    () -> Flux.concat(Mono.fromSupplier(database::newConnection), Mono.never())
                            .doOnCancel(cancels::incrementAndGet));

            TestSubscriber<Integer> subscriber = finish();

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(cancels).hasValue(0);
            assertThat(database.log()).isEqualTo(committed());
        }

        @Test
        @Tag("lifecycle-43")
        void refusesAConnectionThatAnotherLiveScopeHolds() {
            Connection shared = database.newConnection();
            database.on("create", () -> Mono.just(shared));
            Step<Integer> work = new Step<>();
            TestSubscriber<Integer> first = run(c -> work.publisher());
            work.awaitReached();

            TestSubscriber<Integer> second = finish();

            assertThat(second.expectTerminalError())
                    .isInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("a connection that another live scope still holds (ProbeConnection#1)");
            assertThat(bodies).hasValue(0);
            assertThat(database.log()).doesNotContain("close#1");

            work.complete(7);
            first.block(PATIENCE);
            assertThat(first.getReceivedOnNext()).isEqualTo(List.of(7));
            assertThat(database.log()).containsOnlyOnce("close#1");
        }
    }
}
