package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Mono;
import reactor.core.publisher.MonoSink;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** A connection that arrives from another thread at the very moment at which the acquisition is started. */
@Tag("race")
class OpeningTimerRaceTest {

    private static final int ITERATIONS = Settling.RACES;

    @Test
    @Tag("lifecycle-54")
    @Tag("lifecycle-57")
    void aBeginThatIsNotAnsweredIsBoundedWhicheverTimerIsArmedLast() {
        // of its own, because the virtual time stands in for Reactor's schedulers
        Scheduler threads = Schedulers.fromExecutorService(Executors.newFixedThreadPool(2));
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        try {
            for (int i = 0; i < ITERATIONS; i++) {
                race(time, threads);
            }
        } finally {
            VirtualTimeScheduler.reset();
            threads.dispose();
        }
    }

    private static void race(VirtualTimeScheduler time, Scheduler threads) {
        ProbeConnectionFactory database = ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate());
        AtomicReference<MonoSink<Connection>> waiting = new AtomicReference<>();
        CountDownLatch asked = new CountDownLatch(1);
        database.on(
                        "create",
                        () -> Mono.<Connection>create(sink -> {
                            waiting.set(sink);
                            asked.countDown();
                        }))
                .on("begin", Mono::never);
        ConnectionScopes scopes = ConnectionScopes.of(database);
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        Runnable subscribe = () -> scopes.inTransaction(c -> Mono.just(1)).subscribe(subscriber);
        Runnable deliver = () -> {
            while (asked.getCount() > 0) {
                Thread.onSpinWait();
            }
            waiting.get().success(database.newConnection());
        };

        RaceTestUtils.race(threads, subscribe, deliver);
        time.advanceTimeBy(Duration.ofSeconds(31));

        assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeAcquisitionException.class);
        assertThat(scopes.live()).isEmpty();
        assertThat(database.live()).isZero();
        assertThat(database.violations()).isEmpty();
    }
}
