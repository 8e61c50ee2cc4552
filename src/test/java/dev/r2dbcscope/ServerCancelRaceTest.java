package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.util.RaceTestUtils;

/** A request to cancel, which takes its time, never overlaps with anything that it must not hit. */
@Tag("race")
class ServerCancelRaceTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final AtomicInteger requests = new AtomicInteger();
    private final AtomicInteger hit = new AtomicInteger();

    /** One connection whose "long" statement lasts until it ends by itself or a request ends it. */
    private final class Stage {

        final ProbeConnectionFactory database = ProbeConnectionFactory.of().knowingCancel();
        final ConnectionScopes scopes =
                ConnectionScopes.of(database).with(ScopeOptions.defaults().withCancelGrace(Duration.ZERO));
        final Sinks.Many<Integer> rows = Sinks.many().unicast().onBackpressureBuffer();
        final AtomicInteger underWay = new AtomicInteger();
        final AtomicReference<@Nullable Connection> connection = new AtomicReference<>();

        Stage() {
            database.on("long", rows::asFlux)
                    .on("next", () -> mustNotBeHit(Flux.just(2)))
                    .on("rollback", () -> mustNotBeHit(Flux.empty()))
                    .on("close", () -> mustNotBeHit(Flux.empty()))
                    .on("cancel", () -> Mono.fromRunnable(this::endByRequest).subscribeOn(Schedulers.parallel()));
        }

        private <T> Flux<T> mustNotBeHit(Flux<T> step) {
            if (underWay.get() > 0) {
                hit.incrementAndGet();
            }
            return step;
        }

        private void endByRequest() {
            requests.incrementAndGet();
            underWay.incrementAndGet();
            rows.tryEmitError(new R2dbcNonTransientResourceException("canceled", "57014"));
            long start = System.nanoTime();
            while (System.nanoTime() - start < 2_000) {
                // the answer takes its time; BlockHound does not let a thread of this kind give way
            }
            underWay.decrementAndGet();
        }

        Probe<Integer> open() {
            Probe<Integer> scope = Probe.unbounded();
            scopes.withConnectionMany(c -> {
                        connection.set(c);
                        return Flux.<Integer>never();
                    })
                    .subscribe(scope);
            return scope;
        }

        Probe<Integer> run(String sql) {
            Probe<Integer> probe = Probe.unbounded();
            Rows.ints(Objects.requireNonNull(connection.get()), sql).subscribe(probe);
            return probe;
        }

        void assertUnharmed(Probe<?> scope) {
            assertSettled(scopes, database);
            assertThat(hit).hasValue(0);
            assertThat(scope.drops().errors()).isEmpty();
        }
    }

    @Test
    void theEndOfTheStatementRacesTheRequest() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Probe<Integer> scope = Probe.unbounded();
            stage.scopes.inTransactionMany(c -> Rows.ints(c, "long")).subscribe(scope);

            RaceTestUtils.race(stage.rows::tryEmitComplete, scope::cancel);

            stage.assertUnharmed(scope);
        }
    }

    @Test
    void theAnswerToTheRequestRacesTheEndOfTheStatement() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Sinks.Empty<Void> answer = Sinks.empty();
            AtomicBoolean asked = new AtomicBoolean();
            stage.database.on("cancel", () -> answer.asMono().doOnSubscribe(s -> asked.set(true)));
            Probe<Integer> scope = Probe.unbounded();
            stage.scopes.withConnectionMany(c -> Rows.ints(c, "long")).subscribe(scope);
            scope.cancel();
            Settling.await("the request", asked::get);

            RaceTestUtils.race(answer::tryEmitEmpty, stage.rows::tryEmitComplete);

            stage.assertUnharmed(scope);
        }
    }

    @Test
    void theNextStatementRacesTheCancelOfTheOneBefore() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Probe<Integer> scope = stage.open();
            Probe<Integer> first = stage.run("long");
            AtomicReference<@Nullable Probe<Integer>> next = new AtomicReference<>();

            RaceTestUtils.race(first::cancel, () -> next.set(stage.run("next")));

            Probe<Integer> second = Objects.requireNonNull(next.get()).awaitEnd();
            assertThat(second.values()).containsExactly(2);
            assertThat(second.isCompleted()).isTrue();
            scope.cancel();
            stage.assertUnharmed(scope);
            assertThat(first.drops().errors()).isEmpty();
        }
        assertThat(requests).hasPositiveValue();
    }

    @Test
    void theCancelOfTheStatementRacesTheEndOfTheScope() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Probe<Integer> scope = stage.open();
            Probe<Integer> statement = stage.run("long");

            RaceTestUtils.race(statement::cancel, scope::cancel);

            stage.assertUnharmed(scope);
            assertThat(statement.drops().errors()).isEmpty();
        }
        assertThat(requests.get()).isGreaterThanOrEqualTo(RACES);
    }
}
