package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.FluxSink;
import reactor.core.publisher.Mono;
import reactor.core.publisher.MonoSink;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;
import reactor.util.context.Context;

/** Code that cannot be cancelled, and how long a scope holds its connection for it. */
class ScopeBridgeTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withListener(events::add))
            .transactions(TransactionOptions.defaults().withCompletionTimeout(Duration.ofSeconds(10))));
    private final Drops drops = new Drops();
    private final CompletableFuture<Integer> future = new CompletableFuture<>();
    private final AtomicReference<Connection> used = new AtomicReference<>();

    /** Code that keeps its connection and ends with the future. */
    private final Function<Connection, Mono<Integer>> bridge = ScopeBridge.stage(connection -> {
        used.set(connection);
        return future;
    });

    private <T> TestSubscriber<T> subscriber() {
        return TestSubscriber.builder()
                .contextPutAll(drops.watch(Context.empty()))
                .build();
    }

    /** What the bridged code does on its own, outside every pipeline. */
    private void statement(String sql) {
        Rows.ints(used.get(), sql).blockLast(FormContract.PATIENCE);
    }

    @Nested
    class AStage {

        @Test
        void emitsItsValueAndCommits() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(bridge).subscribe(subscriber);
            statement("insert");

            future.complete(7);

            assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            assertThat(database.log()).containsExactly("create", "begin#1", "insert#1", "commit#1", "close#1");
        }

        @Test
        void completesEmptyForNull() {
            future.complete(null);

            assertThat(scopes.inTransaction(bridge).blockOptional(FormContract.PATIENCE))
                    .isEmpty();
        }

        @Test
        void failsWithItsOwnError() {
            IllegalStateException failure = new IllegalStateException("own");
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(ScopeBridge.<Integer>stage(c -> future.thenApply(n -> n)))
                    .subscribe(subscriber);

            future.completeExceptionally(failure);

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        }

        @Test
        @SuppressWarnings("NullAway")
        void thatIsNullOrIsNeverMadeIsAnErrorOfThePipeline() {
            IllegalStateException failure = new IllegalStateException("own");
            assertThatThrownBy(() -> scopes.inTransaction(ScopeBridge.<Integer>stage(c -> null))
                            .block(FormContract.PATIENCE))
                    .isInstanceOf(NullPointerException.class)
                    .hasMessageContaining("null stage");
            assertThatThrownBy(() -> scopes.inTransaction(ScopeBridge.<Integer>stage(c -> {
                                throw failure;
                            }))
                            .block(FormContract.PATIENCE))
                    .isSameAs(failure);

            assertThat(database.log())
                    .filteredOn(step -> step.startsWith("rollback"))
                    .hasSize(2);
        }

        @Test
        void isMadeAgainForEachSubscription() {
            future.complete(7);

            assertThat(scopes.inTransaction(bridge).repeat(1).collectList().block(FormContract.PATIENCE))
                    .containsExactly(7, 7);
        }

        @Test
        void worksWithAnyConnection() {
            future.complete(7);

            assertThat(Mono.usingWhen(Mono.from(database.create()), bridge::apply, Connection::close)
                            .block(FormContract.PATIENCE))
                    .isEqualTo(7);
        }

        @Test
        void isNotStartedAfterTheEndOfTheScope() {
            AtomicReference<Connection> kept = new AtomicReference<>();
            scopes.withConnection(c -> {
                        kept.set(c);
                        return Mono.empty();
                    })
                    .block(FormContract.PATIENCE);

            assertThatThrownBy(() -> bridge.apply(kept.get()).block(FormContract.PATIENCE))
                    .isInstanceOf(ScopeClosedException.class);
            assertThat(used).hasValue(null);
        }
    }

    @Nested
    class AfterACancel {

        @Test
        void theCodeGoesOnAndTheExitComesAfterIt() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(bridge).subscribe(subscriber);

            subscriber.cancel();
            statement("still mine");
            assertThat(scopes.live()).hasSize(1);
            assertThat(future.isCancelled()).isFalse();
            future.complete(7);

            assertThat(database.log()).containsExactly("create", "begin#1", "still mine#1", "rollback#1", "close#1");
            assertThat(drops.values()).containsExactly(7);
        }

        @Test
        void theErrorOfTheCodeIsDropped() {
            IllegalStateException failure = new IllegalStateException("own");
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(bridge).subscribe(subscriber);

            subscriber.cancel();
            future.completeExceptionally(failure);

            assertThat(drops.errors()).containsExactly(failure);
        }

        @Test
        void theWaitIsBounded() {
            VirtualTimeScheduler time = witness.virtualTime();
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(bridge).subscribe(subscriber);

            subscriber.cancel();
            time.advanceTimeBy(Duration.ofSeconds(9));
            assertThat(database.log()).containsExactly("create", "begin#1");
            time.advanceTimeBy(Duration.ofSeconds(1));

            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
            assertThatThrownBy(() -> statement("too late")).isInstanceOf(ScopeClosedException.class);
            future.complete(7);
            assertThat(drops.values()).containsExactly(7);
        }

        @Test
        void drainWaitsForTheCode() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.withConnection(bridge).subscribe(subscriber);
            subscriber.cancel();
            TestSubscriber<Void> drained = TestSubscriber.create();
            scopes.drain(FormContract.PATIENCE).subscribe(drained);

            assertThat(drained.isTerminated()).isFalse();
            future.complete(7);

            assertThat(drained.isTerminatedComplete()).isTrue();
        }

        @Test
        void aRunningBridgeIsNotBetweenStatements() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.transactions(TransactionOptions.defaults().withOnCancel(OnCancel.COMMIT))
                    .inTransaction(bridge)
                    .subscribe(subscriber);

            subscriber.cancel();
            statement("still mine");
            future.complete(7);

            assertThat(database.log()).contains("rollback#1");
        }
    }

    @Nested
    class OfScopesAround {

        @ParameterizedTest
        @ValueSource(strings = {"REQUIRED", "NESTED"})
        void theExitWaitsWhenTheOuterPipelineIsCancelled(Propagation propagation) {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(c -> scopes.transactions(propagation).inTransaction(bridge))
                    .subscribe(subscriber);

            subscriber.cancel();
            statement("still mine");
            assertThat(database.log()).noneMatch(step -> step.startsWith("rollback"));
            future.complete(7);

            assertThat(database.log()).contains("still mine#1").endsWith("rollback#1", "close#1");
        }

        @Test
        void theExitWaitsWhenASiblingFails() {
            Step<Integer> sibling = new Step<>();
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.withConnectionMany(c -> Flux.merge(scopes.inTransaction(bridge), Flux.from(sibling.publisher())))
                    .subscribe(subscriber);

            sibling.fail(new IllegalStateException("own"));
            statement("still mine");
            assertThat(subscriber.isTerminated()).isFalse();
            future.complete(7);

            assertThat(subscriber.expectTerminalError()).hasMessage("own");
            assertThat(database.log()).containsExactly("create", "begin#1", "still mine#1", "rollback#1", "close#1");
        }

        @Test
        void aPipelineThatDidNotWaitForItsCodeCompletesAfterIt() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(c -> Mono.firstWithSignal(bridge.apply(c), Mono.just(1)))
                    .subscribe(subscriber);

            assertThat(subscriber.isTerminated()).isFalse();
            statement("still mine");
            future.complete(7);

            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log()).containsExactly("create", "begin#1", "still mine#1", "commit#1", "close#1");
        }

        @Test
        void aPipelineThatFailedKeepsItsErrorWhenItsCodeDoesNotEnd() {
            VirtualTimeScheduler time = witness.virtualTime();
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(
                            c -> Mono.firstWithSignal(bridge.apply(c), Mono.error(new IllegalStateException("own"))))
                    .subscribe(subscriber);

            time.advanceTimeBy(Duration.ofSeconds(10));

            assertThat(subscriber.expectTerminalError()).hasMessage("own");
            assertThat(events)
                    .filteredOn(ScopeEvent.Released.class::isInstance)
                    .singleElement()
                    .satisfies(event ->
                            assertThat(((ScopeEvent.Released) event).error()).hasMessage("own"));
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        void aPipelineWhoseCodeDoesNotEndFails(boolean joined) {
            VirtualTimeScheduler time = witness.virtualTime();
            TestSubscriber<Integer> subscriber = subscriber();
            Function<Connection, Mono<Integer>> body = c -> Mono.firstWithSignal(bridge.apply(c), Mono.just(1));
            scopes.inTransaction(joined ? c -> scopes.inTransaction(body) : body)
                    .subscribe(subscriber);

            time.advanceTimeBy(Duration.ofSeconds(10));

            assertThat(subscriber.getReceivedOnNext()).isEmpty();
            assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeTimeoutException.class);
            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        }
    }

    /** The scope around goes on without it; when it ends after all, that is nobody's affair any more. */
    @Test
    void codeThatEndsAfterItWasGivenUpLeavesTheScopeAroundAlone() {
        VirtualTimeScheduler time = witness.virtualTime();
        Step<Integer> meanwhile = new Step<>();
        TestSubscriber<Integer> subscriber = subscriber();
        scopes.withConnectionMany(
                        c -> scopes.withConnection(inner -> Mono.firstWithSignal(bridge.apply(inner), Mono.just(1)))
                                .onErrorResume(ScopeTimeoutException.class, late -> meanwhile.publisher())
                                .thenMany(Rows.ints(c, "select 1")))
                .subscribe(subscriber);

        time.advanceTimeBy(Duration.ofSeconds(10));
        assertThat(meanwhile.isReached()).isTrue();
        future.complete(7);
        meanwhile.complete();

        assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
        assertThat(database.log()).containsExactly("create", "select 1#1", "close#1");
    }

    @Nested
    class ACallback {

        private final AtomicReference<MonoSink<Integer>> one = new AtomicReference<>();
        private final AtomicReference<FluxSink<Integer>> many = new AtomicReference<>();

        @Test
        void emitsOneValueAndCommits() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransaction(ScopeBridge.<Integer>callback((c, sink) -> one.set(sink)))
                    .subscribe(subscriber);

            one.get().success(7);

            assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void holdsTheScopeAfterACancelUntilItAnswers() {
            TestSubscriber<Integer> subscriber = subscriber();
            AtomicBoolean told = new AtomicBoolean();
            scopes.inTransaction(ScopeBridge.<Integer>callback((c, sink) -> {
                        one.set(sink);
                        sink.onCancel(() -> told.set(true));
                    }))
                    .subscribe(subscriber);

            subscriber.cancel();
            assertThat(told).isTrue();
            assertThat(database.log()).containsExactly("create", "begin#1");
            one.get().success();

            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        }

        @Test
        void emitsManyValuesAndCommits() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransactionMany(ScopeBridge.<Integer>callbackMany((c, sink) -> many.set(sink)))
                    .subscribe(subscriber);

            many.get().next(1).next(2);
            many.get().complete();

            assertThat(subscriber.getReceivedOnNext()).containsExactly(1, 2);
            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void withManyValuesHoldsTheScopeAfterACancelUntilItsEnd() {
            TestSubscriber<Integer> subscriber = subscriber();
            scopes.inTransactionMany(ScopeBridge.<Integer>callbackMany((c, sink) -> many.set(sink)))
                    .subscribe(subscriber);

            subscriber.cancel();
            many.get().next(1);
            assertThat(many.get().isCancelled()).isTrue();
            assertThat(database.log()).containsExactly("create", "begin#1");
            IllegalStateException failure = new IllegalStateException("own");
            many.get().error(failure);

            assertThat(drops.values()).containsExactly(1);
            assertThat(drops.errors()).containsExactly(failure);
            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        }

        @Test
        @SuppressWarnings("deprecation")
        void learnsFromItsSinkWhatItsSubscriberWants() {
            List<String> told = new CopyOnWriteArrayList<>();
            TestSubscriber<Integer> subscriber = TestSubscriber.builder()
                    .initialRequest(0)
                    .contextPut("tenant", "blue")
                    .build();
            scopes.inTransactionMany(ScopeBridge.<Integer>callbackMany((c, sink) -> {
                        many.set(sink);
                        told.add(sink.contextView().get("tenant"));
                        told.add(sink.currentContext().get("tenant"));
                        sink.onRequest(n -> told.add("request " + n))
                                .onCancel(() -> told.add("cancel"))
                                .onDispose(() -> told.add("dispose"));
                    }))
                    .subscribe(subscriber);

            subscriber.request(3);
            assertThat(many.get().requestedFromDownstream()).isEqualTo(3);
            assertThat(many.get().isCancelled()).isFalse();
            subscriber.cancel();
            assertThat(many.get().isCancelled()).isTrue();
            many.get().complete();

            assertThat(told).containsExactly("blue", "blue", "request 3", "cancel", "dispose");
        }

        @Test
        @SuppressWarnings("deprecation")
        void ofOneValueLearnsFromItsSinkWhatItsSubscriberWants() {
            List<String> told = new CopyOnWriteArrayList<>();
            scopes.inTransaction(ScopeBridge.<Integer>callback((c, sink) -> {
                        told.add(sink.contextView().get("tenant"));
                        told.add(sink.currentContext().get("tenant"));
                        sink.onRequest(n -> told.add("request"))
                                .onCancel(() -> told.add("cancel"))
                                .onDispose(() -> told.add("dispose"))
                                .success(7);
                    }))
                    .contextWrite(Context.of("tenant", "blue"))
                    .block(FormContract.PATIENCE);

            assertThat(told).containsExactly("blue", "blue", "request", "dispose");
        }

        @Test
        void thatThrowsIsAnErrorOfThePipeline() {
            IllegalStateException failure = new IllegalStateException("own");
            assertThatThrownBy(() -> scopes.inTransaction(ScopeBridge.<Integer>callback((c, sink) -> {
                                throw failure;
                            }))
                            .block(FormContract.PATIENCE))
                    .isSameAs(failure);
            assertThatThrownBy(() -> scopes.inTransactionMany(ScopeBridge.<Integer>callbackMany((c, sink) -> {
                                throw failure;
                            }))
                            .blockLast(FormContract.PATIENCE))
                    .isSameAs(failure);
        }
    }

    /** The exit never begins while the code runs, and the value goes to one place. */
    @Test
    @Tag("race")
    void endsOnceAndAfterTheStageWhenCancelRacesItsEnd() {
        for (int i = 0; i < RACES; i++) {
            CompletableFuture<Integer> stage = new CompletableFuture<>();
            AtomicBoolean early = new AtomicBoolean();
            ProbeConnectionFactory raced = ProbeConnectionFactory.of();
            for (String ending : List.of("commit", "rollback")) {
                raced.on(ending, () -> {
                    early.compareAndSet(false, !stage.isDone());
                    return Mono.empty();
                });
            }
            ConnectionScopes racing = ConnectionScopes.of(raced);
            Probe<Integer> probe = Probe.unbounded();
            racing.inTransaction(ScopeBridge.<Integer>stage(c -> stage)).subscribe(probe);

            RaceTestUtils.race(probe::cancel, () -> stage.complete(7));

            assertSettled(racing, raced);
            probe.assertSound();
            assertThat(early).as("the exit began before the stage had ended").isFalse();
            assertThat(raced.log()).hasSize(4).startsWith("create", "begin#1").endsWith("close#1");
            if (probe.isTerminated()) {
                assertThat(raced.log()).contains("commit#1");
            }
            assertThat(probe.values().size() + probe.drops().values().size()).isEqualTo(1);
        }
    }
}
