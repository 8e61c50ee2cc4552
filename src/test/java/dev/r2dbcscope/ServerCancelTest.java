package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcTimeoutException;
import java.io.IOException;
import java.net.ConnectException;
import java.time.Duration;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.publisher.TestPublisher;
import reactor.test.scheduler.VirtualTimeScheduler;

/** When the database is asked to cancel what runs for nobody, and what waits for that; without a database. */
class ServerCancelTest {

    private static final Duration GRACE = ScopeOptions.defaults().cancelGrace();
    private static final Duration RELEASE_TIMEOUT = ScopeOptions.defaults().releaseTimeout();
    private static final Duration HOUR = Duration.ofHours(1);

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture logged = new LogCapture();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of().knowingCancel());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final TestPublisher<Integer> rows = TestPublisher.create();
    private final TestPublisher<Void> request = TestPublisher.create();
    private final Probe<Integer> probe = Probe.unbounded();

    /** What waits for the connection's own thread, in the tests in which it has one. */
    private final Queue<Runnable> tasks = new ConcurrentLinkedQueue<>();

    private VirtualTimeScheduler clock;

    @BeforeEach
    void stopTheClock() {
        clock = witness.virtualTime();
        database.on("long", rows::flux).on("cancel", request::mono);
    }

    private void runTasks() {
        for (Runnable task = tasks.poll(); task != null; task = tasks.poll()) {
            task.run();
        }
    }

    private static Function<Connection, Flux<Integer>> running(String sql) {
        return connection -> Rows.ints(connection, sql);
    }

    private static R2dbcNonTransientResourceException cancelled() {
        return new R2dbcNonTransientResourceException("canceling statement due to user request", "57014");
    }

    private long requests() {
        return database.log().stream().filter("cancel#1"::equals).count();
    }

    private boolean isGivenBack() {
        return database.log().contains("close#1");
    }

    private <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }

    private void assertReturned() {
        assertThat(isGivenBack()).isTrue();
        assertThat(events(ScopeEvent.Released.class))
                .singleElement()
                .matches(released -> !released.destroyed() && released.outcome() == ScopeOutcome.CANCELLED);
        assertThat(probe.isTerminated()).isFalse();
        assertThat(probe.drops().errors()).isEmpty();
    }

    private void assertDestroyed() {
        assertThat(isGivenBack()).isTrue();
        assertThat(events(ScopeEvent.Released.class)).singleElement().matches(ScopeEvent.Released::destroyed);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void isAskedAfterTheGraceAndTheConnectionGoesBackWhenBothHaveEnded(boolean requestFirst) {
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE.minusNanos(1));
        assertThat(requests()).isZero();
        clock.advanceTimeBy(Duration.ofNanos(1));
        assertThat(requests()).isEqualTo(1);
        assertThat(isGivenBack()).isFalse();
        if (requestFirst) {
            request.complete();
        } else {
            rows.error(cancelled());
        }
        assertThat(isGivenBack()).isFalse();
        if (requestFirst) {
            rows.error(cancelled());
        } else {
            request.complete();
        }
        assertReturned();
        assertThat(requests()).isEqualTo(1);
    }

    @Test
    void rollsBackAfterBothHaveEnded() {
        scopes.inTransactionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        rows.error(cancelled());
        assertThat(database.log()).doesNotContain("rollback#1");
        request.complete();
        assertReturned();
        assertThat(database.log()).endsWith("cancel#1", "rollback#1", "close#1");
        assertThat(events(ScopeEvent.Released.class).get(0).transaction()).isEqualTo(TransactionOutcome.ROLLED_BACK);
    }

    @Test
    void isAskedWhenThePipelineFails() {
        Sinks.Empty<Integer> failing = Sinks.empty();
        scopes.inTransactionMany(c -> Rows.ints(c, "long").mergeWith(failing.asMono()))
                .subscribe(probe);
        RuntimeException failure = new IllegalStateException("the pipeline");
        failing.tryEmitError(failure);
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        request.complete();
        rows.error(cancelled());
        assertThat(probe.error()).isSameAs(failure).hasNoSuppressedExceptions();
        assertThat(database.log()).endsWith("rollback#1", "close#1");
    }

    @Test
    void isNotAskedWhenTheStatementEndsWithinTheGrace() {
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE.minusNanos(1));
        rows.complete();
        assertReturned();
        clock.advanceTimeBy(HOUR);
        assertThat(requests()).isZero();
    }

    @Test
    void armsNoTimerWhenNothingRuns() {
        scopes.withConnectionMany(c -> Rows.ints(c, "select 1").concatWith(Flux.never()))
                .subscribe(probe);
        assertThat(probe.values()).containsExactly(1);
        long timers = clock.getScheduledTaskCount();
        probe.cancel();
        assertReturned();
        assertThat(clock.getScheduledTaskCount()).isEqualTo(timers);
    }

    @Test
    void isNeverAskedWithAVeryLongGrace() {
        ConnectionScopes patient = scopes.with(ScopeOptions.defaults()
                .withCancelGrace(Duration.ofSeconds(Long.MAX_VALUE))
                .withListener(events::add));
        patient.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(Duration.ofSeconds(1));
        for (int i = 0; i < 20_000; i++) {
            rows.next(i);
        }
        assertThat(requests()).isZero();
        rows.complete();
        assertReturned();
    }

    @Test
    void isAskedAtOnceWhenTheStatementSendsRowsByTheThousand() {
        database.on("long", () -> Flux.range(1, 1_000_000).concatWith(rows.flux()));
        TestPublisher<Integer> stop = TestPublisher.create();
        scopes.withConnectionMany(c -> Rows.ints(c, "long").takeUntilOther(stop.flux()))
                .subscribe(Probe.requesting(3));
        stop.complete();
        clock.advanceTime();
        assertThat(requests()).isEqualTo(1);
        assertThat(rows.wasSubscribed()).as("reads on meanwhile").isFalse();
        request.complete();
        assertThat(rows.wasSubscribed()).isTrue();
        rows.error(cancelled());
        assertThat(isGivenBack()).isTrue();
    }

    @Test
    void isAskedAgainWhenTheStatementGoesOnAndNotTooOften() {
        database.on("cancel", Mono::empty);
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        clock.advanceTimeBy(Duration.ofMillis(100));
        assertThat(requests()).isEqualTo(2);
        clock.advanceTimeBy(Duration.ofMillis(199));
        assertThat(requests()).isEqualTo(2);
        clock.advanceTimeBy(Duration.ofMillis(1));
        assertThat(requests()).isEqualTo(3);
        rows.error(cancelled());
        assertReturned();
    }

    @Test
    void isAskedForEachOfSeveralStatements() {
        TestPublisher<Integer> second = TestPublisher.create();
        database.on("second", second::flux).on("cancel", Mono::empty);
        scopes.withConnectionMany(c -> Flux.merge(Rows.ints(c, "long"), Rows.ints(c, "second")))
                .subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        rows.error(cancelled());
        assertThat(isGivenBack()).isFalse();
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(2);
        second.error(cancelled());
        assertReturned();
        assertThat(events(ScopeEvent.CancelRequested.class))
                .extracting(ScopeEvent.CancelRequested::sql)
                .containsExactly("long", "second");
    }

    @Test
    void aRequestThatFailsDestroysTheConnectionBecauseItMayStillComeToTheDatabase() {
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        IOException failure = new IOException("reset");
        request.error(failure);
        assertDestroyed();
        assertThat(events(ScopeEvent.ReleaseFailed.class))
                .singleElement()
                .satisfies(event -> assertThat(event.error())
                        .isInstanceOf(ScopeReleaseException.class)
                        .hasCause(failure));
        assertThat(events(ScopeEvent.CancelRequested.class))
                .singleElement()
                .satisfies(event -> assertThat(event.error()).isSameAs(failure));
        rows.complete();
    }

    @Test
    void aRequestThatFailsAfterTheStatementHasEndedDestroysTheConnectionToo() {
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        rows.complete();
        assertThat(isGivenBack()).isFalse();
        request.error(new IOException("reset"));
        assertDestroyed();
    }

    @Test
    void aRequestThatWasNeverSentIsRepeatedAndHarmsNothing() {
        ConnectException refused = new ConnectException("refused");
        database.on("cancel", () -> Mono.error(refused));
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE.plusMillis(100));
        assertThat(requests()).isEqualTo(2);
        rows.complete();
        assertReturned();
        assertThat(events(ScopeEvent.CancelRequested.class))
                .hasSize(2)
                .allSatisfy(event -> assertThat(event.error()).isSameAs(refused));
    }

    @Test
    void aRequestThatHangsIsBoundedByTheReleaseTimeout() {
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        rows.assertMinRequested(1);
        clock.advanceTimeBy(GRACE);
        rows.complete();
        clock.advanceTimeBy(RELEASE_TIMEOUT);
        assertDestroyed();
        request.assertNotCancelled();
        clock.advanceTimeBy(HOUR);
        assertThat(requests()).isEqualTo(1);
    }

    @Test
    void aStatementThatNoRequestEndsIsBoundedByTheReleaseTimeoutAndNotAskedForAfterwards() {
        database.on("cancel", Mono::empty);
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(RELEASE_TIMEOUT);
        assertDestroyed();
        long asked = requests();
        clock.advanceTimeBy(HOUR);
        assertThat(requests()).isEqualTo(asked);
    }

    // a scope that goes on -------------------------------------------------------------------------------------------

    @Test
    void theNextStatementOfAScopeWaitsUntilItCannotBeHit() {
        database.onScheduler(() -> Schedulers.fromExecutor(tasks::add));
        scopes.withConnectionMany(c -> Rows.ints(c, "long").take(1).concatWith(Rows.ints(c, "next")))
                .subscribe(probe);
        runTasks();
        rows.next(7);
        runTasks();
        assertThat(database.log()).doesNotContain("next#1");
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        rows.error(cancelled());
        runTasks();
        assertThat(database.log()).doesNotContain("next#1");
        request.complete();
        runTasks();
        assertThat(probe.values()).containsExactly(7, 1);
        assertThat(probe.isCompleted()).isTrue();
        assertThat(database.log()).containsExactly("create", "long#1", "cancel#1", "next#1", "close#1");
    }

    @Test
    void aRequestThatFailsEndsAScopeThatGoesOn() {
        database.onScheduler(() -> Schedulers.fromExecutor(tasks::add));
        scopes.withConnectionMany(c -> Rows.ints(c, "long").take(1).concatWith(Rows.ints(c, "next")))
                .subscribe(probe);
        runTasks();
        rows.next(7);
        runTasks();
        clock.advanceTimeBy(GRACE);
        request.error(new IOException("reset"));
        assertThat(probe.values()).containsExactly(7);
        assertThat(probe.error()).isInstanceOf(ScopeClosedException.class);
        assertDestroyed();
        assertThat(database.log()).doesNotContain("next#1");
    }

    @Test
    void aTransactionThatGoesOnIsNotCancelled() {
        scopes.inTransactionMany(c -> Rows.ints(c, "long").take(1).concatWith(Rows.ints(c, "next")))
                .subscribe(probe);
        rows.next(7);
        clock.advanceTimeBy(Duration.ofMillis(100));
        assertThat(database.log()).endsWith("next#1");
        rows.complete();
        assertThat(probe.isCompleted()).isTrue();
        assertThat(database.log()).endsWith("commit#1", "close#1");
        assertThat(requests()).isZero();
    }

    @Test
    void aTransactionThatWasBegunByHandIsNotCancelled() {
        scopes.withConnectionMany(c -> Mono.from(c.beginTransaction())
                        .thenMany(Rows.ints(c, "long").take(1).concatWith(Rows.ints(c, "next")))
                        .concatWith(Mono.from(c.commitTransaction()).cast(Integer.class)))
                .subscribe(probe);
        rows.next(7);
        clock.advanceTimeBy(Duration.ofMillis(100));
        assertThat(database.log()).endsWith("next#1");
        rows.complete();
        assertThat(probe.isCompleted()).isTrue();
        assertThat(requests()).isZero();
    }

    @Test
    void aTransactionOfWhichOnlyTheDriverKnowsIsNotCancelled() {
        NotingDriver driver = new NotingDriver(database).withoutAutoCommit().on("cancel", Mono::empty);
        scopes.withConnectionMany(c -> Rows.ints(c, "long").take(1).concatWith(Rows.ints(c, "next")))
                .subscribe(probe);
        rows.next(7);
        assertThat(database.log()).endsWith("next#1");
        clock.advanceTimeBy(HOUR);
        rows.complete();
        assertThat(probe.isCompleted()).isTrue();
        assertThat(driver.noted()).isEmpty();
    }

    @Test
    void theFirstLookComesOnTheConnectionsOwnThreadAndNeedsNoTimer() {
        database.onScheduler(() -> Schedulers.fromExecutor(tasks::add));
        scopes.withConnectionMany(c -> Rows.ints(c, "long").take(1).concatWith(Flux.never()))
                .subscribe(probe);
        runTasks();
        long timers = clock.getScheduledTaskCount();
        rows.next(7);
        assertThat(tasks).isNotEmpty();
        assertThat(clock.getScheduledTaskCount()).isEqualTo(timers);
        rows.complete();
        runTasks();
        assertThat(clock.getScheduledTaskCount()).isEqualTo(timers);
        probe.cancel();
        runTasks();
        assertReturned();
    }

    @Test
    void isReadToItsEndInsteadWhenThereIsNobodyToLookLater() {
        AtomicBoolean shutDown = new AtomicBoolean();
        database.onScheduler(() -> Schedulers.fromExecutor(task -> {
            if (shutDown.get()) {
                throw new RejectedExecutionException();
            }
            tasks.add(task);
        }));
        scopes.withConnectionMany(running("long")).subscribe(probe);
        runTasks();
        shutDown.set(true);
        probe.cancel();
        rows.assertMinRequested(Long.MAX_VALUE);
        shutDown.set(false);
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isZero();
        rows.complete();
        runTasks();
        assertReturned();
    }

    @Test
    void aResultThatWasTooMuchForItsSlowReaderIsCancelled() {
        Probe<Integer> slow = Probe.requesting(1);
        scopes.with(ScopeOptions.defaults().withMaxBufferedRows(2).withListener(events::add))
                .withConnectionMany(c -> Mono.<Integer>fromRunnable(() -> Mono.from(
                                        c.createStatement("long").execute())
                                .subscribe(result -> Flux.from(result.map(row -> row.get(0, Integer.class)))
                                        .subscribe(slow)))
                        .thenMany(Rows.ints(c, "next")))
                .subscribe(probe);
        rows.next(1, 2, 3, 4);
        assertThat(slow.error()).isInstanceOf(NestedReadOverflowException.class);
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        request.complete();
        rows.error(cancelled());
        assertThat(probe.awaitEnd().values()).containsExactly(1);
    }

    @Test
    void aStatementIsWantedForItsEffectsThoughNobodyReadsItsResult() {
        scopes.withConnection(
                        c -> Mono.from(c.createStatement("long").execute()).then(Mono.<Integer>never()))
                .subscribe(probe);
        clock.advanceTimeBy(HOUR);
        assertThat(requests()).isZero();
        rows.complete();
        probe.cancel();
        assertReturned();
    }

    @Test
    void aResultIsWantedThoughNoFurtherOneIs() {
        scopes.withConnectionMany(c -> Mono.from(c.createStatement("long").execute())
                        .flatMapMany(result -> result.map((row, metadata) -> row.get(0, Integer.class))))
                .subscribe(probe);
        clock.advanceTimeBy(HOUR);
        rows.next(1, 2).complete();
        assertThat(probe.values()).containsExactly(1, 2);
        assertThat(probe.isCompleted()).isTrue();
        assertThat(requests()).isZero();
    }

    // who else is not to be hit --------------------------------------------------------------------------------------

    @Test
    void anOuterScopeLeavesItToTheTransactionInside() {
        scopes.withConnectionMany(outer -> scopes.inTransactionMany(running("long")))
                .subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        clock.advanceTimeBy(Duration.ofSeconds(1));
        rows.error(cancelled());
        assertThat(database.log()).doesNotContain("rollback#1");
        request.complete();
        assertThat(database.log()).containsExactly("create", "begin#1", "long#1", "cancel#1", "rollback#1", "close#1");
    }

    @Test
    void aSavepointThatIsLeftIsCancelledAndTheTransactionAroundItCommits() {
        ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
        scopes.inTransactionMany(
                        c -> nested.inTransactionMany(running("long")).take(1).concatWith(Rows.ints(c, "next")))
                .subscribe(probe);
        rows.next(7);
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        rows.error(cancelled());
        request.complete();
        assertThat(probe.isCompleted()).isTrue();
        assertThat(database.log())
                .endsWith(
                        "cancel#1", "rollback to savepoint#1", "release savepoint#1", "next#1", "commit#1", "close#1");
    }

    @Test
    void whatEndsByItselfIsCancelledOnlyAfterHalfOfTheReleaseTimeout() {
        TestPublisher<Integer> copy = TestPublisher.create();
        scopes.withConnection(c -> DriverTurn.take(c, "COPY", turn -> copy.flux()))
                .subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(RELEASE_TIMEOUT.dividedBy(2).minusNanos(1));
        assertThat(requests()).isZero();
        clock.advanceTimeBy(Duration.ofNanos(1));
        assertThat(requests()).isEqualTo(1);
        copy.error(cancelled());
        request.complete();
        assertReturned();
    }

    @Test
    void aTurnThatRunsAStatementIsCancelledLikeOne() {
        TestPublisher<Integer> lock = TestPublisher.create();
        scopes.withConnection(c -> DriverTurn.take(c, "a lock", turn -> {
                    turn.cancellable();
                    return lock.flux();
                }))
                .subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        assertThat(requests()).isEqualTo(1);
        lock.error(cancelled());
        request.complete();
        assertReturned();
    }

    @ParameterizedTest
    @ValueSource(strings = {"COMMIT", "COMPLETE"})
    void isNotAskedWhenACancelKeepsTheWork(OnCancel onCancel) {
        scopes.transactions(TransactionOptions.defaults().withOnCancel(onCancel))
                .inTransactionMany(running("long"))
                .subscribe(probe);
        rows.next(1);
        probe.cancel();
        clock.advanceTimeBy(Duration.ofSeconds(1));
        assertThat(requests()).isZero();
        rows.complete();
        assertThat(database.log()).endsWith("commit#1", "close#1");
    }

    @Test
    void nobodyTakesTheCancelForATimeout() {
        database.knowingSettings();
        scopes.with(ScopeOptions.defaults()
                        .withStatementTimeout(Duration.ofMillis(1))
                        .withListener(events::add))
                .withConnectionMany(running("long"))
                .subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        request.complete();
        R2dbcTimeoutException told = new R2dbcTimeoutException("canceled", "57014");
        long start = System.nanoTime();
        Await.until(() -> System.nanoTime() - start > 5_000_000, () -> "time stands still");
        rows.error(told);
        assertReturned();
        assertThat(events(ScopeEvent.StatementEnded.class))
                .singleElement()
                .satisfies(event -> assertThat(event.error()).isSameAs(told));
    }

    @Test
    void listenersHearOfTheRequest() {
        scopes.withConnectionMany(running("long")).subscribe(probe);
        probe.cancel();
        clock.advanceTimeBy(GRACE);
        assertThat(events(ScopeEvent.CancelRequested.class)).isEmpty();
        request.complete();
        rows.error(cancelled());
        assertThat(events(ScopeEvent.CancelRequested.class)).singleElement().satisfies(event -> {
            assertThat(event.sql()).isEqualTo("long");
            assertThat(event.ran()).isPositive();
            assertThat(event.took()).isBetween(Duration.ofNanos(1), FormContract.PATIENCE);
            assertThat(event.error()).isNull();
        });
        assertReturned();
    }
}
