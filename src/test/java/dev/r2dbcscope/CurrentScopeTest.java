package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import java.util.function.Function;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** What code inside a scope can learn of it and ask of it; for its hooks, see {@link HooksTest}. */
class CurrentScopeTest {

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withName("outer").withListener(events::add)));
    private final ConnectionScopes joined = scopes.with(ScopeOptions.defaults().withName("inner"));
    private final ConnectionScopes savepoints = joined.transactions(Propagation.NESTED);

    private List<TransactionOutcome> outcomes() {
        return events.stream()
                .filter(ScopeEvent.Released.class::isInstance)
                .map(event -> ((ScopeEvent.Released) event).transaction())
                .toList();
    }

    private static Mono<Integer> current(Consumer<CurrentScope> use) {
        return CurrentScope.get().doOnNext(use).thenReturn(7);
    }

    @Nested
    class Finding {

        @Test
        void isSaidInWordsByTheContextOfThePipelineAndOfTheAcquisition() {
            List<String> contexts = new CopyOnWriteArrayList<>();
            Mono<Void> note = Mono.deferContextual(context -> {
                contexts.add(context.toString());
                return Mono.empty();
            });
            database.on("create", () -> note.then(Mono.fromSupplier(database::newConnection)));

            scopes.withConnection(c -> note).block(FormContract.PATIENCE);

            assertThat(contexts)
                    .satisfiesExactly(
                            acquiring ->
                                    assertThat(acquiring).contains("the connection scope that asks for a connection="),
                            pipeline -> assertThat(pipeline).contains("the innermost connection scope="));
        }

        @Test
        void getsTheInnermostScopeOfAnyFactoryOrThatOfOne() {
            ConnectionScopes other = witness.watch(ConnectionScopes.of(witness.watch(ProbeConnectionFactory.of()))
                    .with(ScopeOptions.defaults().withName("other")));

            List<String> names = scopes.withConnectionMany(c -> Flux.from(other.withConnectionMany(
                            d -> Flux.concat(CurrentScope.get(), scopes.currentScope(), other.currentScope()))))
                    .map(CurrentScope::name)
                    .collectList()
                    .block(FormContract.PATIENCE);

            assertThat(names).containsExactly("other", "outer", "other");
        }

        @Test
        void knowsTheJoinedScopeByItsOwnNameAndOrigin() {
            scopes.inTransaction(c -> joined.inTransaction(d -> current(scope -> {
                        assertThat(scope.name()).isEqualTo("inner");
                        assertThat(scope.origin()).contains(CurrentScopeTest.class.getSimpleName());
                        assertThat(scope)
                                .hasToString("CurrentScope[scope 'inner' assembled at " + scope.origin() + "]");
                    })))
                    .block(FormContract.PATIENCE);
        }

        @Test
        void failsWithoutAScopeAndSaysWhoAsked() {
            assertThatThrownBy(() -> CurrentScope.get().block(FormContract.PATIENCE))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("no current scope")
                    .hasMessageContaining(CurrentScopeTest.class.getSimpleName());
            assertThatThrownBy(() -> scopes.currentScope().block(FormContract.PATIENCE))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining(CurrentScopeTest.class.getSimpleName());
            assertThatThrownBy(() -> Mono.deferContextual(context -> Mono.just(CurrentScope.from(context)))
                            .block(FormContract.PATIENCE))
                    .isInstanceOf(ScopePropagationException.class);
        }

        @Test
        void isTransactionalInATransactionAndInWhatJoinsIt() {
            scopes.withConnection(c -> current(scope -> {
                                assertThat(scope.isTransactional()).isFalse();
                                assertThat(scope.isRollbackOnly()).isFalse();
                            })
                            .then(scopes.inTransaction(d -> joined.withConnection(e -> current(
                                    scope -> assertThat(scope.isTransactional()).isTrue())))))
                    .block(FormContract.PATIENCE);
        }
    }

    @Nested
    class RollingBack {

        private Mono<Integer> markedBy(Function<Mono<Integer>, Publisher<Integer>> inner) {
            return scopes.inTransaction(c -> inner.apply(current(CurrentScope::setRollbackOnly)));
        }

        @Test
        void isExplainedByWhatBecameOfTheJoinedScope() {
            Mono<Integer> failing = joined.inTransaction(c -> Mono.error(new IllegalStateException("own")));
            Mono<Integer> cancelled = Mono.firstWithSignal(joined.inTransaction(c -> Mono.never()), Mono.just(7));

            assertThatThrownBy(() ->
                            scopes.inTransaction(c -> failing.onErrorReturn(7)).block(FormContract.PATIENCE))
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasMessageContaining("the joined scope 'inner'")
                    .hasMessageContaining(" failed");
            assertThatThrownBy(() -> scopes.inTransaction(c -> cancelled).block(FormContract.PATIENCE))
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasMessageContaining("the joined scope 'inner'")
                    .hasMessageContaining(" was cancelled");
        }

        @Test
        void byTheScopeThatBeganIsNoErrorAndKeepsTheValue() {
            assertThat(markedBy(mark -> mark).block(FormContract.PATIENCE)).isEqualTo(7);

            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        @Test
        void byTheScopeThatBeganIsNoErrorEvenIfTheRollbackFails() {
            database.on("rollback", () -> Mono.error(new IllegalStateException("lost")));

            assertThat(markedBy(mark -> mark).block(FormContract.PATIENCE)).isEqualTo(7);

            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        @Test
        void byAScopeThatJoinedIsAnErrorOfTheOneThatBegan() {
            assertThatThrownBy(() ->
                            markedBy(mark -> joined.inTransaction(d -> mark)).block(FormContract.PATIENCE))
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasMessageContaining("'inner'")
                    .hasMessageContaining("'outer'");

            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        }

        @Test
        void byBothIsNoErrorBecauseTheOneThatBeganExpectsIt() {
            Integer value =
                    markedBy(mark -> joined.inTransaction(d -> mark).then(mark)).block(FormContract.PATIENCE);

            assertThat(value).isEqualTo(7);
            assertThat(outcomes()).containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        @Test
        void ofASavepointLeavesTheTransactionAroundItAlone() {
            assertThat(markedBy(mark -> savepoints.inTransaction(d -> mark)).block(FormContract.PATIENCE))
                    .isEqualTo(7);

            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "savepoint#1",
                            "rollback to savepoint#1",
                            "release savepoint#1",
                            "commit#1",
                            "close#1");
        }

        @Test
        void isSeenByAllThatShareTheTransaction() {
            markedBy(mark -> mark.then(joined.inTransaction(d ->
                            current(scope -> assertThat(scope.isRollbackOnly()).isTrue()))))
                    .block(FormContract.PATIENCE);
        }

        @Test
        void withoutATransactionIsAnError() {
            assertThatThrownBy(() -> scopes.withConnection(c -> current(CurrentScope::setRollbackOnly))
                            .block(FormContract.PATIENCE))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("'outer'");
        }

        @Test
        void afterTheEndIsAnError() {
            AtomicReference<CurrentScope> kept = new AtomicReference<>();
            scopes.inTransaction(c -> current(kept::set)).block(FormContract.PATIENCE);

            assertThatThrownBy(() -> kept.get().setRollbackOnly()).isInstanceOf(ScopeClosedException.class);
            assertThat(kept.get().isRollbackOnly()).isFalse();
            assertThat(database.log()).contains("commit#1");
        }
    }

    @Nested
    class Releasing {

        @Test
        void isToldAfterACancelThatNobodyElseCanWaitFor() {
            Step<Void> close = new Step<>();
            database.on("close", close);
            AtomicReference<CurrentScope> kept = new AtomicReference<>();
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.inTransaction(c -> current(kept::set).then(Mono.<Integer>never()))
                    .subscribe(subscriber);
            TestSubscriber<Void> released = TestSubscriber.create();
            kept.get().released().subscribe(released);

            subscriber.cancel();
            assertThat(released.isTerminated()).isFalse();
            close.complete();

            assertThat(released.isTerminatedComplete()).isTrue();
        }

        @Test
        void isToldWithoutAnErrorWhenNoConnectionCame() {
            database.on("create", () -> Mono.error(new IllegalStateException("no connection")));
            AtomicReference<CurrentScope> kept = new AtomicReference<>();
            assertThatThrownBy(() -> current(kept::set)
                            .then(Mono.from(scopes.connectionFactory().create()))
                            .as(scopes::transactional)
                            .block(FormContract.PATIENCE))
                    .hasMessage("no connection");

            kept.get().released().block(FormContract.PATIENCE);
        }

        @Test
        void isToldWhenNoConnectionWasEverAskedFor() {
            AtomicReference<CurrentScope> kept = new AtomicReference<>();
            current(kept::set).as(scopes::connected).block(FormContract.PATIENCE);

            kept.get().released().block(FormContract.PATIENCE);
            assertThat(database.log()).isEmpty();
        }
    }
}
