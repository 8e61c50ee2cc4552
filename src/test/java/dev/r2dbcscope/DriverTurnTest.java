package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.StepVerifier;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.util.RaceTestUtils;

/** Work with the driver's own connection takes its turn, is never cancelled, and is told when nobody waits for it. */
class DriverTurnTest {

    private static final Duration LONG = Duration.ofMinutes(1);

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));

    @Test
    void nothingElseIsInFlightDuringIt() {
        Step<Integer> copy = new Step<>();
        Probe<Object> all = Probe.unbounded();
        scopes.withConnectionMany(c -> Flux.merge(
                        Rows.ints(c, "before"),
                        DriverTurn.<Integer>take(c, "COPY t", turn -> copy.publisher()),
                        Rows.ints(c, "after")))
                .subscribe(all);
        assertThat(database.log()).containsExactly("create", "before#1");
        copy.complete(7);
        all.awaitEnd();
        assertThat(all.values()).containsExactly(1, 7, 1);
        assertThat(database.log()).containsExactly("create", "before#1", "after#1", "close#1");
    }

    @Test
    void itGetsTheDriversConnectionAndSeesWhetherItIsInATransaction() {
        List<Object> seen = new CopyOnWriteArrayList<>();
        AtomicReference<Connection> first = new AtomicReference<>(database.newConnection());
        Connection own = first.get();
        database.on(
                "create",
                () -> Mono.fromSupplier(() -> {
                    Connection connection = first.getAndSet(null);
                    return connection == null ? database.newConnection() : connection;
                }));
        scopes.withConnection(c -> DriverTurn.take(c, "look", turn -> {
                            seen.add(turn.connection());
                            seen.add(turn.isInTransaction());
                            return Mono.just(1);
                        })
                        .then(Mono.from(c.beginTransaction()))
                        .then(DriverTurn.take(c, "look", turn -> Mono.just(turn.isInTransaction())))
                        .doOnNext(seen::add)
                        .then(Mono.from(c.commitTransaction())))
                .block(LONG);
        scopes.inTransaction(c -> DriverTurn.take(c, "look", turn -> Mono.just(turn.isInTransaction())))
                .doOnNext(seen::add)
                .block(LONG);
        assertThat(seen).containsExactly(own, false, true, true);
    }

    @Test
    void itIsNotCancelledButToldAndTheScopeWaitsForItsEnd() {
        Sinks.One<Integer> driver = Sinks.one();
        AtomicBoolean cancelled = new AtomicBoolean();
        AtomicBoolean told = new AtomicBoolean();
        Probe<Integer> scope = Probe.unbounded();
        scopes.inTransaction(c -> DriverTurn.take(c, "COPY t", turn -> {
                    turn.left().subscribe(null, null, () -> told.set(true));
                    return driver.asMono().doOnCancel(() -> cancelled.set(true));
                }))
                .subscribe(scope);
        scope.cancel();
        assertThat(told).isTrue();
        assertThat(database.log()).containsExactly("create", "begin#1");
        driver.tryEmitValue(1).orThrow();
        assertThat(cancelled).isFalse();
        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
    }

    @Test
    void oneThatIsCancelledBeforeItsTurnDoesNotBegin() {
        Step<Integer> first = new Step<>();
        database.on("first", first);
        AtomicBoolean begun = new AtomicBoolean();
        Probe<Integer> scope = Probe.unbounded();
        scopes.withConnectionMany(c -> {
                    Probe<Integer> waits = Probe.unbounded();
                    Flux<Integer> rows = Rows.ints(c, "first");
                    return rows.mergeWith(Mono.fromRunnable(() -> {
                        DriverTurn.<Integer>take(c, "COPY t", turn -> {
                                    begun.set(true);
                                    return Mono.just(2);
                                })
                                .subscribe(waits);
                        waits.cancel();
                    }));
                })
                .subscribe(scope);
        first.complete(1);
        scope.awaitEnd();
        assertThat(begun).isFalse();
        assertThat(scope.values()).containsExactly(1);
    }

    @Test
    void afterItWasCondemnedNothingMoreIsSentAndTheConnectionIsDestroyed() {
        StepVerifier.create(scopes.inTransaction(c -> DriverTurn.take(c, "COPY t", turn -> {
                            turn.condemn();
                            return Mono.error(new IllegalStateException("broken"));
                        })
                        .onErrorComplete()
                        .then(Rows.ints(c, "next").next())))
                .expectError(ScopeClosedException.class)
                .verify(LONG);
        assertThat(database.log()).containsExactly("create", "begin#1", "close#1");
    }

    @Test
    void afterItWasCondemnedNoTransactionBeginsOnTheConnection() {
        StepVerifier.create(scopes.withConnection(c -> DriverTurn.take(c, "COPY t", turn -> {
                            turn.condemn();
                            return Mono.error(new IllegalStateException("broken"));
                        })
                        .onErrorComplete()
                        .then(scopes.inTransaction(t -> Rows.ints(t, "next").next()))))
                .expectError(ScopeClosedException.class)
                .verify(LONG);
        assertThat(database.log()).containsExactly("create", "close#1");
    }

    @Test
    void stepsAtTheEndRunInTheOppositeOrderAfterTheTransaction() {
        List<String> steps = new CopyOnWriteArrayList<>();
        scopes.inTransaction(c -> DriverTurn.take(c, "lock", turn -> {
                    turn.atEnd("first", idle -> Rows.ints(idle, "undo first").doOnNext(i -> steps.add("first")));
                    turn.atEnd("second", idle -> Rows.ints(idle, "undo second").doOnNext(i -> steps.add("second")));
                    return Mono.just(1);
                }))
                .block(LONG);
        assertThat(steps).containsExactly("second", "first");
        assertThat(database.log())
                .containsExactly("create", "begin#1", "commit#1", "undo second#1", "undo first#1", "close#1");
    }

    @Test
    void aStepAtTheEndThatFailsDestroysTheConnectionAndTheWorkIsStillDone() {
        List<ScopeEvent> events = new CopyOnWriteArrayList<>();
        assertThat(scopes.with(ScopeOptions.defaults().withListener(events::add))
                        .withConnection(c -> DriverTurn.take(c, "lock", turn -> {
                            turn.atEnd("unlocking", idle -> Mono.error(new IllegalStateException("cannot")));
                            return Mono.just(1);
                        }))
                        .block(LONG))
                .isEqualTo(1);
        assertThat(events)
                .filteredOn(ScopeEvent.Released.class::isInstance)
                .singleElement()
                .satisfies(event ->
                        assertThat(((ScopeEvent.Released) event).destroyed()).isTrue());
    }

    @Test
    void aStatementThatItsOwnWorkWaitsForFailsAtOnce() {
        StepVerifier.create(scopes.withConnection(c -> DriverTurn.<Integer>take(
                        c,
                        "COPY t",
                        turn -> Mono.deferContextual(
                                context -> Rows.ints(c, "source").next().contextWrite(outer -> turn.within(outer))))))
                .expectErrorSatisfies(error -> assertThat(error)
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessageContaining("\"source\" would wait for what its own connection is busy with"))
                .verify(LONG);
        assertThat(database.log()).containsExactly("create", "close#1");
    }

    @Test
    void aStatementDoesNotWaitForEverBehindOneThatDoesNotGoOn() {
        VirtualTimeScheduler time = witness.virtualTime();
        Sinks.One<Integer> driver = Sinks.one();
        AtomicLong rows = new AtomicLong();
        Probe<Integer> waits = Probe.unbounded();
        Probe<Integer> scope = Probe.unbounded();
        scopes.with(ScopeOptions.defaults().withAcquireTimeout(Duration.ofSeconds(10)))
                .withConnection(c -> DriverTurn.<Integer>take(c, "COPY t", turn -> {
                            turn.progress(rows::get);
                            return driver.asMono();
                        })
                        .doOnSubscribe(s -> {})
                        .mergeWith(Mono.fromRunnable(
                                () -> Rows.ints(c, "lost its context").subscribe(waits)))
                        .next())
                .subscribe(scope);
        time.advanceTimeBy(Duration.ofSeconds(9));
        rows.incrementAndGet();
        time.advanceTimeBy(Duration.ofSeconds(9));
        assertThat(waits.isTerminated()).isFalse();
        time.advanceTimeBy(Duration.ofSeconds(30));
        assertThat(waits.error()).isInstanceOf(ScopeAcquisitionException.class).hasMessageContaining("COPY t");
        driver.tryEmitValue(1).orThrow();
        assertThat(scope.values()).containsExactly(1);
    }

    @Test
    void aConnectionThatBelongsToNoScopeIsRefused() {
        Connection foreign = database.newConnection();
        assertThat(DriverTurn.isScoped(foreign)).isFalse();
        assertThatThrownBy(() -> DriverTurn.take(foreign, "COPY t", turn -> Mono.just(1)))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("withConnection");
        Mono.from(foreign.close()).block(LONG);
    }

    @Test
    void afterTheScopeItFails() {
        Connection escaped = scopes.withConnection(Mono::just).block(LONG);
        StepVerifier.create(DriverTurn.take(escaped, "COPY t", turn -> Mono.just(1)))
                .expectError(ScopeClosedException.class)
                .verify(LONG);
    }

    @Test
    @Tag("race")
    void aCancelThatMeetsTheEndOfTheWorkLosesNeither() {
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory raced = ProbeConnectionFactory.of();
            ConnectionScopes on = ConnectionScopes.of(raced);
            Sinks.One<Integer> driver = Sinks.one();
            Probe<Integer> scope = Probe.unbounded();
            on.inTransaction(c -> DriverTurn.take(
                            c,
                            "COPY t",
                            turn -> Mono.firstWithSignal(
                                    driver.asMono(), turn.left().thenReturn(2))))
                    .subscribe(scope);
            RaceTestUtils.race(() -> driver.tryEmitValue(1), scope::cancel);
            assertSettled(on, raced);
            scope.assertSound();
            assertThat(raced.log())
                    .isIn(
                            List.of("create", "begin#1", "commit#1", "close#1"),
                            List.of("create", "begin#1", "rollback#1", "close#1"));
        }
    }
}
