package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** Connections that come when nobody waits for them any more, or that cannot be used. */
class LateConnectionTest {

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final TestSubscriber<Integer> subscriber = TestSubscriber.create();

    @Test
    @Tag("lifecycle-57")
    void isGivenBackWhenTheTimeoutExpiresWhileItArrives() {
        VirtualTimeScheduler time = witness.virtualTime();
        AtomicBoolean first = new AtomicBoolean(true);
        database.onScheduler(() -> {
            if (first.getAndSet(false)) {
                time.advanceTimeBy(Duration.ofSeconds(31));
            }
            return Schedulers.immediate();
        });
        Step<Connection> create = new Step<>();
        database.on("create", create);
        scopes.inTransactionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);

        create.complete(database.newConnection());
        time.advanceTimeBy(Duration.ofMinutes(10));

        assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeAcquisitionException.class);
        assertThat(database.log()).containsExactly("create", "close#1");
    }

    @Test
    void hasOnlyTheRestOfTheAcquireTimeoutToBegin() {
        VirtualTimeScheduler time = witness.virtualTime();
        database.on("create", ProbeFault.delay(Duration.ofSeconds(20)))
                .on("begin", ProbeFault.delay(Duration.ofSeconds(20)));
        scopes.inTransactionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);

        time.advanceTimeBy(Duration.ofSeconds(29));
        assertThat(subscriber.isTerminated()).isFalse();
        time.advanceTimeBy(Duration.ofSeconds(2));

        assertThat(subscriber.expectTerminalError())
                .isInstanceOf(ScopeAcquisitionException.class)
                .hasMessageContaining("while the transaction began");
    }

    @Nested
    class ThatCannotBeAskedForItsScheduler {

        private final IllegalStateException failure = new IllegalStateException("of unwrap");

        private Scheduler fail() {
            throw failure;
        }

        @Test
        void isGivenBackWhenItComesAtOnce() {
            database.onScheduler(this::fail);

            scopes.withConnectionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(database.log()).containsExactly("create", "close#1");
        }

        @Test
        void isGivenBackWhenItComesFromAnotherThread() {
            database.onScheduler(this::fail)
                    .on(
                            "create",
                            () -> Mono.fromSupplier(database::newConnection).subscribeOn(Schedulers.boundedElastic()));

            scopes.withConnectionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);
            subscriber.block(FormContract.PATIENCE);

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(database.log()).containsExactly("create", "close#1");
        }
    }

    @Nested
    class OfAnAbandonedScope {

        private final VirtualTimeScheduler time = witness.virtualTime();
        private final Step<Connection> create = new Step<>();
        private final TestSubscriber<Void> drain = TestSubscriber.create();

        private void abandonAndDrain() {
            database.on("create", create);
            scopes.withConnectionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);
            subscriber.cancel();
            scopes.drain(Duration.ofHours(1)).subscribe(drain);
            time.advanceTimeBy(Duration.ofMinutes(1));
            assertThat(drain.isTerminated()).isFalse();
        }

        @Test
        @Tag("lifecycle-30")
        void isAwaitedByDrainUntilItWasGivenBack() {
            Step<Void> close = new Step<>();
            database.on("close", close);
            abandonAndDrain();

            create.complete(database.newConnection());
            time.advanceTimeBy(Duration.ofSeconds(1));
            assertThat(database.log()).containsExactly("create", "close#1");
            assertThat(drain.isTerminated()).isFalse();

            close.complete();
            assertThat(drain.isTerminatedComplete()).isTrue();
        }

        @Test
        void isGivenUpWhenItsCloseIsNotAnswered() {
            database.on("close", Mono::never);
            abandonAndDrain();

            create.complete(database.newConnection());
            time.advanceTimeBy(Duration.ofSeconds(10));

            assertThat(drain.isTerminatedComplete()).isTrue();
            assertThat(log.lines()).anyMatch(line -> line.contains("could not be released and was destroyed"));
        }

        @Test
        void isGivenUpWhenItsCloseFails() {
            database.on("close", () -> Mono.error(new IllegalStateException("of close")));
            abandonAndDrain();

            create.complete(database.newConnection());
            time.advanceTimeBy(Duration.ofSeconds(1));

            assertThat(drain.isTerminatedComplete()).isTrue();
            assertThat(log.lines()).anyMatch(line -> line.contains("could not be released and was destroyed"));
        }
    }

    @Test
    @Tag("lifecycle-40")
    void thatComesTwiceIsNotClosedWhileItIsInUse() {
        database.on(
                "create",
                () -> Flux.defer(() -> {
                    Connection same = database.newConnection();
                    return Flux.just(same, same);
                }));

        scopes.withConnectionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);
        subscriber.block(FormContract.PATIENCE);

        assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
        assertThat(database.log()).containsExactly("create", "select 1#1", "close#1");
    }
}
