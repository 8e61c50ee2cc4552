package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;
import reactor.test.util.RaceTestUtils;

/** A time limit that is over while the scope ends by itself: one ending, and nothing is dropped. */
@Tag("race")
class TimeLimitRaceTest {

    enum Rival {
        COMPLETE,
        COMPLETE_WITH_VALUE,
        CANCEL
    }

    @ParameterizedTest
    @EnumSource
    void oneEndingWhenExpiryRaces(Rival rival) {
        int expired = 0;
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            List<ScopeEvent> events = new CopyOnWriteArrayList<>();
            ConnectionScopes scopes = ConnectionScopes.of(database)
                    .with(ScopeOptions.defaults()
                            .withMaxHold(Duration.ofHours(1))
                            .withListener(events::add));
            Sinks.Many<Integer> source = Sinks.many().unicast().onBackpressureBuffer();
            Probe<Integer> probe = Probe.unbounded();
            AtomicReference<Scope> current = new AtomicReference<>();
            scopes.inTransactionMany(c -> Flux.deferContextual(context -> {
                        current.set(ScopeRoot.innermost(context));
                        return source.asFlux();
                    }))
                    .subscribe(probe);
            Session session = current.get().session();
            ScopeTimeoutException late = ScopeTimeoutException.hold(
                    Duration.ofHours(1), session.report().snapshot(), session.label());

            RaceTestUtils.race(() -> session.expire(late), () -> {
                switch (rival) {
                    case COMPLETE -> source.tryEmitComplete();
                    case COMPLETE_WITH_VALUE -> {
                        source.tryEmitNext(1);
                        source.tryEmitComplete();
                    }
                    case CANCEL -> probe.cancel();
                }
            });

            assertSettled(scopes, database);
            if (rival != Rival.CANCEL) {
                probe.awaitEnd();
            }
            probe.assertSound();
            assertThat(probe.drops().errors()).isEmpty();
            assertThat(events).filteredOn(ScopeEvent.Released.class::isInstance).hasSize(1);
            boolean committed = database.log().contains("commit#1");
            if (rival != Rival.CANCEL) {
                assertThat(committed).isEqualTo(probe.isCompleted());
                if (committed && rival == Rival.COMPLETE_WITH_VALUE) {
                    assertThat(probe.values()).containsExactly(1);
                }
            }
            if (probe.error() != null) {
                assertThat(probe.error()).isSameAs(late);
                expired++;
            }
            assertThat(database.log())
                    .containsExactly("create", "begin#1", committed ? "commit#1" : "rollback#1", "close#1");
        }
        assertThat(expired).isBetween(1, RACES);
    }

    /** The next look is due while the one before it still arms the timer. */
    @Test
    void everyIdleScopeIsEndedHoweverShortTheBound() {
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database)
                    .with(ScopeOptions.defaults().withMaxIdle(Duration.ofNanos(1 + i * 7919L % 40_000)));
            Probe<Integer> probe = Probe.unbounded();
            scopes.withConnectionMany(c -> Flux.<Integer>never()).subscribe(probe);
            assertThat(probe.awaitEnd().error()).isInstanceOf(ScopeTimeoutException.class);
            probe.assertSound();
            assertThat(probe.drops().errors()).isEmpty();
            assertSettled(scopes, database);
        }
    }
}
