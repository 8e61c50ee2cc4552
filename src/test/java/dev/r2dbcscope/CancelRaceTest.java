package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.assertSettled;
import static dev.r2dbcscope.Settling.races;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.test.publisher.TestPublisher;
import reactor.test.util.RaceTestUtils;

/** The subscriber's cancel against everything else that can happen to a scope at that moment. */
@Tag("race")
class CancelRaceTest {

    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-19")
    void startsTheBodyAndCancelsItOrReleasesTheConnectionUntouched(ScopeShape shape) {
        for (int i = 0; i < races(3); i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            TestPublisher<Connection> acquisition = TestPublisher.create();
            database.on("create", acquisition::mono);
            AtomicInteger started = new AtomicInteger();
            AtomicInteger cancelled = new AtomicInteger();
            Probe<Integer> probe = Probe.unbounded();
            shape.around(
                            scopes,
                            connection -> Flux.<Integer>never()
                                    .doOnSubscribe(s -> started.incrementAndGet())
                                    .doOnCancel(cancelled::incrementAndGet))
                    .subscribe(probe);
            Connection connection = database.newConnection();

            RaceTestUtils.race(() -> acquisition.next(connection), probe::cancel);

            assertSettled(scopes, database);
            Settling.await("the body was cancelled", () -> cancelled.get() == started.get());
            assertThat(started.get()).isLessThan(2);
            assertThat(probe.isTerminated()).isFalse();
            assertThat(probe.drops().errors()).isEmpty();
        }
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-15")
    void staysNowhereWhenCancelledWhileItAsksForItsConnection(ScopeShape shape) {
        for (int i = 0; i < races(8); i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Probe<Integer> probe = Probe.unbounded();
            Flux<Integer> scope = shape.around(scopes, connection -> Flux.never());

            RaceTestUtils.race(() -> scope.subscribe(probe), probe::cancel);

            assertSettled(scopes, database);
            assertThat(probe.isTerminated()).isFalse();
            assertThat(probe.drops().errors()).isEmpty();
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"IN_TRANSACTION", "IN_TRANSACTION_MANY", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-54")
    void neverSplitsBegin(ScopeShape shape) {
        for (int i = 0; i < races(3); i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            TestPublisher<Void> begin = TestPublisher.create();
            database.on("begin", begin::mono);
            Probe<Integer> probe = Probe.unbounded();
            shape.around(scopes, connection -> Flux.never()).subscribe(probe);

            RaceTestUtils.race(begin::complete, probe::cancel);

            assertSettled(scopes, database);
            assertThat(database.log()).containsExactly(shape.rolledBack());
            assertThat(probe.drops().errors()).isEmpty();
            begin.assertNotCancelled();
        }
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-25")
    void endsOnceWhenCancelRacesComplete(ScopeShape shape) {
        for (int i = 0; i < races(8); i++) {
            raceTheEnd(shape, null);
        }
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-25")
    void endsOnceWhenCancelRacesError(ScopeShape shape) {
        RuntimeException failure = new IllegalStateException("body");
        for (int i = 0; i < races(8); i++) {
            raceTheEnd(shape, failure);
        }
    }

    private static void raceTheEnd(ScopeShape shape, @org.jspecify.annotations.Nullable RuntimeException failure) {
        ProbeConnectionFactory database = ProbeConnectionFactory.of();
        ConnectionScopes scopes = ConnectionScopes.of(database);
        TestPublisher<Integer> body = TestPublisher.create();
        Probe<Integer> probe = Probe.unbounded();
        shape.around(scopes, connection -> shape.single ? body.mono() : body.flux())
                .subscribe(probe);

        RaceTestUtils.race(
                () -> {
                    if (failure == null) {
                        body.next(1).complete();
                    } else {
                        body.error(failure);
                    }
                },
                probe::cancel);

        assertSettled(scopes, database);
        probe.assertSound();
        assertThat(database.log().stream().filter(step -> step.matches("(commit|rollback)#1")))
                .hasSize(shape.transactional ? 1 : 0);
        if (shape.transactional && probe.isCompleted()) {
            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        }
        if (probe.error() != null) {
            assertThat(probe.error()).isSameAs(failure);
        }
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-27")
    void rollsBackOnceWhenCancelledByTwoThreadsAndOnceMore(ScopeShape shape) {
        for (int i = 0; i < races(8); i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            AtomicInteger cancelled = new AtomicInteger();
            Probe<Integer> probe = Probe.unbounded();
            shape.around(scopes, connection -> Flux.<Integer>never().doOnCancel(cancelled::incrementAndGet))
                    .subscribe(probe);

            RaceTestUtils.race(probe::cancel, probe::cancel);
            probe.cancel();

            assertSettled(scopes, database);
            assertThat(database.log()).containsExactly(shape.rolledBack());
            assertThat(cancelled).hasValue(1);
            assertThat(probe.isTerminated()).isFalse();
        }
    }
}
