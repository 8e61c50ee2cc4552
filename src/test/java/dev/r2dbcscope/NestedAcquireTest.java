package dev.r2dbcscope;

import static dev.r2dbcscope.ScriptedPool.giveBack;
import static dev.r2dbcscope.ScriptedPool.separate;
import static dev.r2dbcscope.ScriptedPool.start;
import static dev.r2dbcscope.ScriptedPool.transaction;
import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.pool.PoolShutdownException;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/**
 * Scopes that ask for a second connection while they hold one. Time stands still in these tests unless one says
 * otherwise: what fails here fails at once.
 */
@Tag("lifecycle-45")
class NestedAcquireTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final VirtualTimeScheduler time = witness.virtualTime();
    private final List<ScriptedPool> pools = new ArrayList<>();
    private final List<ScopeEvent> events = new ArrayList<>();
    private final Step<Integer> work = new Step<>();

    private ScriptedPool pool(int size) {
        ScriptedPool pool = new ScriptedPool(size);
        witness.watch(pool.database);
        pools.add(pool);
        return pool;
    }

    private ConnectionScopes scopes(ConnectionFactory factory) {
        return witness.watch(ConnectionScopes.of(factory));
    }

    private ConnectionScopes poolOf(int size) {
        return scopes(pool(size).pool);
    }

    @AfterEach
    void nothingIsHeldAndNobodyIsRemembered() {
        pools.forEach(ScriptedPool::close);
        assertThat(WaitGraph.INSTANCE.isEmpty()).isTrue();
    }

    private static NestedAcquireDeadlockException alarm(TestSubscriber<?> subscriber) {
        assertThat(subscriber.expectTerminalError()).isInstanceOf(NestedAcquireDeadlockException.class);
        return (NestedAcquireDeadlockException) Objects.requireNonNull(subscriber.expectTerminalError());
    }

    /** A scope that holds a connection until the work ends, and waits for a second one meanwhile. */
    private TestSubscriber<Integer> holdsAndWaits(ConnectionScopes scopes, String name) {
        TestSubscriber<Integer> subscriber =
                start(transaction(scopes, name, separate(scopes, name + " inner", Mono.just(1))));
        assertThat(subscriber.isTerminated()).isFalse();
        return subscriber;
    }

    private static void assertSucceeded(TestSubscriber<Integer> subscriber) {
        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
    }

    private static <T> T onlyOne(List<T> list) {
        assertThat(list).hasSize(1);
        return list.get(0);
    }

    @Nested
    class Fails {

        @Test
        void whenTheScopeAroundItHoldsTheOnlyConnection() {
            ConnectionScopes scopes = poolOf(1);

            NestedAcquireDeadlockException error =
                    alarm(start(transaction(scopes, "outer", separate(scopes, "inner", Mono.just(1)))));

            assertThat(error.scopeName()).isEqualTo("inner");
            assertThat(error.scopeOrigin()).contains("ScriptedPool.transaction(ScriptedPool.java:");
            assertThat(error.scopes())
                    .isUnmodifiable()
                    .extracting(LiveScope::name)
                    .containsExactly("outer", "inner");
            assertThat(error.scopes())
                    .extracting(LiveScope::state)
                    .containsExactly(ScopeState.IDLE, ScopeState.WAITING);
            assertThat(error)
                    .hasMessageContaining(
                            "all 1 connections of its pool are held by scopes that wait for one themselves")
                    .hasMessageContaining("scope 'outer' assembled at dev.r2dbcscope.ScriptedPool.transaction")
                    .hasMessageContaining("(IDLE, held for ")
                    .hasMessageContaining(" ms) waits for scope 'inner' assembled at ")
                    .hasMessageContaining("give the pool more connections")
                    .hasMessageContaining("Propagation.REQUIRED");
        }

        @Test
        void whenItRunsWithoutATransactionInsideOne() {
            ConnectionScopes scopes = poolOf(1);

            alarm(start(transaction(
                    scopes,
                    "outer",
                    transaction(scopes.transactions(Propagation.NOT_SUPPORTED), "inner", Mono.just(1)))));
        }

        @Test
        void insideATransactionThatUsesThePlainScopeAroundIt() {
            ConnectionScopes scopes = poolOf(1);

            alarm(start(scopes.withConnection(
                    c -> transaction(scopes, "section", separate(scopes, "inner", Mono.just(1))))));
        }

        @Test
        void insideASavepoint() {
            ConnectionScopes scopes = poolOf(1);

            alarm(start(transaction(
                    scopes,
                    "outer",
                    transaction(
                            scopes.transactions(Propagation.NESTED),
                            "savepoint",
                            separate(scopes, "inner", Mono.just(1))))));
        }

        @Test
        void atTheDepthAtWhichThePoolIsExhausted() {
            NestedAcquireDeadlockException error = alarm(start(threeDeep(poolOf(2))));

            assertThat(error.scopes()).extracting(LiveScope::name).containsExactly("first", "second", "third");
            assertSucceeded(start(threeDeep(poolOf(3))));
        }

        private static Mono<Integer> threeDeep(ConnectionScopes scopes) {
            return transaction(scopes, "first", separate(scopes, "second", separate(scopes, "third", Mono.just(1))));
        }

        @Test
        void whicheverClosesTheCircleAndTheOtherGoesOn() {
            ConnectionScopes scopes = poolOf(2);
            Mono<Integer> nested = separate(scopes, "inner", Mono.just(1));
            TestSubscriber<Integer> second =
                    start(transaction(scopes, "second", work.publisher().then(nested)));
            TestSubscriber<Integer> first = start(transaction(scopes, "first", nested));
            assertThat(first.isTerminated()).isFalse();

            work.complete();

            assertThat(alarm(second).scopes())
                    .extracting(LiveScope::name)
                    .containsExactly("second", "first", "inner", "inner");
            assertSucceeded(first);
        }

        @Test
        void whenTwoPoolsWaitForEachOther() {
            ConnectionScopes a = poolOf(1);
            ConnectionScopes b = poolOf(1);
            TestSubscriber<Integer> first =
                    start(transaction(a, "a", work.publisher().then(transaction(b, "b in a", Mono.just(1)))));
            TestSubscriber<Integer> second =
                    start(transaction(b, "b", Mono.defer(() -> transaction(a, "a in b", Mono.just(1)))));
            assertThat(second.isTerminated()).isFalse();

            work.complete();

            NestedAcquireDeadlockException error = alarm(first);
            assertThat(error.scopeName()).isEqualTo("b in a");
            assertThat(error.scopes())
                    .extracting(LiveScope::name)
                    .containsExactlyInAnyOrder("a", "b", "a in b", "b in a");
            assertThat(error)
                    .hasMessageContaining(
                            "all 1 connections of its pool, and all 1 of another pool that these wait for, are held");
            assertSucceeded(second);
        }

        @Test
        void whenThreePoolsWaitForEachOtherInARing() {
            List<ConnectionScopes> ring = List.of(poolOf(1), poolOf(1), poolOf(1));
            List<TestSubscriber<Integer>> subscribers = new ArrayList<>();
            for (int i = 0; i < 3; i++) {
                ConnectionScopes next = ring.get((i + 1) % 3);
                subscribers.add(start(transaction(
                        ring.get(i), "ring", work.publisher().then(transaction(next, "next", Mono.just(1))))));
            }

            work.complete();

            assertThat(subscribers)
                    .filteredOn(TestSubscriber::isTerminatedError)
                    .hasSize(1);
            assertThat(subscribers)
                    .filteredOn(TestSubscriber::isTerminatedComplete)
                    .hasSize(2);
        }

        @Test
        void whenAScopeBelowWhichItWaitsAlreadyGetsTheLastConnection() {
            ScriptedPool pool = pool(1);
            ConnectionScopes scopes = scopes(pool.pool);
            Connection raw = pool.borrow();
            List<Throwable> caught = new ArrayList<>();
            Mono<Integer> inner =
                    separate(scopes, "inner", Mono.just(2)).onErrorResume(e -> Mono.fromRunnable(() -> caught.add(e)));
            Mono<Integer> outer = Mono.from(scopes.connectionFactory().create()).thenReturn(1);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scopes.transactional(Flux.merge(outer, inner, inner)).subscribe(subscriber);
            assertThat(scopes.live())
                    .extracting(LiveScope::state)
                    .containsOnly(ScopeState.WAITING)
                    .hasSize(3);
            assertThat(caught).isEmpty();

            giveBack(raw);

            assertSucceeded(subscriber);
            assertThat(caught).hasSize(2).hasOnlyElementsOfType(NestedAcquireDeadlockException.class);
            assertThat(pool.database.log()).contains("commit#1");
        }

        @Test
        void throughProxiesOfThePoolAndFromAnyCallOfTheFactory() {
            ScriptedPool pool = pool(1);
            ConnectionScopes one = scopes(new Proxy(pool.pool));
            ConnectionScopes other = scopes(new Proxy(new Proxy(pool.pool)));

            alarm(start(transaction(one, "outer", separate(one, "inner", Mono.just(1)))));
            alarm(start(transaction(one, "outer", separate(other, "inner", Mono.just(1)))));
        }

        @Test
        void andTellsTheListeners() {
            ConnectionScopes scopes = poolOf(1).with(ScopeOptions.defaults().withListener(events::add));
            NestedAcquireDeadlockException error = alarm(start(scopes.inTransaction(
                    c -> scopes.transactions(Propagation.REQUIRES_NEW).inTransaction(d -> Mono.just(1)))));

            assertThat(events)
                    .extracting(event -> event.getClass().getSimpleName())
                    .containsExactly(
                            "Waiting", "Opened", "Waiting", "DeadlockAverted", "OpenFailed", "Exiting", "Released");
            ScopeEvent.DeadlockAverted averted = (ScopeEvent.DeadlockAverted) events.get(3);
            assertThat(averted.error()).isSameAs(error);
            assertThat(averted.scope().id()).isEqualTo(events.get(2).scope().id());
            assertThat(((ScopeEvent.OpenFailed) events.get(4)).error()).isSameAs(error);
        }
    }

    @Nested
    class Afterwards {

        @Test
        void theScopeAroundItCanCatchTheErrorAndCommit() {
            ScriptedPool pool = pool(1);
            ConnectionScopes scopes = scopes(pool.pool);

            TestSubscriber<Integer> subscriber = start(transaction(
                    scopes,
                    "outer",
                    separate(scopes, "inner", Mono.just(2)).onErrorReturn(NestedAcquireDeadlockException.class, 1)));

            assertSucceeded(subscriber);
            assertThat(pool.database.log()).containsExactly("create", "begin#1", "commit#1");
        }

        @Test
        void theConnectionThatComesLateIsGivenBackUnused() {
            ScriptedPool pool = pool(1);
            ConnectionScopes scopes = scopes(pool.pool);
            alarm(start(transaction(scopes, "outer", separate(scopes, "inner", Mono.just(1)))));

            assertThat(pool.database.log()).containsExactly("create", "begin#1", "rollback#1");
            assertThat(pool.acquired()).isZero();
            assertSucceeded(start(transaction(scopes, "next", Mono.just(1))));
        }

        @Test
        void itsAcquireTimeoutIsNotRaisedAgain() {
            ConnectionScopes scopes = poolOf(1);
            TestSubscriber<Integer> subscriber = start(transaction(
                    scopes, "outer", separate(scopes, "inner", Mono.just(2)).onErrorResume(e -> work.publisher())));
            time.advanceTimeBy(Duration.ofHours(1));
            work.complete(1);

            assertSucceeded(subscriber);
        }
    }

    @Nested
    class IsNotRaised {

        @Test
        void whileAHolderWaitsForNothing() {
            ConnectionScopes scopes = poolOf(2);
            TestSubscriber<Integer> busy = start(transaction(scopes, "busy", work.publisher()));
            TestSubscriber<Integer> waiting = holdsAndWaits(scopes, "waiting");

            work.complete(1);

            assertSucceeded(busy);
            assertSucceeded(waiting);
        }

        @Test
        void whileAHolderIsOnItsWayOut() {
            ScriptedPool pool = pool(2);
            ConnectionScopes scopes = scopes(pool.pool);
            Step<Void> commit = new Step<>();
            pool.database.on("commit", commit);
            TestSubscriber<Integer> leaving = start(transaction(scopes, "leaving", Mono.just(1)));
            TestSubscriber<Integer> waiting = holdsAndWaits(scopes, "waiting");

            commit.complete();

            assertSucceeded(leaving);
            assertSucceeded(waiting);
        }

        /** Its work is detached: it waits with the Context of a scope that does not wait for it. */
        @Test
        void whileAHolderIsOnItsWayOutAlthoughOthersWaitBelowIt() {
            ScriptedPool pool = pool(2);
            ConnectionScopes scopes = scopes(pool.pool);
            Step<Void> commit = new Step<>();
            TestSubscriber<Integer> detached = TestSubscriber.create();
            Mono<Integer> nested = separate(scopes, "inner", Mono.just(1));
            TestSubscriber<Integer> waiting =
                    start(transaction(scopes, "waiting", work.publisher().then(nested)));
            pool.database.on("commit", commit);
            TestSubscriber<Integer> leaving = start(transaction(scopes, "leaving", Mono.deferContextual(context -> {
                nested.contextWrite(context).subscribe(detached);
                return Mono.just(1);
            })));
            assertThat(commit.isReached()).isTrue();

            work.complete();
            assertThat(waiting.isTerminated()).isFalse();
            commit.complete();

            assertSucceeded(leaving);
            assertSucceeded(detached);
            assertSucceeded(waiting);
        }

        @Test
        void whenAHolderThatWasLookedAtFirstHasLeftInTheMeantime() {
            ConnectionScopes a = poolOf(1);
            ScriptedPool looked = pool(1);
            ConnectionScopes b = scopes(looked.pool);
            Step<Integer> askB = new Step<>();
            Step<Integer> askA = new Step<>();
            TestSubscriber<Integer> cancelled =
                    start(transaction(a, "a", askB.publisher().then(transaction(b, "b in a", Mono.just(1)))));
            TestSubscriber<Integer> waiting =
                    start(transaction(b, "b", askA.publisher().then(transaction(a, "a in b", Mono.just(1)))));
            TestSubscriber<Integer> successor = start(transaction(a, "successor", work.publisher()));
            askB.complete();
            looked.whenMeasured(cancelled::cancel);

            askA.complete();

            assertThat(a.live()).extracting(LiveScope::name).containsExactly("successor", "a in b");
            work.complete(1);
            assertSucceeded(successor);
            assertSucceeded(waiting);
        }

        @Test
        void whileABorrowerWithoutAScopeHoldsAConnection() {
            ScriptedPool pool = pool(2);
            ConnectionScopes scopes = scopes(pool.pool);
            Connection raw = pool.borrow();
            TestSubscriber<Integer> waiting = holdsAndWaits(scopes, "waiting");

            giveBack(raw);

            assertSucceeded(waiting);
        }

        @Test
        void forAScopeThatHoldsNothing() {
            ConnectionScopes scopes = poolOf(1);
            TestSubscriber<Integer> busy = start(transaction(scopes, "busy", work.publisher()));
            TestSubscriber<Integer> outermost = start(transaction(scopes, "outermost", Mono.just(1)));
            TestSubscriber<Integer> lazy =
                    start(separate(scopes, "inner", Mono.just(1)).as(scopes::transactional));

            work.complete(1);

            assertSucceeded(busy);
            assertSucceeded(outermost);
            assertSucceeded(lazy);
        }

        @Test
        void onceTheInnerScopeOfAHolderNoLongerWaits() {
            ConnectionScopes scopes = poolOf(2);
            Step<Integer> start = new Step<>();
            Step<Integer> giveUp = new Step<>();
            Mono<Integer> nested = separate(scopes, "inner", Mono.just(1));
            TestSubscriber<Integer> waiting =
                    start(transaction(scopes, "waiting", start.publisher().then(nested)));
            TestSubscriber<Integer> impatient = start(transaction(
                    scopes,
                    "impatient",
                    nested.takeUntilOther(giveUp.publisher()).switchIfEmpty(work.publisher())));
            giveUp.complete();

            start.complete();
            assertThat(waiting.isTerminated()).isFalse();
            work.complete(1);

            assertSucceeded(impatient);
            assertSucceeded(waiting);
        }

        @Test
        void whenTheOtherPoolHasAConnectionLeft() {
            ConnectionScopes a = poolOf(1);
            ConnectionScopes b = poolOf(2);
            TestSubscriber<Integer> first =
                    start(transaction(a, "a", work.publisher().then(transaction(b, "b in a", Mono.just(1)))));
            TestSubscriber<Integer> second = start(transaction(b, "b", transaction(a, "a in b", Mono.just(1))));
            assertThat(second.isTerminated()).isFalse();

            work.complete();

            assertSucceeded(first);
            assertSucceeded(second);
        }

        @Test
        void byAPoolWithoutABound() {
            ConnectionScopes scopes = poolOf(Integer.MAX_VALUE);

            assertSucceeded(start(transaction(scopes, "outer", separate(scopes, "inner", Mono.just(1)))));
        }

        @Test
        void byAFactoryThatIsNoKnownPoolWhichLeavesItToTheAcquireTimeout() {
            ConnectionScopes scopes = scopes(new Opaque(pool(1).pool));
            TestSubscriber<Integer> subscriber = holdsAndWaits(scopes, "waiting");

            time.advanceTimeBy(ScopeOptions.defaults().acquireTimeout());

            assertThat(subscriber.expectTerminalError())
                    .isExactlyInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("No connection within the acquire timeout of PT30S");
        }
    }

    @Nested
    class AWaitThatEnds {

        private final ScriptedPool pool = pool(2);
        private final ConnectionScopes scopes = scopes(pool.pool);
        private final TestSubscriber<Integer> busy = start(transaction(scopes, "busy", work.publisher()));

        @Test
        void byItsTimeoutIsForgotten() {
            TestSubscriber<Integer> waiting = holdsAndWaits(scopes, "waiting");
            assertThat(WaitGraph.INSTANCE.isEmpty()).isFalse();
            time.advanceTimeBy(ScopeOptions.defaults().acquireTimeout());

            assertThat(waiting.expectTerminalError()).isExactlyInstanceOf(ScopeAcquisitionException.class);
            assertForgotten();
        }

        @Test
        void byACancelIsForgotten() {
            holdsAndWaits(scopes, "waiting").cancel();

            assertForgotten();
        }

        @Test
        void byAnErrorOfThePoolIsForgotten() {
            TestSubscriber<Integer> waiting = holdsAndWaits(scopes, "waiting");
            pool.pool.dispose();

            assertThat(waiting.expectTerminalError()).isInstanceOf(PoolShutdownException.class);
            assertForgotten();
        }

        private void assertForgotten() {
            assertThat(WaitGraph.INSTANCE.isEmpty()).isTrue();
            work.complete(1);
            assertSucceeded(busy);
        }
    }

    private record Proxy(ConnectionFactory factory) implements ConnectionFactory, Wrapped<ConnectionFactory> {

        @Override
        public Publisher<? extends Connection> create() {
            return factory.create();
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return factory.getMetadata();
        }

        @Override
        public ConnectionFactory unwrap() {
            return factory;
        }
    }

    private record Opaque(ConnectionFactory factory) implements ConnectionFactory {

        @Override
        public Publisher<? extends Connection> create() {
            return factory.create();
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return factory.getMetadata();
        }
    }
}
