package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadFactory;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/** A timer that is needed no more is disposed of: one that is left holds its scope until it fires. */
class TimersTest {

    private static final Duration HOUR = Duration.ofHours(1);

    @RegisterExtension
    final Witness witness = new Witness();

    private final ScheduledThreadPoolExecutor timers = new ScheduledThreadPoolExecutor(1);
    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withAcquireTimeout(HOUR).withReleaseTimeout(HOUR)));
    private final Step<Connection> create = new Step<>();
    private final Step<Integer> begin = new Step<>();
    private final Probe<Integer> probe = Probe.unbounded();

    @BeforeEach
    void countTimers() {
        timers.setRemoveOnCancelPolicy(true);
        Schedulers.setFactory(new Schedulers.Factory() {
            @Override
            public Scheduler newParallel(int parallelism, ThreadFactory threads) {
                return Schedulers.fromExecutorService(timers);
            }
        });
    }

    @AfterEach
    void stop() {
        Schedulers.resetFactory();
        timers.shutdownNow();
    }

    private int armed() {
        return Timers.armed() + timers.getQueue().size() - Timers.ticking();
    }

    private void assertNoneIsLeft() {
        Await.until(() -> armed() == 0 && timers.getActiveCount() == 0, () -> armed() + " timers are left");
    }

    private void awaitReached(Step<?> step) {
        Await.until(step::isReached, () -> "not reached");
    }

    @Test
    void ofTheWaitForAConnectionAndForItsTransaction() {
        Step<Integer> row = new Step<>();
        database.on("create", create).on("begin", begin).on("select", row);
        scopes.inTransactionMany(c -> Rows.ints(c, "select")).subscribe(probe);
        assertThat(armed()).isEqualTo(1);
        create.complete(database.newConnection());
        awaitReached(begin);
        assertThat(armed()).isEqualTo(1);
        begin.complete();
        awaitReached(row);
        assertNoneIsLeft();
        row.complete(1);
        assertThat(probe.awaitEnd().values()).containsExactly(1);
        assertNoneIsLeft();
    }

    @Test
    void thatCannotBeArmedEndTheWaitForAConnection() {
        timers.shutdownNow();
        scopes.withConnection(c -> Mono.just(1)).subscribe(probe);
        assertThat(probe.awaitEnd().error()).isNotNull();
        assertThat(scopes.live()).isEmpty();
        assertThat(database.live()).isZero();
    }

    /** It was sent, so it is not known what became of it. */
    @Test
    void thatCannotBeArmedMakeTheOutcomeOfACommitUnknown() {
        Step<Integer> commit = new Step<>();
        database.on("commit", commit);
        scopes.with(scopes.options().withReleaseTimeout(HOUR.plusHours(1)))
                .inTransaction(c -> Mono.fromSupplier(() -> {
                    timers.shutdownNow();
                    return 1;
                }))
                .subscribe(probe);
        assertThat(probe.awaitEnd().error()).isInstanceOf(CommitOutcomeUnknownException.class);
        assertThat(database.log()).doesNotContain("rollback");
        assertThat(scopes.live()).isEmpty();
    }

    @Test
    void ofAnAcquisitionThatFails() {
        database.on("create", create);
        scopes.withConnection(c -> Mono.just(1)).subscribe(probe);
        assertThat(armed()).isEqualTo(1);
        create.fail(new IllegalStateException("no"));
        probe.awaitEnd();
        assertNoneIsLeft();
    }

    @Test
    void ofAnAcquisitionThatNobodyWaitsFor() {
        database.on("create", create);
        scopes.withConnection(c -> Mono.just(1)).subscribe(probe);
        probe.cancel();
        assertNoneIsLeft();
        create.complete(database.newConnection());
        assertNoneIsLeft();
    }

    @Test
    void ofATransactionThatCannotBegin() {
        database.on("begin", begin);
        scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
        begin.fail(new IllegalStateException("no"));
        probe.awaitEnd();
        assertNoneIsLeft();
    }

    @Test
    void ofATransactionThatIsLeftWhileItBegins() {
        database.on("begin", begin);
        scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
        probe.cancel();
        begin.complete();
        assertNoneIsLeft();
    }

    @Test
    void ofTimeLimits() {
        Step<Integer> row = new Step<>();
        database.on("select", row);
        scopes.with(ScopeOptions.defaults().withMaxHold(HOUR).withMaxIdle(HOUR))
                .withConnectionMany(c -> Rows.ints(c, "select"))
                .subscribe(probe);
        awaitReached(row);
        assertThat(armed()).isPositive();
        row.complete(1);
        probe.awaitEnd();
        assertNoneIsLeft();
    }

    @Test
    void ofAPipelineThatFinishesWithoutItsSubscriber() {
        Step<Integer> row = new Step<>();
        database.on("select", row);
        scopes.transactions(TransactionOptions.defaults()
                        .withOnCancel(OnCancel.COMPLETE)
                        .withCompletionTimeout(HOUR))
                .inTransactionMany(c -> Rows.ints(c, "select"))
                .subscribe(probe);
        awaitReached(row);
        probe.cancel();
        assertThat(armed()).isEqualTo(1);
        row.complete(1);
        assertNoneIsLeft();
    }

    @Test
    void ofAStatementThatWaitedForATransactionInside() {
        Step<Integer> inside = new Step<>();
        Step<Integer> after = new Step<>();
        database.on("inside", inside).on("after", after);
        scopes.withConnectionMany(c -> scopes.inTransactionMany(t -> Rows.ints(t, "inside"))
                        .mergeWith(Rows.ints(c, "outside"))
                        .concatWith(Rows.ints(c, "after")))
                .subscribe(probe);
        awaitReached(inside);
        assertThat(armed()).isEqualTo(1);
        inside.complete(1);
        awaitReached(after);
        assertNoneIsLeft();
        after.complete(2);
        assertThat(probe.awaitEnd().values()).hasSize(3);
        assertNoneIsLeft();
    }

    @Test
    void ofAStatementThatEndedBeforeItHadToBeCancelled() {
        Step<Integer> row = new Step<>();
        database.knowingCancel().on("select", row);
        scopes.with(ScopeOptions.defaults().withCancelGrace(HOUR))
                .withConnectionMany(c -> Rows.ints(c, "select"))
                .subscribe(probe);
        awaitReached(row);
        probe.cancel();
        Await.until(() -> armed() > 0, () -> "not timed");
        row.complete(1);
        assertNoneIsLeft();
        assertThat(database.log()).doesNotContain("cancel#1");
    }

    @Test
    void ofAShutdown() {
        database.on("create", create);
        scopes.withConnection(c -> Mono.just(1)).subscribe(probe);
        Probe<Void> drained = Probe.unbounded();
        scopes.drain(HOUR).subscribe(drained);
        create.complete(database.newConnection());
        assertThat(drained.awaitEnd().isCompleted()).isTrue();
        assertNoneIsLeft();
    }
}
