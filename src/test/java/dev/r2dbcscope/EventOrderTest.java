package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.util.RaceTestUtils;

/** What a listener can rely on, and what a scope need not fear from it. */
class EventOrderTest {

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @RegisterExtension
    final Witness witness = new Witness();

    private final List<Class<?>> events = new CopyOnWriteArrayList<>();

    private ConnectionScopes listened(ProbeConnectionFactory database, Duration leakThreshold) {
        return ConnectionScopes.of(database)
                .with(ScopeOptions.defaults()
                        .withLeakThreshold(leakThreshold)
                        .withListener(event -> events.add(event.getClass())));
    }

    @Test
    @Tag("race")
    void isOneOpenedAndOneReleasedOrOneOpenFailedWhenCancelRacesBegin() {
        for (int i = 0; i < RACES; i++) {
            events.clear();
            Step<Integer> begin = new Step<>();
            ProbeConnectionFactory database = ProbeConnectionFactory.of().on("begin", begin);
            ConnectionScopes scopes = listened(database, Duration.ZERO);
            Probe<Integer> probe = Probe.unbounded();
            scopes.inTransactionMany(c -> Flux.<Integer>never()).subscribe(probe);

            RaceTestUtils.race(probe::cancel, begin::complete);

            assertSettled(scopes, database);
            assertBalanced();
        }
    }

    @Test
    @Tag("race")
    void isOneOpenedAndOneReleasedOrOneOpenFailedWhenCancelRacesDelivery() {
        for (int i = 0; i < RACES; i++) {
            events.clear();
            Step<Connection> create = new Step<>();
            ProbeConnectionFactory database = ProbeConnectionFactory.of().on("create", create);
            ConnectionScopes scopes = listened(database, Duration.ZERO);
            Probe<Integer> probe = Probe.unbounded();
            scopes.withConnectionMany(c -> Flux.<Integer>never()).subscribe(probe);

            RaceTestUtils.race(probe::cancel, () -> create.complete(database.newConnection()));

            assertSettled(scopes, database);
            assertBalanced();
        }
    }

    /** The last event may still be on its way to the listener when the scope is no longer live. */
    private void assertBalanced() {
        Settling.await(
                "the last event: " + events,
                () -> events.contains(ScopeEvent.Released.class)
                        || (events.contains(ScopeEvent.OpenFailed.class) && !events.contains(ScopeEvent.Opened.class)));
        List<Class<?>> order = events.stream()
                .filter(event -> event != ScopeEvent.Exiting.class)
                .<Class<?>>map(event -> event)
                .toList();
        assertThat(order)
                .isIn(
                        List.of(ScopeEvent.Waiting.class, ScopeEvent.OpenFailed.class),
                        List.of(ScopeEvent.Waiting.class, ScopeEvent.Opened.class, ScopeEvent.Released.class));
    }

    @Test
    void isOpenFailedWhenTheTransactionHasNotBegunInTimeAndTheSubscriberHasLeft() {
        VirtualTimeScheduler time = witness.virtualTime();
        ProbeConnectionFactory database =
                witness.watch(ProbeConnectionFactory.of()).on("begin", Mono::never);
        Probe<Integer> probe = Probe.unbounded();

        listened(database, Duration.ZERO)
                .inTransactionMany(c -> Flux.<Integer>never())
                .subscribe(probe);
        probe.cancel();
        time.advanceTimeBy(Duration.ofSeconds(31));

        assertThat(events)
                .containsExactly(ScopeEvent.Waiting.class, ScopeEvent.OpenFailed.class, ScopeEvent.ReleaseFailed.class);
    }

    @Test
    @Tag("race")
    void hasNoSuspicionOfALeakAfterTheRelease() {
        for (int i = 0; i < RACES; i++) {
            events.clear();
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            listened(database, Duration.ofNanos(1))
                    .withConnection(c -> Mono.empty())
                    .block(FormContract.PATIENCE);

            assertThat(events)
                    .isIn(
                            List.of(
                                    ScopeEvent.Waiting.class,
                                    ScopeEvent.Opened.class,
                                    ScopeEvent.Exiting.class,
                                    ScopeEvent.Released.class),
                            List.of(
                                    ScopeEvent.Waiting.class,
                                    ScopeEvent.Opened.class,
                                    ScopeEvent.Exiting.class,
                                    ScopeEvent.LeakSuspected.class,
                                    ScopeEvent.LeakResolved.class,
                                    ScopeEvent.Released.class),
                            List.of(
                                    ScopeEvent.Waiting.class,
                                    ScopeEvent.Opened.class,
                                    ScopeEvent.LeakSuspected.class,
                                    ScopeEvent.Exiting.class,
                                    ScopeEvent.LeakResolved.class,
                                    ScopeEvent.Released.class),
                            List.of(
                                    ScopeEvent.Waiting.class,
                                    ScopeEvent.LeakSuspected.class,
                                    ScopeEvent.Opened.class,
                                    ScopeEvent.Exiting.class,
                                    ScopeEvent.LeakResolved.class,
                                    ScopeEvent.Released.class));
        }
    }

    @ParameterizedTest
    @ValueSource(
            classes = {
                ScopeEvent.Waiting.class,
                ScopeEvent.Opened.class,
                ScopeEvent.OpenFailed.class,
                ScopeEvent.StatementEnded.class,
                ScopeEvent.Exiting.class,
                ScopeEvent.Released.class,
                ScopeEvent.ReleaseFailed.class,
                ScopeEvent.LeakSuspected.class,
                ScopeEvent.LeakResolved.class
            })
    void isNoneOfTheScopesBusinessWhenAListenerThrows(Class<?> kind) {
        VirtualTimeScheduler time = witness.virtualTime();
        AtomicInteger thrown = new AtomicInteger();
        ScopeOptions options = ScopeOptions.defaults()
                .withLeakThreshold(Duration.ofSeconds(1))
                .withListener(event -> {
                    if (kind.isInstance(event)) {
                        thrown.incrementAndGet();
                        throw new AssertionError("of the listener");
                    }
                });
        IllegalStateException failure = new IllegalStateException("of the factory");
        Step<Integer> work = new Step<>();
        ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of())
                .on("close", () -> Mono.error(new IllegalStateException("of close")));
        ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database).with(options));
        ConnectionScopes failing =
                witness.watch(ConnectionScopes.of(ProbeConnectionFactory.of().on("create", () -> Mono.error(failure)))
                        .with(options));
        Probe<Integer> probe = Probe.unbounded();
        Probe<Integer> failed = Probe.unbounded();

        scopes.inTransactionMany(c -> Rows.ints(c, "select 1").concatWith(work.publisher()))
                .subscribe(probe);
        time.advanceTimeBy(Duration.ofSeconds(2));
        work.complete(2);
        failing.withConnection(c -> Mono.just(1)).subscribe(failed);

        assertThat(probe.isCompleted()).isTrue();
        assertThat(probe.values()).containsExactly(1, 2);
        assertThat(database.log()).containsExactly("create", "begin#1", "select 1#1", "commit#1", "close#1");
        assertThat(failed.error()).isSameAs(failure);
        assertThat(thrown).hasPositiveValue();
    }
}
