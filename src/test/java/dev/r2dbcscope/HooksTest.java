package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** What runs after a transaction: which, when, in which order, and what it cannot do. */
class HooksTest {

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withHookTimeout(Duration.ofSeconds(3)).withListener(events::add)));
    private final ConnectionScopes savepoints = scopes.transactions(Propagation.NESTED);

    /** What hooks noted, between what the database was asked. */
    private final List<String> ran = new CopyOnWriteArrayList<>();

    private Mono<Void> note(String what) {
        return Mono.fromRunnable(() -> ran.add(what + " after " + database.log().size() + " steps"));
    }

    /** One hook of each kind. */
    private void registerAll(CurrentScope scope, String name) {
        if (scope.isTransactional()) {
            scope.afterCommit(note(name + " commit"));
            scope.afterRollback(note(name + " rollback"));
        }
        scope.afterCompletion(outcome -> note(name + " " + outcome));
    }

    private Mono<Void> hooks(String name) {
        return CurrentScope.get().doOnNext(scope -> registerAll(scope, name)).then();
    }

    private static Mono<Void> hook(Function<CurrentScope, Runnable> registration) {
        return CurrentScope.get()
                .doOnNext(scope -> registration.apply(scope).run())
                .then();
    }

    private <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }

    @Nested
    class Which {

        @Test
        void runAfterACommitInTheOrderOfTheirRegistration() {
            scopes.inTransaction(c -> hooks("first")
                            .then(scopes.inTransaction(d -> hooks("joined")))
                            .then(hooks("last")))
                    .block(FormContract.PATIENCE);

            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
            assertThat(ran)
                    .containsExactly(
                            "first commit after 4 steps",
                            "first COMMITTED after 4 steps",
                            "joined commit after 4 steps",
                            "joined COMMITTED after 4 steps",
                            "last commit after 4 steps",
                            "last COMMITTED after 4 steps");
        }

        @Test
        void runAfterAnError() {
            assertThatThrownBy(() -> scopes.inTransaction(
                                    c -> hooks("a").then(Mono.error(new IllegalStateException("own"))))
                            .block(FormContract.PATIENCE))
                    .hasMessage("own");

            assertThat(ran).containsExactly("a rollback after 4 steps", "a ROLLED_BACK after 4 steps");
        }

        @Test
        void runAfterACancel() {
            TestSubscriber<Void> subscriber = TestSubscriber.create();
            scopes.inTransaction(c -> hooks("a").then(Mono.<Void>never())).subscribe(subscriber);

            subscriber.cancel();

            assertThat(ran).containsExactly("a rollback after 4 steps", "a ROLLED_BACK after 4 steps");
        }

        @Test
        void runAfterARollbackThatTheScopeAskedFor() {
            scopes.inTransaction(c -> hooks("a").then(hook(scope -> scope::setRollbackOnly)))
                    .block(FormContract.PATIENCE);

            assertThat(ran).containsExactly("a rollback after 4 steps", "a ROLLED_BACK after 4 steps");
        }

        @Test
        void runAfterACommitThatWasRefused() {
            database.on("commit", () -> Mono.error(new R2dbcDataIntegrityViolationException("refused", "23505")));

            assertThatThrownBy(() -> scopes.inTransaction(c -> hooks("a")).block(FormContract.PATIENCE))
                    .hasMessage("refused");

            assertThat(ran).extracting(line -> line.substring(0, 6)).containsExactly("a roll", "a ROLL");
            assertThat(events(ScopeEvent.Released.class))
                    .extracting(ScopeEvent.Released::transaction)
                    .containsExactly(TransactionOutcome.ROLLED_BACK);
        }

        @Test
        void runAfterACommitOfWhichNobodyKnows() {
            VirtualTimeScheduler time = witness.virtualTime();
            database.on("commit", Mono::never);
            TestSubscriber<Void> subscriber = TestSubscriber.create();
            scopes.inTransaction(c -> hooks("a")).subscribe(subscriber);

            time.advanceTimeBy(Duration.ofSeconds(5));

            assertThat(subscriber.isTerminatedError()).isTrue();
            assertThat(ran).containsExactly("a UNKNOWN after 4 steps");
            assertThat(events(ScopeEvent.Released.class))
                    .extracting(ScopeEvent.Released::transaction)
                    .containsExactly(TransactionOutcome.UNKNOWN);
        }

        @Test
        void runAfterAPlainScopeWithoutAnOutcome() {
            scopes.withConnection(c -> hooks("a")).block(FormContract.PATIENCE);

            assertThat(ran).containsExactly("a NONE after 2 steps");
            assertThat(events(ScopeEvent.Released.class))
                    .extracting(ScopeEvent.Released::transaction)
                    .containsExactly(TransactionOutcome.NONE);
        }

        @Test
        void areRefusedInAPlainScopeIfTheyNeedATransaction() {
            for (Publisher<Void> refused : List.of(
                    hook(scope -> () -> scope.afterCommit(Mono.empty())),
                    hook(scope -> () -> scope.afterRollback(Mono.empty())))) {
                assertThatThrownBy(() -> scopes.withConnection(c -> refused).block(FormContract.PATIENCE))
                        .isInstanceOf(ScopePropagationException.class);
            }
        }

        @Test
        void runAfterATransactionThatNeverUsedItsConnection() {
            hooks("a").as(scopes::transactional).block(FormContract.PATIENCE);
            hooks("b")
                    .then(hook(scope -> scope::setRollbackOnly))
                    .as(scopes::transactional)
                    .block(FormContract.PATIENCE);
            hooks("c").as(scopes::connected).block(FormContract.PATIENCE);

            assertThat(ran)
                    .containsExactly(
                            "a commit after 0 steps",
                            "a COMMITTED after 0 steps",
                            "b rollback after 0 steps",
                            "b ROLLED_BACK after 0 steps",
                            "c NONE after 0 steps");
        }

        @ParameterizedTest
        @EnumSource(names = {"CREATE", "BEGIN"})
        void runAfterATransactionThatCouldNotBegin(Fault fault) {
            database.on(
                    fault.name().toLowerCase(java.util.Locale.ROOT), () -> Mono.error(new IllegalStateException("no")));

            assertThatThrownBy(() -> hooks("a")
                            .then(Mono.from(scopes.connectionFactory().create()))
                            .as(scopes::transactional)
                            .block(FormContract.PATIENCE))
                    .hasMessage("no");

            assertThat(ran).extracting(line -> line.substring(0, 6)).containsExactly("a roll", "a ROLL");
        }

        @Test
        void runAfterATransactionThatWasLeftWhileItWaited() {
            Step<io.r2dbc.spi.Connection> create = new Step<>();
            database.on("create", create);
            TestSubscriber<Object> subscriber = TestSubscriber.create();
            hooks("a")
                    .then(Mono.<Object>from(scopes.connectionFactory().create()))
                    .as(scopes::transactional)
                    .subscribe(subscriber);

            subscriber.cancel();

            assertThat(ran).containsExactly("a rollback after 1 steps", "a ROLLED_BACK after 1 steps");
            create.complete(database.newConnection());
        }

        @Test
        void runAfterATransactionThatCompletedWithoutWaitingForABeginThatThenFailed() {
            Step<Integer> begin = new Step<>();
            database.on("begin", begin);
            TestSubscriber<Object> subscriber = TestSubscriber.create();
            hooks("a")
                    .then(Mono.<Object>firstWithValue(
                            Mono.from(scopes.connectionFactory().create()), Mono.just("of a cache")))
                    .as(scopes::transactional)
                    .subscribe(subscriber);

            begin.fail(new IllegalStateException("of BEGIN"));

            assertThat(subscriber.getReceivedOnNext()).containsExactly("of a cache");
            assertThat(database.log()).doesNotContain("commit#1").endsWith("close#1");
            assertThat(ran).extracting(line -> line.substring(0, 6)).containsExactly("a roll", "a ROLL");
        }

        @Test
        void runAfterATransactionThatCompletedWhileItWaited() {
            Step<io.r2dbc.spi.Connection> create = new Step<>();
            database.on("create", create);
            TestSubscriber<Object> subscriber = TestSubscriber.create();
            hooks("a")
                    .then(Mono.<Object>firstWithValue(
                            Mono.from(scopes.connectionFactory().create()), Mono.just("of a cache")))
                    .as(scopes::transactional)
                    .subscribe(subscriber);

            assertThat(subscriber.getReceivedOnNext()).containsExactly("of a cache");
            assertThat(ran).containsExactly("a commit after 1 steps", "a COMMITTED after 1 steps");
            create.complete(database.newConnection());
        }
    }

    /** The steps by which a transaction begins. */
    enum Fault {
        CREATE,
        BEGIN
    }

    @Nested
    class OfScopesInside {

        @Test
        void aSavepointThatWasReleasedRunAfterTheTransactionAroundIt() {
            scopes.inTransaction(c -> hooks("outer")
                            .then(savepoints.inTransaction(d -> hooks("inner")))
                            .then(hooks("last")))
                    .block(FormContract.PATIENCE);

            assertThat(database.log()).hasSize(6);
            assertThat(ran)
                    .containsExactly(
                            "outer commit after 6 steps",
                            "outer COMMITTED after 6 steps",
                            "inner commit after 6 steps",
                            "inner COMMITTED after 6 steps",
                            "last commit after 6 steps",
                            "last COMMITTED after 6 steps");
        }

        @Test
        void aSavepointThatWasReleasedShareTheRollbackOfTheTransactionAroundIt() {
            assertThatThrownBy(() -> scopes.inTransaction(c -> savepoints
                                    .inTransaction(d -> hooks("inner"))
                                    .then(Mono.error(new IllegalStateException("own"))))
                            .block(FormContract.PATIENCE))
                    .hasMessage("own");

            assertThat(ran).containsExactly("inner rollback after 6 steps", "inner ROLLED_BACK after 6 steps");
        }

        @Test
        void aSavepointThatWasRolledBackToAreDecidedAlthoughTheTransactionCommits() {
            scopes.inTransaction(c -> savepoints
                            .inTransaction(d -> hooks("inner").then(Mono.<Void>error(new IllegalStateException("own"))))
                            .onErrorComplete()
                            .then(hooks("outer")))
                    .block(FormContract.PATIENCE);

            assertThat(ran)
                    .containsExactly(
                            "inner rollback after 7 steps",
                            "inner ROLLED_BACK after 7 steps",
                            "outer commit after 7 steps",
                            "outer COMMITTED after 7 steps");
        }

        @Test
        void aSavepointThatNeverUsedItsConnectionGoToTheTransactionAroundIt() {
            scopes.inTransaction(
                            c -> hooks("inner").as(savepoints::transactional).then(hooks("outer")))
                    .block(FormContract.PATIENCE);

            assertThat(ran)
                    .containsExactly(
                            "inner commit after 4 steps",
                            "inner COMMITTED after 4 steps",
                            "outer commit after 4 steps",
                            "outer COMMITTED after 4 steps");
        }

        @Test
        void aSavepointThatEndsAfterTheTransactionAroundItSeeNoCommitIfThatRolledBack() {
            Step<Integer> end = new Step<>();
            assertThatThrownBy(() -> scopes.inTransaction(c -> Mono.deferContextual(context -> {
                                hooks("inner")
                                        .then(end.publisher().as(savepoints::transactional))
                                        .as(savepoints::transactional)
                                        .contextWrite(context)
                                        .subscribe();
                                return Mono.error(new IllegalStateException("own"));
                            }))
                            .block(FormContract.PATIENCE))
                    .hasMessage("own");
            assertThat(ran).isEmpty();

            end.complete(1);

            assertThat(ran).containsExactly("inner rollback after 4 steps", "inner ROLLED_BACK after 4 steps");
        }

        @Test
        void aSavepointThatEndsAfterTheSavepointAroundItWaitForTheTransactionAroundBoth() {
            Step<Integer> end = new Step<>();
            assertThatThrownBy(() -> scopes.inTransaction(c -> Mono.deferContextual(context -> {
                                        hooks("inner")
                                                .then(end.publisher())
                                                .as(savepoints::transactional)
                                                .contextWrite(context)
                                                .subscribe();
                                        return Mono.just(1);
                                    })
                                    .as(savepoints::transactional)
                                    .doOnSuccess(released -> {
                                        end.complete(1);
                                        assertThat(ran).isEmpty();
                                    })
                                    .then(Mono.error(new IllegalStateException("own"))))
                            .block(FormContract.PATIENCE))
                    .hasMessage("own");
            assertThat(ran)
                    .hasSize(2)
                    .satisfiesExactly(
                            first -> assertThat(first).startsWith("inner rollback"),
                            second -> assertThat(second).startsWith("inner ROLLED_BACK"));
        }

        @Test
        void aSavepointWhoseReleaseIsAnsweredTooLateSeeNoCommitIfTheTransactionAroundItRolledBack() {
            VirtualTimeScheduler time = witness.virtualTime();
            Step<Integer> release = new Step<>();
            database.on("release savepoint", release);
            TestSubscriber<Object> subscriber = TestSubscriber.create();
            ConnectionScopes patient = savepoints.with(ScopeOptions.defaults().withReleaseTimeout(Duration.ofHours(1)));
            scopes.inTransaction(c -> patient.inTransaction(d -> hooks("inner")))
                    .subscribe(subscriber);

            subscriber.cancel();
            time.advanceTimeBy(Duration.ofMinutes(1));
            assertThat(database.log()).doesNotContain("commit#1").endsWith("close#1");
            release.complete(1);

            assertThat(ran).containsExactly("inner rollback after 5 steps", "inner ROLLED_BACK after 5 steps");
        }

        @Test
        void aTransactionOnTheConnectionOfAPlainScopeRunRightAfterIt() {
            scopes.withConnectionMany(
                            c -> scopes.inTransaction(d -> hooks("inner")).thenMany(Rows.ints(c, "later")))
                    .blockLast(FormContract.PATIENCE);

            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "later#1", "close#1");
            assertThat(ran).containsExactly("inner commit after 3 steps", "inner COMMITTED after 3 steps");
        }

        @Test
        void aTransactionOfItsOwnDoNotWaitForTheOneAroundIt() {
            scopes.inTransaction(
                            c -> scopes.transactions(Propagation.REQUIRES_NEW).inTransaction(d -> hooks("inner")))
                    .block(FormContract.PATIENCE);

            assertThat(database.log())
                    .containsExactly(
                            "create", "begin#1", "create", "begin#2", "commit#2", "close#2", "commit#1", "close#1");
            assertThat(ran).containsExactly("inner commit after 6 steps", "inner COMMITTED after 6 steps");
        }
    }

    @Nested
    class How {

        private Mono<Integer> with(Publisher<?> hook) {
            return scopes.inTransaction(
                    c -> hook(scope -> () -> scope.afterCommit(hook)).thenReturn(7));
        }

        @Test
        void areAwaitedByTheSubscriberAndByDrain() {
            Step<Void> hook = new Step<>();
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            with(hook.publisher()).subscribe(subscriber);
            TestSubscriber<Void> drained = TestSubscriber.create();
            scopes.drain(FormContract.PATIENCE).subscribe(drained);

            hook.awaitReached();
            assertThat(database.log()).endsWith("close#1");
            assertThat(scopes.live()).isEmpty();
            assertThat(subscriber.isTerminated()).isFalse();
            assertThat(drained.isTerminated()).isFalse();
            hook.complete();

            assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(drained.isTerminatedComplete()).isTrue();
        }

        @Test
        void canOpenScopesWhileTheApplicationShutsDown() {
            Step<Void> before = new Step<>();
            List<Integer> written = new CopyOnWriteArrayList<>();
            Mono<Integer> outbox =
                    scopes.inTransaction(c -> Rows.ints(c, "outbox").next());
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            with(before.publisher().then(outbox).doOnNext(written::add)).subscribe(subscriber);
            TestSubscriber<Void> drained = TestSubscriber.create();
            scopes.drain(FormContract.PATIENCE).subscribe(drained);
            TestSubscriber<Integer> late = TestSubscriber.create();
            outbox.subscribe(late);
            before.complete();

            assertThat(written).containsExactly(1);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(drained.isTerminatedComplete()).isTrue();
            assertThat(late.expectTerminalError()).isInstanceOf(ScopesDrainedException.class);
        }

        @Test
        void areNotCutByACancelThatComesMeanwhile() {
            Step<Void> hook = new Step<>();
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            with(hook.publisher()).subscribe(subscriber);

            subscriber.cancel();

            assertThat(hook.cancels()).isZero();
            hook.complete();
        }

        @Test
        void canOpenScopesOfTheirOwn() {
            with(scopes.inTransactionMany(c -> Rows.ints(c, "outbox"))).block(FormContract.PATIENCE);

            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "commit#1",
                            "close#1",
                            "create",
                            "begin#2",
                            "outbox#2",
                            "commit#2",
                            "close#2");
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        void canOpenScopesOfTheirOwnWhenACancelHasEndedTheScopesAroundAsWell(boolean plain) {
            Step<Integer> rollback = new Step<>();
            database.on("rollback", () -> rollback.isReached() ? Mono.empty() : rollback.publisher());
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            Flux<Integer> inner = scopes.transactions(Propagation.REQUIRES_NEW)
                    .inTransactionMany(d -> hook(scope -> () -> scope.afterRollback(scopes.inTransaction(
                                    e -> Rows.ints(e, "audit").next())))
                            .thenMany(Flux.never()));
            Flux<Integer> all = plain ? scopes.withConnectionMany(c -> inner) : scopes.inTransactionMany(c -> inner);
            all.subscribe(subscriber);

            subscriber.cancel();
            assertThat(events(ScopeEvent.HookFailed.class)).isEmpty();
            rollback.complete(1);

            assertThat(events(ScopeEvent.HookFailed.class)).isEmpty();
            assertThat(database.log()).anyMatch(step -> step.startsWith("audit"));
        }

        @Test
        void seeTheContextDownstreamOfTheScope() {
            AtomicReference<String> seen = new AtomicReference<>();
            with(Mono.deferContextual(context -> {
                        seen.set(context.get("key"));
                        assertThatThrownBy(() -> CurrentScope.from(context))
                                .isInstanceOf(ScopePropagationException.class);
                        return Mono.empty();
                    }))
                    .contextWrite(context -> context.put("key", "downstream"))
                    .block(FormContract.PATIENCE);

            assertThat(seen).hasValue("downstream");
            assertThat(events(ScopeEvent.HookFailed.class)).isEmpty();
        }

        @Test
        void thatFailChangeNothingAndAreTold() {
            IllegalStateException failure = new IllegalStateException("of the hook");
            List<Publisher<?>> hooks = List.of(
                    Mono.error(failure),
                    subscriber -> {
                        throw failure;
                    },
                    note("last"));
            Integer value = scopes.inTransaction(c -> Flux.fromIterable(hooks)
                            .concatMap(hook -> hook(scope -> () -> scope.afterCommit(hook)))
                            .thenMany(hook(scope -> () -> scope.afterCompletion(outcome -> {
                                throw failure;
                            })))
                            .thenMany(hook(scope -> () -> scope.afterCompletion(outcome -> null)))
                            .thenMany(hooks("end"))
                            .then(Mono.just(7)))
                    .block(FormContract.PATIENCE);

            assertThat(value).isEqualTo(7);
            assertThat(ran)
                    .containsExactly("last after 4 steps", "end commit after 4 steps", "end COMMITTED after 4 steps");
            List<Throwable> told = events(ScopeEvent.HookFailed.class).stream()
                    .map(ScopeEvent.HookFailed::error)
                    .toList();
            assertThat(told).hasSize(4);
            assertThat(told.subList(0, 3)).containsOnly(failure);
            assertThat(told.get(3)).isInstanceOf(NullPointerException.class);
            assertThat(log.lines()).hasSize(4).allMatch(line -> line.startsWith("WARN A hook of the scope failed"));
        }

        @Test
        void thatTakeTooLongAreCancelledAndTold() {
            VirtualTimeScheduler time = witness.virtualTime();
            Step<Void> slow = new Step<>();
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            with(slow.publisher()).subscribe(subscriber);

            time.advanceTimeBy(Duration.ofSeconds(2));
            assertThat(slow.cancels()).isZero();
            time.advanceTimeBy(Duration.ofSeconds(1));

            assertThat(slow.cancels()).isEqualTo(1);
            assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            assertThat(events(ScopeEvent.HookFailed.class))
                    .singleElement()
                    .extracting(ScopeEvent.HookFailed::error)
                    .isInstanceOf(ScopeTimeoutException.class);
        }

        @Test
        void areNotReachedByAnOnErrorContinueDownstream() {
            AtomicInteger swallowed = new AtomicInteger();
            with(Flux.just(1, 2).map(n -> Integer.parseInt("x" + n)))
                    .flux()
                    .onErrorContinue((error, value) -> swallowed.incrementAndGet())
                    .blockLast(FormContract.PATIENCE);

            assertThat(swallowed).hasValue(0);
            assertThat(events(ScopeEvent.HookFailed.class)).hasSize(1);
        }

        @Test
        void areRefusedAfterTheEnd() {
            AtomicReference<CurrentScope> kept = new AtomicReference<>();
            scopes.inTransaction(c -> scopes.inTransaction(
                                    d -> CurrentScope.get().doOnNext(kept::set))
                            .then(Mono.fromRunnable(
                                    () -> assertThatThrownBy(() -> kept.get().afterCommit(Mono.empty()))
                                            .isInstanceOf(ScopeClosedException.class)))
                            .then(CurrentScope.get().doOnNext(kept::set)))
                    .block(FormContract.PATIENCE);

            assertThatThrownBy(() -> kept.get().afterRollback(Mono.empty())).isInstanceOf(ScopeClosedException.class);
            assertThatThrownBy(() -> kept.get().afterCompletion(outcome -> Mono.empty()))
                    .isInstanceOf(ScopeClosedException.class);
        }
    }

    @Test
    @Tag("race")
    void runOrAreRefusedButAreNeverLostWhenTheRegistrationRacesTheExit() {
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory raced = ProbeConnectionFactory.of();
            ConnectionScopes racing = ConnectionScopes.of(raced);
            AtomicReference<CurrentScope> current = new AtomicReference<>();
            Sinks.Empty<Integer> end = Sinks.empty();
            Probe<Integer> probe = Probe.unbounded();
            racing.inTransaction(c -> CurrentScope.get().doOnNext(current::set).then(end.asMono()))
                    .subscribe(probe);
            CurrentScope scope = Objects.requireNonNull(current.get());
            AtomicInteger runs = new AtomicInteger();
            AtomicInteger refusals = new AtomicInteger();

            RaceTestUtils.race(end::tryEmitEmpty, () -> {
                try {
                    scope.afterCommit(Mono.fromRunnable(runs::incrementAndGet));
                } catch (ScopeClosedException e) {
                    refusals.incrementAndGet();
                }
            });

            probe.awaitEnd().assertSound();
            assertThat(runs.get() + refusals.get()).isEqualTo(1);
            assertSettled(racing, raced);
        }
    }

    @Test
    @Tag("race")
    void aRollbackThatWasPromisedIsKeptWhenItRacesTheExit() {
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory raced = ProbeConnectionFactory.of();
            ConnectionScopes racing = ConnectionScopes.of(raced);
            AtomicReference<CurrentScope> current = new AtomicReference<>();
            Sinks.Empty<Integer> end = Sinks.empty();
            Probe<Integer> probe = Probe.unbounded();
            racing.inTransaction(c -> CurrentScope.get().doOnNext(current::set).then(end.asMono()))
                    .subscribe(probe);
            CurrentScope scope = Objects.requireNonNull(current.get());
            AtomicReference<String> expected = new AtomicReference<>("rollback#1");

            RaceTestUtils.race(end::tryEmitEmpty, () -> {
                try {
                    scope.setRollbackOnly();
                } catch (ScopeClosedException e) {
                    expected.set("commit#1");
                }
            });

            assertThat(probe.awaitEnd().error()).isNull();
            assertThat(raced.log()).containsExactly("create", "begin#1", expected.get(), "close#1");
            assertSettled(racing, raced);
        }
    }
}
