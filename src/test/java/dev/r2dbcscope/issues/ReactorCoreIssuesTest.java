package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Settling;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.util.RaceTestUtils;

/** Issues of reactor/reactor-core. */
class ReactorCoreIssuesTest {

    private static final int ROUNDS = Settling.RACES / 4;
    private static final Duration STEP = Duration.ofMillis(50);

    @AfterEach
    void realTime() {
        VirtualTimeScheduler.reset();
    }

    /**
     * A resource that took its time to come and to go was at times left open when the subscriber cancelled in between. Here
     * the connection is closed once at whichever millisecond of its life the cancel comes.
     */
    @Test
    @Tag("reactor-core#2836")
    void aSlowConnectionIsClosedWheneverTheSubscriberLeaves() {
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        for (int millis = 0; millis <= 4 * STEP.toMillis(); millis++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            database.on("create", () -> Mono.delay(STEP).map(tick -> database.newConnection()));
            database.on("close", () -> Mono.delay(STEP));
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Disposable subscription =
                    scopes.withConnection(connection -> Mono.delay(STEP)).subscribe();

            time.advanceTimeBy(Duration.ofMillis(millis));
            assertThat(database.live())
                    .as("after %s ms", millis)
                    .isEqualTo(millis >= STEP.toMillis() && millis < 2 * STEP.toMillis() ? 1 : 0);
            subscription.dispose();
            time.advanceTimeBy(STEP.multipliedBy(4));

            assertThat(database.log()).as("cancelled after %s ms", millis).containsExactly("create", "close#1");
            Settling.assertSettled(scopes, database);
        }
    }

    /** The same where the cancel and the arrival of the connection meet on two threads. */
    @Test
    @Tag("reactor-core#2836")
    void aConnectionIsClosedThatArrivesAsTheSubscriberLeaves() {
        int used = 0;
        for (int i = 0; i < ROUNDS; i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate());
            Sinks.One<Connection> arrival = Sinks.one();
            AtomicBoolean body = new AtomicBoolean();
            database.on("create", arrival::asMono);
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Disposable subscription = scopes.withConnection(connection -> {
                        body.set(true);
                        return Mono.never();
                    })
                    .subscribe();

            RaceTestUtils.race(() -> arrival.tryEmitValue(database.newConnection()), subscription::dispose);

            Settling.assertSettled(scopes, database);
            assertThat(database.log()).containsExactly("create", "close#1");
            used += body.get() ? 1 : 0;
        }
        assertThat(used).as("either came first at times").isBetween(1, ROUNDS - 1);
    }

    /**
     * A resource whose creation has begun, and cannot be undone by a cancel, comes when the pipeline is gone, and nobody
     * cleans it up; that is still so by design. Here the late connection is closed.
     */
    @Test
    @Tag("reactor-core#3695")
    void aConnectionThatCannotBeCalledOffAnyMoreIsClosedWhenItComes() {
        LateDatabase byHand = new LateDatabase();
        byHand.leftWhileItConnects(
                Mono.usingWhen(byHand.database.create(), connection -> Mono.never(), Connection::close));
        assertThat(byHand.database.live())
                .as("Reactor repaired usingWhen: this part of the guard may go")
                .isEqualTo(1);

        LateDatabase scoped = new LateDatabase();
        ConnectionScopes scopes = ConnectionScopes.of(scoped.database);
        scoped.leftWhileItConnects(scopes.withConnection(connection -> Mono.never()));
        Settling.assertSettled(scopes, scoped.database);
    }

    /** Connects on a thread of its own, which takes no notice of an interruption. */
    private static final class LateDatabase {

        final ProbeConnectionFactory database = ProbeConnectionFactory.of();
        private final AtomicBoolean begun = new AtomicBoolean();
        private final AtomicBoolean mayEnd = new AtomicBoolean();

        LateDatabase() {
            database.on("create", () -> Mono.fromCallable(this::connect).subscribeOn(Schedulers.boundedElastic()));
        }

        private Connection connect() {
            begun.set(true);
            while (!mayEnd.get()) {
                LockSupport.parkNanos(100_000);
            }
            return database.newConnection();
        }

        void leftWhileItConnects(Mono<?> pipeline) {
            Disposable subscription = pipeline.subscribe();
            Await.until(begun::get, () -> "does not connect");
            subscription.dispose();
            mayEnd.set(true);
            Await.until(() -> database.opened() > 0, () -> "has not connected");
        }
    }
}
