package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import dev.r2dbcscope.testkit.ProbeHold;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Scheduler;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** A BEGIN with statements behind it that does not go the usual way. */
class PipelinedBeginEdgesTest {

    private static final R2dbcNonTransientResourceException REFUSED =
            new R2dbcNonTransientResourceException("BEGIN was cancelled", "57014");

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final List<String> events = new CopyOnWriteArrayList<>();
    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of()).pipeliningBegin().abortingTransactions();
    private final ConnectionScopes plain = witness.watch(ConnectionScopes.of(database));
    private final ConnectionScopes scopes = with(ScopeOptions.defaults());
    private final ProbeHold create = ProbeHold.of();
    private final ProbeHold begin = ProbeHold.of();
    private final TestSubscriber<Integer> subscriber = TestSubscriber.create();

    private ConnectionScopes with(ScopeOptions options) {
        return witness.watch(plain.with(options.withPipelinedBegin(Duration.ZERO)
                .withListener(event -> events.add(event.getClass().getSimpleName()))));
    }

    /** Runs each task at once, but for the one of that number. */
    private static Scheduler rejecting(int number) {
        AtomicInteger tasks = new AtomicInteger();
        return new Scheduler() {
            @Override
            public Disposable schedule(Runnable task) {
                if (tasks.incrementAndGet() == number) {
                    throw new RejectedExecutionException("full");
                }
                task.run();
                return Disposables.disposed();
            }

            @Override
            public Worker createWorker() {
                throw new UnsupportedOperationException();
            }
        };
    }

    private void deliverLater() {
        database.on("create", ProbeFault.hold(create));
    }

    private void deliver() {
        create.release();
        Settling.await("the end", subscriber::isTerminated);
    }

    @Test
    void nothingFollowsABeginThatTheSchedulerRejects() {
        Scheduler scheduler = rejecting(2); // the first delivers the connection
        database.onScheduler(() -> scheduler);
        deliverLater();
        scopes.inTransactionMany(c -> Rows.ints(c, "insert 1")).subscribe(subscriber);
        deliver();
        assertThat(subscriber.expectTerminalError()).isInstanceOf(RejectedExecutionException.class);
        assertThat(database.log()).containsExactly("create", "close#1");
        assertThat(database.durable()).isEmpty();
    }

    @Test
    void nothingFollowsAGuardThatTheSchedulerRejects() {
        Scheduler scheduler = rejecting(2); // the first begins
        database.onScheduler(() -> scheduler).on("begin", ProbeFault.hold(begin));
        scopes.inTransactionMany(c -> Rows.ints(c, "insert 1")).subscribe(subscriber);
        begin.fail(REFUSED);
        assertThat(subscriber.expectTerminalError()).isInstanceOf(RejectedExecutionException.class);
        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        assertThat(database.durable()).isEmpty();
        log.clear();
    }

    /** Where the gate was about to send something as BEGIN failed on another thread. */
    @Test
    void noGuardIsSentWhenBeginHasFailed() {
        AtomicReference<Session> session = new AtomicReference<>();
        database.on("begin", ProbeFault.hold(begin));
        scopes.inTransactionMany(c -> Flux.<Integer>deferContextual(context -> {
                    session.set(
                            Objects.requireNonNull(ScopeRoot.innermost(context)).session());
                    return Flux.never();
                }))
                .subscribe(subscriber);
        Exchange beginning = Objects.requireNonNull(session.get().gate().oldest());
        begin.fail(REFUSED);
        beginning.precedes(beginning);
        assertThat(database.log()).doesNotContain("guard#1");
        subscriber.cancel();
        log.clear();
    }

    @Test
    void aTransactionThatCouldNotBeginHasNoTimeLimitsAnyMore() {
        VirtualTimeScheduler time = witness.virtualTime();
        database.on("begin", ProbeFault.hold(begin));
        with(ScopeOptions.defaults().withMaxIdle(Duration.ofSeconds(8)))
                .inTransactionMany(c -> Flux.<Integer>never())
                .subscribe(subscriber);
        begin.fail(REFUSED);
        time.advanceTimeBy(Duration.ofHours(1));
        long before = time.getScheduledTaskCount();
        time.advanceTimeBy(Duration.ofHours(1));
        assertThat(time.getScheduledTaskCount()).isEqualTo(before);
        subscriber.cancel();
        log.clear();
    }

    @Test
    void aBeginThatIsAnsweredAtOnceIsToldOfBeforeTheStatements() {
        deliverLater();
        scopes.inTransactionMany(c -> Rows.ints(c, "insert 1")).subscribe(subscriber);
        deliver();
        assertThat(events).containsExactly("Waiting", "Opened", "StatementEnded", "Exiting", "Released");
    }

    @Test
    void aBeginThatFailsAtOnceStartsNoPipeline() {
        AtomicBoolean started = new AtomicBoolean();
        deliverLater();
        database.on("begin", () -> Mono.error(REFUSED));
        scopes.inTransactionMany(c -> {
                    started.set(true);
                    return Flux.just(1);
                })
                .subscribe(subscriber);
        deliver();
        assertThat(subscriber.expectTerminalError()).isSameAs(REFUSED);
        assertThat(started).isFalse();
        log.clear();
    }

    @Test
    void theFailureIsToldBeforeTheNextAttempt() {
        AtomicInteger begins = new AtomicInteger();
        Sinks.Empty<Void> first = Sinks.empty();
        Sinks.Empty<Void> close = Sinks.empty();
        Sinks.Empty<Void> end = Sinks.empty();
        database.on("begin", () -> begins.incrementAndGet() == 1 ? first.asMono() : Mono.empty())
                .on("close", close::asMono);
        scopes.transactions(TransactionOptions.defaults().withRetry(RetryPolicy.serialization(3)))
                .inTransaction(c -> end.asMono().thenReturn(1))
                .subscribe(subscriber);
        first.tryEmitError(new R2dbcRollbackException("again", "40001"));
        end.tryEmitEmpty(); // while the connection is being given back
        close.tryEmitEmpty();
        Settling.await("the second attempt", subscriber::isTerminated);
        assertThat(events)
                .containsExactly("Waiting", "OpenFailed", "Retrying", "Waiting", "Opened", "Exiting", "Released");
        log.clear();
    }
}
