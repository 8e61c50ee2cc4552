package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.assertj.core.groups.Tuple;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** When a cancelled transaction commits under {@link OnCancel#COMMIT}, and when it does not. */
class OnCancelCommitTest {

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @RegisterExtension
    final Witness witness = new Witness();

    private static final TransactionOptions COMMIT =
            TransactionOptions.defaults().withOnCancel(OnCancel.COMMIT);

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes rolling = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final ConnectionScopes scopes = rolling.transactions(COMMIT);
    private final ConnectionScopes savepoints = scopes.transactions(Propagation.NESTED);
    private final Sinks.Many<Integer> rows = Sinks.many().unicast().onBackpressureBuffer();

    private TestSubscriber<Integer> cancelled(Function<Connection, Publisher<Integer>> body) {
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.inTransactionMany(body).subscribe(subscriber);
        subscriber.cancel();
        return subscriber;
    }

    private void assertEnded(TransactionOutcome transaction, String... steps) {
        assertThat(database.log()).containsExactly(steps);
        assertThat(events)
                .filteredOn(ScopeEvent.Released.class::isInstance)
                .extracting(
                        event -> ((ScopeEvent.Released) event).outcome(),
                        event -> ((ScopeEvent.Released) event).transaction())
                .containsExactly(Tuple.tuple(ScopeOutcome.CANCELLED, transaction));
    }

    @Nested
    class Commits {

        @Test
        void whenARequestToTheConnectionWasAnsweredWhichHasNoRows() {
            cancelled(c -> Flux.from(c.createSavepoint("s")).cast(Integer.class).concatWith(Mono.never()));

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "savepoint#1", "commit#1", "close#1");
        }

        @Test
        void whenWorkWithTheDriversConnectionHasEndedWithoutAnAnswer() {
            cancelled(c -> Flux.from(DriverTurn.<Integer>take(c, "look", turn -> Mono.empty()))
                    .concatWith(Mono.never()));

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void whenTheFirstRowsAreEnough() {
            database.on("rows", () -> Flux.range(1, 5));

            assertThat(scopes.inTransactionMany(c -> Rows.ints(c, "rows"))
                            .take(2)
                            .collectList()
                            .block(FormContract.PATIENCE))
                    .containsExactly(1, 2);

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "rows#1", "commit#1", "close#1");
        }

        @Test
        void whenTheAnswerOfAStatementWithoutRowsIsEnough() {
            database.on("insert", Mono::empty);

            scopes.inTransactionMany(c -> Rows.ints(c, "insert").thenMany(Flux.just(1, 2)))
                    .next()
                    .block(FormContract.PATIENCE);

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "insert#1", "commit#1", "close#1");
        }

        @Test
        void whenThePipelineIsBetweenStatementsAndRunsItsHooks() {
            AtomicBoolean ran = new AtomicBoolean();
            cancelled(c -> CurrentScope.get()
                    .doOnNext(scope -> scope.afterCommit(Mono.fromRunnable(() -> ran.set(true))))
                    .thenMany(Rows.ints(c, "insert"))
                    .thenMany(Flux.never()));

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "insert#1", "commit#1", "close#1");
            assertThat(ran).isTrue();
        }

        @Test
        void afterTheResultThatHasBegunWasReadToItsEnd() {
            database.on("rows", rows::asFlux);
            rows.tryEmitNext(1);
            cancelled(c -> Rows.ints(c, "rows"));

            rows.tryEmitNext(2);
            assertThat(database.log()).containsExactly("create", "begin#1", "rows#1");
            rows.tryEmitComplete();

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "rows#1", "commit#1", "close#1");
        }

        @Test
        void alsoWhenTheSubscriberAskedForNothingMore() {
            database.on("rows", () -> Flux.range(1, 5));
            TestSubscriber<Integer> subscriber =
                    TestSubscriber.builder().initialRequest(1).build();
            scopes.inTransactionMany(c -> Rows.ints(c, "rows")).subscribe(subscriber);

            subscriber.cancel();

            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "rows#1", "commit#1", "close#1");
        }

        @Test
        void aTransactionThatNeverUsedItsConnection() {
            AtomicReference<TransactionOutcome> outcome = new AtomicReference<>();
            TestSubscriber<Object> subscriber = TestSubscriber.create();
            CurrentScope.get()
                    .doOnNext(scope -> scope.afterCompletion(how -> Mono.fromRunnable(() -> outcome.set(how))))
                    .then(Mono.never())
                    .as(scopes::transactional)
                    .subscribe(subscriber);

            subscriber.cancel();

            assertThat(outcome).hasValue(TransactionOutcome.COMMITTED);
        }

        @Test
        void andTellsThoseWhoDroppedTheErrorThatTheCommitFailed() {
            IllegalStateException failure = new IllegalStateException("of COMMIT");
            database.on("commit", () -> Mono.error(failure));

            cancelled(c -> Flux.never());

            assertThat(witness.droppedErrors()).containsExactly(failure);
            witness.droppedErrors().clear();
            assertThat(events)
                    .filteredOn(ScopeEvent.Released.class::isInstance)
                    .singleElement()
                    .satisfies(event ->
                            assertThat(((ScopeEvent.Released) event).error()).isNotNull());
        }

        @Test
        void andRefusesWhatComesFromItsCodeAfterTheCancel() {
            database.on("rows", rows::asFlux);
            rows.tryEmitNext(1);
            AtomicReference<Connection> kept = new AtomicReference<>();
            cancelled(c -> {
                kept.set(c);
                return Rows.ints(c, "rows");
            });
            TestSubscriber<Integer> late = TestSubscriber.create();

            Flux.defer(() -> Rows.ints(kept.get(), "late")).subscribe(late);

            assertThat(late.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            rows.tryEmitComplete();
            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "rows#1", "commit#1", "close#1");
        }
    }

    /** Code that hears of the cancel before the connection does, when the decision to commit was taken already. */
    @Nested
    class WhileItIsCancelled {

        private final TestSubscriber<Integer> late = TestSubscriber.create();

        @Test
        void refusesAStatementAndCommits() {
            cancelled(c ->
                    Flux.<Integer>never().doOnCancel(() -> Rows.ints(c, "late").subscribe(late)));

            assertThat(late.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void refusesASecondStatementAsWell() {
            cancelled(c -> Flux.<Integer>never().doOnCancel(() -> {
                Rows.ints(c, "first").onErrorComplete().subscribe();
                Rows.ints(c, "late").subscribe(late);
            }));

            assertThat(late.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void refusesAStatementOfAScopeInsideWhichIsStillToBeCancelled() {
            AtomicReference<Runnable> statement = new AtomicReference<>();
            cancelled(c -> scopes.inTransactionMany(d -> Flux.deferContextual(inside -> {
                        statement.set(
                                () -> Rows.ints(d, "late").contextWrite(inside).subscribe(late));
                        return Flux.<Integer>never();
                    }))
                    .doOnCancel(() -> statement.get().run()));

            assertThat(late.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void refusesWhatAsksTheConnectionItself() {
            cancelled(c -> Flux.<Integer>never()
                    .doOnCancel(() -> Flux.<Integer>empty()
                            .mergeWith(Mono.from(c.createSavepoint("late")).then(Mono.empty()))
                            .subscribe(late)));

            assertThat(late.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            assertEnded(TransactionOutcome.COMMITTED, "create", "begin#1", "commit#1", "close#1");
        }
    }

    @Nested
    class RollsBack {

        @Test
        void whenAStatementWasNotAnswered() {
            Step<Integer> answer = new Step<>();
            database.on("insert", answer);
            cancelled(c -> Rows.ints(c, "insert"));

            answer.complete(1);

            assertEnded(TransactionOutcome.ROLLED_BACK, "create", "begin#1", "insert#1", "rollback#1", "close#1");
        }

        @Test
        void whenAStatementWaitedToBeSent() {
            Step<Integer> savepoint = new Step<>();
            database.on("savepoint", savepoint);
            cancelled(c -> Flux.merge(
                    Mono.from(c.createSavepoint("own")).then(Mono.<Integer>never()), Rows.ints(c, "insert")));

            savepoint.complete();

            assertEnded(TransactionOutcome.ROLLED_BACK, "create", "begin#1", "savepoint#1", "rollback#1", "close#1");
        }

        @Test
        void whenTheTransactionWasStillBeginning() {
            Step<Integer> begin = new Step<>();
            database.on("begin", begin);
            cancelled(c -> Flux.never());

            begin.complete();

            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        }

        @Test
        void whenTheResultThatHadBegunFails() {
            database.on("rows", rows::asFlux);
            rows.tryEmitNext(1);
            cancelled(c -> Rows.ints(c, "rows"));

            rows.tryEmitError(new IllegalStateException("in the middle"));

            assertEnded(TransactionOutcome.ROLLED_BACK, "create", "begin#1", "rows#1", "rollback#1", "close#1");
        }

        @Test
        void whenTheResultThatHadBegunDoesNotEnd() {
            VirtualTimeScheduler time = witness.virtualTime();
            database.on("rows", rows::asFlux);
            rows.tryEmitNext(1);
            cancelled(c -> Rows.ints(c, "rows"));

            time.advanceTimeBy(Duration.ofSeconds(5));

            assertEnded(TransactionOutcome.ROLLED_BACK, "create", "begin#1", "rows#1", "close#1");
        }

        @Test
        void whenTheScopeAskedForIt() {
            cancelled(c ->
                    CurrentScope.get().doOnNext(CurrentScope::setRollbackOnly).thenMany(Flux.never()));

            assertEnded(TransactionOutcome.ROLLED_BACK, "create", "begin#1", "rollback#1", "close#1");
        }

        @Test
        void whenAScopeThatHasJoinedDoes() {
            cancelled(c -> rolling.inTransactionMany(d -> Flux.never()));

            assertEnded(TransactionOutcome.ROLLED_BACK, "create", "begin#1", "rollback#1", "close#1");
        }
    }

    @Nested
    class Inside {

        private TestSubscriber<Integer> outer(Function<Connection, Publisher<Integer>> inner) {
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            rolling.inTransactionMany(c -> Flux.concat(Flux.from(inner.apply(c)).take(1), Rows.ints(c, "later")))
                    .subscribe(subscriber);
            return subscriber;
        }

        @Test
        void aJoinedScopeThatIsCancelledBetweenStatementsDoesNoHarm() {
            TestSubscriber<Integer> subscriber =
                    outer(c -> scopes.inTransactionMany(d -> Flux.concat(Rows.ints(d, "a"), Flux.never())));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(database.log()).containsExactly("create", "begin#1", "a#1", "later#1", "commit#1", "close#1");
        }

        @Test
        void aJoinedScopeWhoseResultFailsAfterTheCancelDoomsTheTransaction() {
            database.on("rows", rows::asFlux);
            rows.tryEmitNext(1);
            TestSubscriber<Integer> subscriber = outer(c -> scopes.inTransactionMany(d -> Rows.ints(d, "rows")));

            rows.tryEmitError(new IllegalStateException("in the middle"));

            assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeRolledBackException.class);
        }

        @Test
        void aStatementOnTheOuterHandleCountsForTheScopeThatItsSubscriberIsIn() {
            Step<Integer> answer = new Step<>();
            database.on("insert", answer);
            TestSubscriber<Integer> subscriber =
                    outer(c -> scopes.inTransactionMany(d -> Flux.merge(Rows.ints(c, "insert"), Flux.just(1))));
            answer.complete(1);

            assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeRolledBackException.class);
        }

        @Test
        void aStatementOfASiblingDoesNotCount() {
            Step<Integer> answer = new Step<>();
            database.on("sibling", answer);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            rolling.inTransactionMany(c -> Flux.merge(
                            Rows.ints(c, "sibling"),
                            scopes.inTransactionMany(d -> Flux.concat(Flux.just(2), Flux.never()))
                                    .take(1)))
                    .subscribe(subscriber);
            answer.complete(1);

            assertThat(subscriber.isTerminatedComplete()).isTrue();
        }

        @Test
        void aSavepointIsReleased() {
            TestSubscriber<Integer> subscriber =
                    outer(c -> savepoints.inTransactionMany(d -> Flux.concat(Rows.ints(d, "a"), Flux.never())));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "savepoint#1",
                            "a#1",
                            "release savepoint#1",
                            "later#1",
                            "commit#1",
                            "close#1");
        }

        @Test
        void aStatementOfASavepointThatWasNotAnsweredRollsAllOfItBack() {
            Step<Integer> answer = new Step<>();
            database.on("insert", answer);
            cancelled(c -> savepoints.inTransactionMany(d -> Rows.ints(d, "insert")));
            answer.complete(1);

            assertThat(database.log())
                    .endsWith("rollback to savepoint#1", "release savepoint#1", "rollback#1", "close#1");
        }
    }

    /** A transaction whose next statement races the cancel. */
    private static final class Race {

        final AtomicBoolean ended = new AtomicBoolean();
        final AtomicBoolean endedBeforeCommit = new AtomicBoolean();
        final ProbeConnectionFactory database = ProbeConnectionFactory.of()
                .on("insert", () -> Flux.just(1, 2).doOnComplete(() -> ended.set(true)))
                .on("commit", () -> {
                    endedBeforeCommit.set(ended.get());
                    return Mono.empty();
                });
        final ConnectionScopes scopes;
        final Probe<Integer> probe = Probe.unbounded();

        Race(boolean scheduled) {
            if (scheduled) {
                database.onScheduler(() -> Schedulers.single());
            }
            scopes = ConnectionScopes.of(database).transactions(COMMIT);
        }

        void start(Function<Connection, Publisher<Integer>> rest) {
            scopes.inTransactionMany(c -> Flux.concat(Flux.just(0), rest.apply(c), Flux.never()))
                    .subscribe(probe);
            Settling.await("the body runs", () -> !probe.values().isEmpty());
        }

        boolean wasSent() {
            return database.log().contains("insert#1");
        }

        /** Says whether it committed. */
        boolean settle() {
            assertSettled(scopes, database);
            probe.assertSound();
            boolean committed = database.log().contains("commit#1");
            assertThat(!committed || !wasSent() || endedBeforeCommit.get())
                    .as("not committed before the end of the statement: " + database.log())
                    .isTrue();
            return committed;
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @Tag("race")
    void neverCommitsWithAStatementHalfSentWhenCancelRacesThePipeline(boolean scheduled) {
        for (int i = 0; i < RACES; i++) {
            Race race = new Race(scheduled);
            Sinks.Empty<Void> go = Sinks.empty();
            AtomicBoolean attempted = new AtomicBoolean();
            race.start(c -> go.asMono().thenMany(Flux.defer(() -> {
                attempted.set(true);
                return Rows.ints(c, "insert");
            })));

            RaceTestUtils.race(race.probe::cancel, go::tryEmitEmpty);

            if (!race.settle()) {
                assertThat(attempted).as("rolled back for no reason").isTrue();
            }
        }
    }

    /** Whoever comes first: the statement is found by the cancel, or refused. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @Tag("race")
    void admitsAStatementBeforeTheDecisionOrRefusesItWhenCancelRacesItsAdmission(boolean scheduled) {
        for (int i = 0; i < RACES; i++) {
            Race race = new Race(scheduled);
            AtomicReference<Connection> current = new AtomicReference<>();
            race.start(c -> {
                current.set(c);
                return Flux.empty();
            });
            Probe<Integer> statement = Probe.unbounded();

            RaceTestUtils.race(
                    race.probe::cancel,
                    () -> Flux.defer(() -> Rows.ints(current.get(), "insert")).subscribe(statement));

            statement.awaitEnd().assertSound();
            if (race.settle()) {
                assertThat(race.wasSent()).isEqualTo(statement.isCompleted());
            }
            if (!statement.isCompleted()) {
                assertThat(statement.error()).isInstanceOf(ScopeClosedException.class);
            }
        }
    }
}
