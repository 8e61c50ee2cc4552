package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** What scopes tell of themselves: the live view, the drain, the listeners, the leak warning, names and origins. */
class ReportsTest {

    private static final Duration PATIENCE = Duration.ofSeconds(60);

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new ArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database))
            .with(ScopeOptions.defaults().withName("report").withListener(events::add));
    private final Step<Integer> work = new Step<>();

    private List<Class<?>> eventTypes() {
        return events.stream().<Class<?>>map(Object::getClass).toList();
    }

    @Nested
    class Live {

        @Test
        void showsWhoWaitsAndWhoHoldsOldestFirst() {
            Step<Connection> acquisition = new Step<>();
            Step<Integer> statement = new Step<>();
            database.on("select slow", statement);
            TestSubscriber<Integer> holder = TestSubscriber.create();
            scopes.inTransactionMany(c -> Rows.ints(c, "select slow")).subscribe(holder);
            database.on("create", acquisition);
            TestSubscriber<Integer> waiter = TestSubscriber.create();
            scopes.with(ScopeOptions.defaults().withName("waiter"))
                    .withConnection(c -> Mono.just(1))
                    .subscribe(waiter);

            List<LiveScope> live = scopes.live();

            assertThat(live).hasSize(2).isUnmodifiable();
            assertThat(live.get(0)).satisfies(scope -> {
                assertThat(scope.name()).isEqualTo("report");
                assertThat(scope.origin()).contains("ReportsTest$Live.showsWhoWaitsAndWhoHolds", "ReportsTest.java:");
                assertThat(scope.state()).isEqualTo(ScopeState.EXECUTING);
                assertThat(scope.transactional()).isTrue();
                assertThat(scope.held()).isPositive();
                assertThat(scope.inDatabase()).isPositive();
                assertThat(scope.statements()).isEqualTo(1);
                assertThat(scope.statementsInFlight()).isEqualTo(1);
                assertThat(scope.statement()).isEqualTo("select slow");
            });
            assertThat(live.get(1)).satisfies(scope -> {
                assertThat(scope.name()).isEqualTo("waiter");
                assertThat(scope.state()).isEqualTo(ScopeState.WAITING);
                assertThat(scope.transactional()).isFalse();
                assertThat(scope.held()).isZero();
                assertThat(scope.waited()).isPositive();
                assertThat(scope.statement()).isNull();
            });
            statement.complete(1);
            acquisition.complete(database.newConnection());
            holder.block(PATIENCE);
            waiter.block(PATIENCE);
            assertThat(scopes.live()).isEmpty();
        }

        @Test
        void showsTheStatesOfAScope() {
            Step<Void> begin = new Step<>();
            Step<Void> commit = new Step<>();
            database.on("begin", begin).on("commit", commit);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.inTransaction(c -> work.publisher()).subscribe(subscriber);

            assertThat(scopes.live()).extracting(LiveScope::state).containsExactly(ScopeState.OPENING);
            begin.complete();
            assertThat(scopes.live()).extracting(LiveScope::state).containsExactly(ScopeState.IDLE);
            work.complete(1);
            assertThat(scopes.live()).extracting(LiveScope::state).containsExactly(ScopeState.EXITING);
            commit.complete();
            assertThat(scopes.live()).isEmpty();
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
        }

        @Test
        void showsNoScopeThatDoesNotUseAConnection() {
            Mono.fromSupplier(() -> scopes.live().size())
                    .as(scopes::connected)
                    .as(lazy -> assertThat(lazy.block(PATIENCE)).isZero());

            assertThat(database.log()).isEmpty();
            assertThat(events).isEmpty();
        }
    }

    @Nested
    class Drain {

        private final TestSubscriber<Void> drained = TestSubscriber.create();

        @Test
        void doesNothingBeforeItIsSubscribedTo() {
            scopes.drain(PATIENCE);

            assertThat(scopes.withConnection(c -> Mono.just(1)).block(PATIENCE)).isEqualTo(1);
        }

        @Test
        void refusesNewScopesLetsNestedOnesThroughAndCompletesAfterTheLast() {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.withConnection(c -> work.publisher()
                            .flatMap(n -> scopes.inTransaction(nested -> Rows.ints(nested, "select nested"))))
                    .subscribe(subscriber);

            scopes.drain(PATIENCE).subscribe(drained);

            assertThat(drained.isTerminated()).isFalse();
            assertThatThrownBy(() -> scopes.withConnection(c -> Mono.just(1)).block(PATIENCE))
                    .isInstanceOfSatisfying(ScopesDrainedException.class, refused -> {
                        assertThat(refused.remaining()).isEmpty();
                        assertThat(refused.scopeName()).isEqualTo("report");
                    });
            assertThatThrownBy(() -> Flux.just(1)
                            .as(scopes.with(ScopeOptions.defaults())::connected)
                            .blockLast(PATIENCE))
                    .isInstanceOf(ScopesDrainedException.class);
            work.complete(1);
            drained.block(PATIENCE);
            assertThat(drained.isTerminatedComplete()).isTrue();
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log()).containsExactly("create", "begin#1", "select nested#1", "commit#1", "close#1");
        }

        @Test
        void listsThoseThatRemainWhenItsTimeIsOver() {
            VirtualTimeScheduler time = witness.virtualTime();
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.withConnection(c -> work.publisher()).subscribe(subscriber);

            scopes.drain(Duration.ofSeconds(3)).subscribe(drained);
            time.advanceTimeBy(Duration.ofMillis(2_999));
            assertThat(drained.isTerminated()).isFalse();
            time.advanceTimeBy(Duration.ofMillis(1));

            assertThat(drained.expectTerminalError())
                    .isInstanceOfSatisfying(
                            ScopesDrainedException.class,
                            late -> assertThat(late.remaining())
                                    .extracting(LiveScope::name)
                                    .containsExactly("report"))
                    .hasMessageContaining("1 scopes were still live after PT3S")
                    .hasMessageContaining("by 'report' assembled at ");
            work.complete(1);
            scopes.drain(PATIENCE).block(PATIENCE);
        }
    }

    @Nested
    class Listeners {

        @Test
        void hearOfASuccessInOrder() {
            scopes.inTransaction(c -> Rows.ints(c, "select 1")).block(PATIENCE);

            assertScopeWithAStatement();
            assertThat(statementEnded()).satisfies(ended -> {
                assertThat(ended.sql()).isEqualTo("select 1");
                assertThat(ended.rows()).isEqualTo(1);
                assertThat(ended.took()).isPositive();
                assertThat(ended.error()).isNull();
            });
            assertReleased(ScopeOutcome.COMPLETED, null);
            assertThat(events)
                    .extracting(event -> event.scope().id())
                    .containsOnly(events.get(0).scope().id());
        }

        @Test
        void hearOfAFailureInOrder() {
            IllegalStateException failure = new IllegalStateException("of a statement");
            database.on("select 1", () -> Flux.error(failure));

            assertThatThrownBy(() ->
                            scopes.inTransaction(c -> Rows.ints(c, "select 1")).block(PATIENCE))
                    .isSameAs(failure);

            assertScopeWithAStatement();
            assertThat(statementEnded().error()).isSameAs(failure);
            assertReleased(ScopeOutcome.FAILED, failure);
        }

        @Test
        void hearOfACancelInOrder() {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.inTransactionMany(c -> Flux.<Integer>never()).subscribe(subscriber);
            subscriber.cancel();

            assertThat(eventTypes())
                    .containsExactly(
                            ScopeEvent.Waiting.class,
                            ScopeEvent.Opened.class,
                            ScopeEvent.Exiting.class,
                            ScopeEvent.Released.class);
            assertReleased(ScopeOutcome.CANCELLED, null);
        }

        @Test
        void thatThrowAreLoggedAndChangeNothing() {
            List<ScopeEvent> others = new ArrayList<>();
            ConnectionScopes broken = scopes.with(ScopeOptions.defaults()
                    .withListener(event -> {
                        throw new IllegalStateException("of the listener");
                    })
                    .withListener(others::add));

            assertThat(broken.inTransaction(c -> Mono.just(1)).block(PATIENCE)).isEqualTo(1);

            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
            assertThat(others).hasSize(4);
            assertThat(log.lines())
                    .hasSize(4)
                    .allSatisfy(line -> assertThat(line).startsWith("WARN A scope listener failed on "));
        }

        /** The pipeline may end in the very call that brings the last row, before the driver is done with it. */
        private void assertScopeWithAStatement() {
            assertThat(eventTypes())
                    .hasSize(5)
                    .containsSubsequence(
                            ScopeEvent.Waiting.class,
                            ScopeEvent.Opened.class,
                            ScopeEvent.Exiting.class,
                            ScopeEvent.Released.class)
                    .containsSubsequence(
                            ScopeEvent.Opened.class, ScopeEvent.StatementEnded.class, ScopeEvent.Released.class);
        }

        private ScopeEvent.StatementEnded statementEnded() {
            return events.stream()
                    .filter(ScopeEvent.StatementEnded.class::isInstance)
                    .map(ScopeEvent.StatementEnded.class::cast)
                    .findFirst()
                    .orElseThrow();
        }

        private void assertReleased(ScopeOutcome outcome, Throwable error) {
            assertThat(events)
                    .filteredOn(ScopeEvent.Exiting.class::isInstance)
                    .singleElement()
                    .satisfies(exiting ->
                            assertThat(((ScopeEvent.Exiting) exiting).outcome()).isEqualTo(outcome));
            assertThat(events.get(events.size() - 1)).isInstanceOfSatisfying(ScopeEvent.Released.class, released -> {
                assertThat(released.outcome()).isEqualTo(outcome);
                assertThat(released.error()).isSameAs(error);
                assertThat(released.destroyed()).isFalse();
            });
        }
    }

    @Nested
    class LeakWarning {

        private final VirtualTimeScheduler time = witness.virtualTime();
        private final Duration threshold = Duration.ofSeconds(10);
        private final ConnectionScopes warning = scopes.with(ScopeOptions.defaults()
                .withName("leaky")
                .withLeakThreshold(threshold)
                .withListener(events::add));

        @Test
        void comesOnceOverTheThresholdAndIsResolvedByTheRelease() {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            warning.withConnection(c -> work.publisher()).subscribe(subscriber);
            time.advanceTimeBy(threshold.minusMillis(1));
            assertThat(log.lines()).isEmpty();

            time.advanceTimeBy(Duration.ofMillis(1));
            time.advanceTimeBy(threshold.multipliedBy(10));

            assertThat(log.lines())
                    .singleElement()
                    .satisfies(line -> assertThat(line)
                            .startsWith("WARN A connection has been held for more than the leak threshold of PT10S: ")
                            .contains(
                                    "name=leaky",
                                    "ReportsTest$LeakWarning.comesOnceOverTheThreshold",
                                    "ReportsTest.java:"));
            assertThat(eventTypes()).endsWith(ScopeEvent.LeakSuspected.class);

            work.complete(1);
            assertThat(log.lines()).hasSize(2);
            assertThat(log.lines().get(1))
                    .startsWith("INFO A connection that was reported as possibly leaked has been given back")
                    .contains("scope 'leaky' assembled at ", "ReportsTest.java:");
            assertThat(eventTypes())
                    .containsExactly(
                            ScopeEvent.Waiting.class,
                            ScopeEvent.Opened.class,
                            ScopeEvent.LeakSuspected.class,
                            ScopeEvent.Exiting.class,
                            ScopeEvent.LeakResolved.class,
                            ScopeEvent.Released.class);
        }

        @Test
        void doesNotComeForAScopeThatEndsInTime() {
            warning.withConnection(c -> Mono.just(1)).block(PATIENCE);
            time.advanceTimeBy(threshold.multipliedBy(2));

            assertThat(log.lines()).isEmpty();
        }

        @Test
        void isOffByDefault() {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.withConnection(c -> work.publisher()).subscribe(subscriber);
            time.advanceTimeBy(Duration.ofDays(1));

            assertThat(log.lines()).isEmpty();
            work.complete(1);
        }
    }

    @Nested
    class Origins {

        private final ConnectionScopes unnamed =
                scopes.with(ScopeOptions.defaults().withListener(events::add));

        @Test
        void areTheAssemblySiteOfAClosure() {
            unnamed.withConnection(c -> Mono.just(1)).block(PATIENCE);

            assertOrigin(lineOfCaller() - 2, "areTheAssemblySiteOfAClosure");
        }

        @Test
        void areTheAssemblySiteOfAnOperator() {
            Mono<Integer> mono = Mono.from(unnamed.connectionFactory().create())
                    .flatMap(c -> Rows.ints(c, "select 1").next())
                    .as(unnamed::connected);
            mono.block(PATIENCE);

            assertOrigin(lineOfCaller() - 3, "areTheAssemblySiteOfAnOperator");
        }

        @Test
        void areTheAssemblySiteOfAnOperatorOfAFlux() {
            Flux<Integer> flux = Mono.from(unnamed.connectionFactory().create())
                    .flatMapMany(c -> Rows.ints(c, "select 1"))
                    .as(unnamed::transactional);
            flux.blockLast(PATIENCE);

            assertOrigin(lineOfCaller() - 3, "areTheAssemblySiteOfAnOperatorOfAFlux");
        }

        private void assertOrigin(int line, String method) {
            assertThat(events).isNotEmpty().allSatisfy(event -> {
                assertThat(event.scope().origin())
                        .isEqualTo("dev.r2dbcscope.ReportsTest$Origins." + method + "(ReportsTest.java:" + line + ")");
                assertThat(event.scope().name()).isEqualTo("ReportsTest$Origins." + method);
            });
        }

        private static int lineOfCaller() {
            return StackWalker.getInstance()
                    .walk(frames -> frames.skip(1).findFirst())
                    .orElseThrow()
                    .getLineNumber();
        }
    }
}
