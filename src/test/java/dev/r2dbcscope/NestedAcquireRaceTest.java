package dev.r2dbcscope;

import static dev.r2dbcscope.ScriptedPool.giveBack;
import static dev.r2dbcscope.ScriptedPool.separate;
import static dev.r2dbcscope.ScriptedPool.transaction;
import static dev.r2dbcscope.Settling.RACES;
import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.util.RaceTestUtils;

/** Circles that close, and others that do not, while several threads change who holds what. */
@Tag("lifecycle-45")
@Tag("race")
class NestedAcquireRaceTest {

    private final ScriptedPool one = new ScriptedPool(1);
    private final ScriptedPool two = new ScriptedPool(2);
    private final ScriptedPool other = new ScriptedPool(1);

    {
        Stream.of(one, two, other).forEach(pool -> pool.database.forgetful());
    }

    @AfterEach
    void nothingIsHeldAndNobodyIsRemembered() {
        for (ScriptedPool pool : List.of(one, two, other)) {
            pool.close();
            assertThat(pool.database.violations()).isEmpty();
            assertThat(pool.database.live()).isZero();
        }
        assertThat(WaitGraph.INSTANCE.isEmpty()).isTrue();
    }

    /** A scope that holds a connection, and asks for a second one at the signal. */
    private static Probe<Integer> holder(ConnectionScopes outer, ConnectionScopes inner, Sinks.Empty<Integer> signal) {
        Probe<Integer> probe = Probe.unbounded();
        transaction(outer, "outer", signal.asMono().then(separate(inner, "inner", Mono.just(1))))
                .subscribe(probe);
        return probe;
    }

    private static boolean failed(Probe<Integer> probe) {
        probe.awaitEnd().assertSound();
        if (probe.error() != null) {
            assertThat(probe.error()).isInstanceOf(NestedAcquireDeadlockException.class);
            return true;
        }
        assertThat(probe.values()).containsExactly(1);
        return false;
    }

    private static void assertQuiet(ScriptedPool pool, ConnectionScopes scopes) {
        Settling.await("no scope is live", () -> scopes.live().isEmpty());
        Settling.await("no connection is acquired", () -> pool.acquired() == 0);
    }

    @Test
    void ofTwoThatStartToWaitAtOnceExactlyOneFails() {
        ConnectionScopes scopes = ConnectionScopes.of(two.pool);
        for (int i = 0; i < RACES; i++) {
            Sinks.Empty<Integer> left = Sinks.empty();
            Sinks.Empty<Integer> right = Sinks.empty();
            Probe<Integer> first = holder(scopes, scopes, left);
            Probe<Integer> second = holder(scopes, scopes, right);

            RaceTestUtils.race(left::tryEmitEmpty, right::tryEmitEmpty);

            assertThat(failed(first)).isNotEqualTo(failed(second));
            assertQuiet(two, scopes);
        }
    }

    @Test
    void ofTwoThatWaitForEachOthersPoolExactlyOneFails() {
        ConnectionScopes a = ConnectionScopes.of(one.pool);
        ConnectionScopes b = ConnectionScopes.of(other.pool);
        for (int i = 0; i < RACES; i++) {
            Sinks.Empty<Integer> left = Sinks.empty();
            Sinks.Empty<Integer> right = Sinks.empty();
            Probe<Integer> first = holder(a, b, left);
            Probe<Integer> second = holder(b, a, right);

            RaceTestUtils.race(left::tryEmitEmpty, right::tryEmitEmpty);

            assertThat(failed(first)).isNotEqualTo(failed(second));
            assertQuiet(one, a);
            assertQuiet(other, b);
        }
    }

    @Test
    void aWaitThatBeginsWhileAHolderLeavesNeverFails() {
        ConnectionScopes scopes = ConnectionScopes.of(two.pool);
        for (int i = 0; i < RACES; i++) {
            Sinks.Empty<Integer> ask = Sinks.empty();
            Sinks.One<Integer> leave = Sinks.one();
            Probe<Integer> asking = holder(scopes, scopes, ask);
            Probe<Integer> leaving = Probe.unbounded();
            transaction(scopes, "leaving", leave.asMono()).subscribe(leaving);

            RaceTestUtils.race(ask::tryEmitEmpty, () -> leave.tryEmitValue(1));

            assertThat(failed(asking)).isFalse();
            assertThat(failed(leaving)).isFalse();
            assertQuiet(two, scopes);
        }
    }

    /** One that waits is cancelled and its holder leaves, a scope below which others wait gets the connection, and more wait. */
    @Test
    void nobodyFailsWhileTheOtherConnectionIsHeldByOneThatDoesNotWait() {
        ConnectionScopes scopes = ConnectionScopes.of(two.pool);
        for (int i = 0; i < RACES; i++) {
            Sinks.One<Integer> end = Sinks.one();
            Sinks.Empty<Integer> ask = Sinks.empty();
            Probe<Integer> busy = Probe.unbounded();
            transaction(scopes, "busy", end.asMono()).subscribe(busy);
            Sinks.Empty<Integer> asked = Sinks.empty();
            asked.tryEmitEmpty();
            Probe<Integer> cancelled = holder(scopes, scopes, asked);
            Mono<Integer> inner = separate(scopes, "inner", Mono.<Integer>empty());
            Mono<Integer> use = Mono.from(scopes.connectionFactory().create()).thenReturn(1);
            Probe<Integer> successor = Probe.unbounded();
            scopes.transactional(Flux.merge(use, inner, ask.asMono().then(inner)))
                    .subscribe(successor);

            RaceTestUtils.race(cancelled::cancel, ask::tryEmitEmpty);
            end.tryEmitValue(1);

            assertThat(failed(busy)).isFalse();
            assertThat(failed(successor)).isFalse();
            assertQuiet(two, scopes);
        }
    }

    @Test
    void theLastConnectionAndTheWaitBelowItMeetWithOneFailure() {
        ConnectionScopes scopes = ConnectionScopes.of(one.pool);
        for (int i = 0; i < RACES; i++) {
            Connection raw = one.borrow();
            Sinks.Empty<Integer> ask = Sinks.empty();
            Mono<Integer> use = Mono.from(scopes.connectionFactory().create()).thenReturn(1);
            Mono<Integer> inner = separate(scopes, "inner", Mono.just(2))
                    .onErrorResume(NestedAcquireDeadlockException.class, e -> Mono.just(3));
            Probe<Integer> probe = Probe.unbounded();
            scopes.transactional(Flux.merge(use, ask.asMono().then(inner))).subscribe(probe);

            RaceTestUtils.race(ask::tryEmitEmpty, () -> giveBack(raw));

            probe.awaitEnd().assertSound();
            assertThat(probe.error()).isNull();
            assertThat(probe.values()).containsExactlyInAnyOrder(1, 3);
            assertQuiet(one, scopes);
        }
    }

    @Test
    void aCancelThatRacesTheAlarmLeavesNothingBehind() {
        ConnectionScopes scopes = ConnectionScopes.of(two.pool);
        for (int i = 0; i < RACES; i++) {
            Sinks.Empty<Integer> left = Sinks.empty();
            Sinks.Empty<Integer> right = Sinks.empty();
            Probe<Integer> first = holder(scopes, scopes, left);
            Probe<Integer> second = holder(scopes, scopes, right);
            left.tryEmitEmpty();

            RaceTestUtils.race(right::tryEmitEmpty, first::cancel);

            failed(second);
            first.assertSound();
            assertQuiet(two, scopes);
        }
    }
}
