package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** Statements that were subscribed to, and must not reach the database any more. */
class UnsentStatementTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));

    @Test
    @Tag("lifecycle-61")
    void isWhatStillWaitsWhenTheExitIsStuck() {
        VirtualTimeScheduler time = witness.virtualTime();
        database.on("stuck", Flux::never);
        TestSubscriber<Integer> stuck = TestSubscriber.create();
        TestSubscriber<Integer> waiting = TestSubscriber.create();
        TestSubscriber<String> subscriber = TestSubscriber.create();
        scopes.with(ScopeOptions.defaults().withMaxStatementsInFlight(1).withReleaseTimeout(Duration.ofSeconds(5)))
                .withConnection(c -> {
                    Rows.ints(c, "stuck").subscribe(stuck);
                    Rows.ints(c, "waiting").subscribe(waiting);
                    return Mono.just("done");
                })
                .subscribe(subscriber);
        assertThat(subscriber.isTerminated()).isFalse();

        time.advanceTimeBy(Duration.ofSeconds(5));

        assertThat(subscriber.getReceivedOnNext()).containsExactly("done");
        assertThat(stuck.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
        assertThat(waiting.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
        assertThat(database.log()).containsExactly("create", "stuck#1", "close#1");
    }

    @Test
    void isWhatWaitsBehindAResultThatEndsTheScopeByItsOverflow() {
        database.servingInOrder().on("outer", () -> Flux.range(0, 100));
        TestSubscriber<Integer> waiting = TestSubscriber.create();
        TestSubscriber<Integer> subscriber =
                TestSubscriber.builder().initialRequest(1).build();
        scopes.with(ScopeOptions.defaults().withMaxBufferedRows(4))
                .withConnectionMany(c -> Rows.ints(c, "outer")
                        .doOnNext(row -> Rows.ints(c, "waiting").subscribe(waiting)))
                .subscribe(subscriber);

        assertThat(subscriber.expectTerminalError()).isInstanceOf(NestedReadOverflowException.class);
        assertThat(waiting.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
        assertThat(database.log()).containsExactly("create", "outer#1", "close#1");
    }

    @Test
    void isNotSentWhenTheStuckOneEndsByTheClose() {
        VirtualTimeScheduler time = witness.virtualTime();
        Step<Integer> rows = new Step<>();
        database.on("stuck", rows).on("close", () -> Mono.fromRunnable(rows::complete));
        TestSubscriber<Integer> waiting = TestSubscriber.create();
        TestSubscriber<String> subscriber = TestSubscriber.create();
        scopes.with(ScopeOptions.defaults().withMaxStatementsInFlight(1).withReleaseTimeout(Duration.ofSeconds(5)))
                .withConnection(c -> {
                    Rows.ints(c, "stuck").subscribe(TestSubscriber.create());
                    Rows.ints(c, "waiting").subscribe(waiting);
                    return Mono.just("done");
                })
                .subscribe(subscriber);
        time.advanceTimeBy(Duration.ofSeconds(5));

        assertThat(subscriber.getReceivedOnNext()).containsExactly("done");
        assertThat(waiting.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
        assertThat(database.log()).containsExactly("create", "stuck#1", "close#1");
    }

    @Test
    @Tag("lifecycle-22")
    void isWhatWasAdmittedAndNotStartedWhenItsScopeIsCancelled() {
        Queue<Runnable> tasks = new ConcurrentLinkedQueue<>();
        database.onScheduler(() -> Schedulers.fromExecutor(tasks::add));
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.inTransactionMany(c -> Rows.ints(c, "insert")).subscribe(subscriber);
        assertThat(tasks).hasSize(1);

        subscriber.cancel();
        runAll(tasks);

        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
    }

    @Test
    void isWhatWasAdmittedAndNotStartedWhenItIsCancelled() {
        Queue<Runnable> tasks = new ConcurrentLinkedQueue<>();
        database.onScheduler(() -> Schedulers.fromExecutor(tasks::add));
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.withConnectionMany(c -> {
                    TestSubscriber<Integer> left = TestSubscriber.create();
                    Rows.ints(c, "left").subscribe(left);
                    left.cancel();
                    TestSubscriber<Void> begin = TestSubscriber.create();
                    Flux.from(c.beginTransaction()).subscribe(begin);
                    begin.cancel();
                    return Rows.ints(c, "select");
                })
                .subscribe(subscriber);
        runAll(tasks);

        assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
        assertThat(database.log()).containsExactly("create", "select#1", "close#1");
    }

    private static void runAll(Queue<Runnable> tasks) {
        Runnable task;
        while ((task = tasks.poll()) != null) {
            task.run();
        }
    }
}
