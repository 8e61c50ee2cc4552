package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;

/** Each step of the exit: when it is taken, and what is said when it does not end. */
class ExitStepsTest {

    private static final Duration BOUND = ScopeOptions.defaults().releaseTimeout();

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture logged = new LogCapture();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new ArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final IllegalStateException failure = new IllegalStateException("of the body");
    private final Probe<Integer> probe = Probe.unbounded();

    private <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }

    @Nested
    class IsNotAnswered {

        private VirtualTimeScheduler time;

        @BeforeEach
        void stopTheClock() {
            time = witness.virtualTime();
        }

        private void assertSaid(Mono<Integer> scope, String what) {
            scope.subscribe(probe);
            assertThat(probe.isTerminated()).isFalse();
            time.advanceTimeBy(BOUND);
            assertThat(probe.isTerminated()).isTrue();
            assertThat(events(ScopeEvent.ReleaseFailed.class).get(0).error())
                    .isInstanceOf(ScopeReleaseException.class)
                    .hasMessageContaining(what + "; the release timeout of " + BOUND + " expired")
                    .hasMessageContaining("scope ");
            List<ScopeEvent.Released> released = events(ScopeEvent.Released.class);
            assertThat(released.get(released.size() - 1).destroyed()).isTrue();
        }

        @Test
        void theEndOfAStatement() {
            database.on("endless", Flux::never);
            assertSaid(
                    scopes.withConnection(c -> {
                        Rows.ints(c, "endless").subscribe(Probe.unbounded());
                        return Mono.just(1);
                    }),
                    "A statement was still running at the end of the scope: endless");
        }

        @Test
        void rollback() {
            database.on("rollback", Mono::never);
            assertSaid(scopes.inTransaction(c -> Mono.error(failure)), "ROLLBACK was not answered");
        }

        @Test
        void rollbackToASavepoint() {
            database.on("rollback to savepoint", Mono::never);
            assertSaid(
                    scopes.inTransaction(
                            c -> scopes.transactions(Propagation.NESTED).inTransaction(s -> Mono.error(failure))),
                    "ROLLBACK TO SAVEPOINT was not answered");
        }

        @Test
        void theReleaseOfASavepoint() {
            database.on("release savepoint", Mono::never);
            assertSaid(
                    scopes.inTransaction(
                            c -> scopes.transactions(Propagation.NESTED).inTransaction(s -> Mono.just(1))),
                    "RELEASE SAVEPOINT was not answered");
        }

        @Test
        void theReturnToAutoCommit() {
            new NotingDriver(database);
            assertSaid(
                    scopes.withConnection(c -> Mono.from(c.setAutoCommit(false))
                            .then(Mono.fromRunnable(() -> database.on("setAutoCommit", Mono::never)))),
                    "Auto-commit could not be restored");
        }

        @Test
        void whatWasAskedForAtTheEnd() {
            assertSaid(
                    scopes.withConnection(c -> DriverTurn.take(c, "work", turn -> {
                        turn.atEnd("Tidying up", connection -> Mono.never());
                        return Mono.just(1);
                    })),
                    "Tidying up was not answered");
        }

        @Test
        void theReturnOfItsSettings() {
            new NotingDriver(database);
            assertSaid(
                    scopes.withConnection(c -> Mono.from(c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE))
                            .then(Mono.fromRunnable(() -> database.on("isolation", Mono::never)))),
                    "The connection's settings could not be restored");
        }

        @Test
        void whetherItIsAlive() {
            database.on("validate", Mono::never);
            assertSaid(scopes.withConnection(c -> Mono.error(failure)), "The connection could not be validated");
        }

        @Test
        void theReturnOfTheConnection() {
            database.on("close", Mono::never);
            assertSaid(scopes.withConnection(c -> Mono.just(1)), "The connection was not taken back");
        }

        @Test
        void commitAndAConnectionThatDoesNotSayWhetherItIsAlive() {
            database.on("commit", () -> Mono.error(failure)).on("validate", Mono::never);
            scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
            time.advanceTimeBy(BOUND);
            assertThat(probe.error())
                    .isInstanceOf(CommitOutcomeUnknownException.class)
                    .hasCause(failure);
        }
    }

    @Nested
    class OfADeadConnection {

        @Test
        void aRefusalOfTheCommitIsKnown() {
            R2dbcNonTransientResourceException refusal = new R2dbcNonTransientResourceException("duplicate", "23505");
            assertThat(commitFails(refusal)).isSameAs(refusal);
        }

        @Test
        void aCommitThatWasAnsweredWithRollbackIsKnown() {
            R2dbcRollbackException answered = new R2dbcRollbackException("answered with ROLLBACK");
            assertThat(commitFails(answered)).isSameAs(answered);
        }

        private @Nullable Throwable commitFails(Throwable error) {
            database.on("commit", () -> Mono.error(error)).on("validate", () -> Mono.error(failure));
            scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
            return probe.awaitEnd().error();
        }
    }

    @Test
    void theConnectionIsAskedWhetherItIsAliveOnlyAfterAFailure() {
        database.on("validate", Mono::empty);
        scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
        assertThat(database.log()).doesNotContain("validate#1");
        scopes.inTransaction(c -> Mono.error(failure)).subscribe(Probe.unbounded());
        assertThat(database.log()).contains("validate#2");
        database.on("commit", () -> Mono.error(new R2dbcNonTransientResourceException("refused", "23505")));
        scopes.inTransaction(c -> Mono.just(1)).subscribe(Probe.unbounded());
        assertThat(database.log()).contains("validate#3");
        scopes.inTransaction(c -> Mono.never()).subscribe().dispose();
        assertThat(database.log()).contains("validate#4");
    }

    @Test
    void aStepThatFailsAndAReturnThatFailsAreBothTold() {
        IllegalArgumentException rollback = new IllegalArgumentException("of ROLLBACK");
        IllegalArgumentException close = new IllegalArgumentException("of close");
        database.on("rollback", () -> Mono.error(rollback)).on("close", () -> Mono.error(close));
        scopes.inTransaction(c -> Mono.error(failure)).subscribe(Probe.unbounded());
        assertThat(events(ScopeEvent.ReleaseFailed.class))
                .singleElement()
                .satisfies(failed -> assertThat(failed.error()).isSameAs(rollback));
        assertThat(rollback.getSuppressed()).containsExactly(close);
        assertThat(failure.getSuppressed()).containsExactly(rollback);
    }

    @Test
    void aResultCannotBeReadAnyMoreAfterAStepThatFailed() {
        Step<Void> close = new Step<>();
        database.on("close", close).on("rollback", () -> Mono.error(new IllegalStateException("of ROLLBACK")));
        Probe<Result> results = Probe.unbounded();
        scopes.<Integer>inTransaction(c -> {
                    Flux.<Result>from(c.createStatement("select 1").execute()).subscribe(results);
                    return Mono.error(failure);
                })
                .subscribe(probe);
        assertThat(close.isReached()).isTrue();
        Probe<Integer> late = Probe.unbounded();
        Flux.from(results.values().get(0).map(row -> 1)).subscribe(late);
        assertThat(late.error()).isInstanceOf(ScopeClosedException.class);
        close.complete();
        probe.awaitEnd();
    }

    @Test
    void whatTheStepsEmitIsDiscarded() {
        database.on("close", () -> Mono.just("closed"));
        scopes.withConnectionMany(c -> Flux.<Integer>empty()).subscribe(probe);
        assertThat(probe.drops().values()).containsExactly("closed");
    }

    @Test
    void theLastOfTheEndStepsRunsFirst() {
        List<String> order = new ArrayList<>();
        Function<String, Publisher<?>> step = name -> Mono.fromRunnable(() -> order.add(name));
        scopes.withConnection(c -> DriverTurn.take(c, "work", turn -> {
                    turn.atEnd("first", connection -> step.apply("first"));
                    turn.atEnd("second", connection -> step.apply("second"));
                    return Mono.just(1);
                }))
                .subscribe(probe);
        assertThat(order).containsExactly("second", "first");
    }
}
