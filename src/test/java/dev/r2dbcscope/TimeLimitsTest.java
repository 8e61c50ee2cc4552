package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.ScopeTimeoutException.Limit;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.function.Consumer;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.publisher.TestPublisher;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** Scopes that hold their connection for too long, or for too long without using it, are ended. */
class TimeLimitsTest {

    private static final Duration BOUND = Duration.ofSeconds(8);

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes plain = witness.watch(ConnectionScopes.of(database));
    private final ConnectionScopes held =
            plain.with(ScopeOptions.defaults().withName("held").withMaxHold(BOUND));
    private final ConnectionScopes idle =
            plain.with(ScopeOptions.defaults().withName("idle").withMaxIdle(BOUND));
    private final TestSubscriber<Integer> subscriber = TestSubscriber.create();
    private VirtualTimeScheduler time;

    @BeforeEach
    void virtualTime() {
        time = witness.virtualTime();
    }

    private void pass(double bounds) {
        time.advanceTimeBy(Duration.ofNanos((long) (BOUND.toNanos() * bounds)));
    }

    private static Consumer<Throwable> timeout(Limit limit, ScopeState state) {
        return error -> assertThat(error).isInstanceOfSatisfying(ScopeTimeoutException.class, e -> {
            assertThat(e.limit()).isEqualTo(limit);
            assertThat(e.bound()).isEqualTo(BOUND);
            assertThat(e.state()).isEqualTo(state);
            assertThat(e.scopeName()).isEqualTo(limit == Limit.HOLD ? "held" : "idle");
            assertThat(e).hasMessageContaining(e.scopeOrigin());
            assertThat(e).hasMessageContaining(BOUND.toString()).hasMessageContaining("was " + state);
        });
    }

    @Nested
    class Hold {

        @ParameterizedTest
        @EnumSource
        void endsAScopeThatIsIdle(ScopeShape shape) {
            shape.around(held, c -> Mono.never()).subscribe(subscriber);

            pass(0.9);
            assertThat(subscriber.isTerminated()).isFalse();
            pass(0.2);

            assertThat(subscriber.expectTerminalError())
                    .satisfies(timeout(Limit.HOLD, ScopeState.IDLE))
                    .hasMessageContaining("the scope was IDLE and had started 0 statements");
            assertThat(database.log()).containsExactly(shape.rolledBack());
        }

        @Test
        void endsAScopeWhoseStatementRuns() {
            Step<Integer> statement = new Step<>();
            database.on("select slow", statement);
            held.inTransactionMany(c -> Rows.ints(c, "select slow")).subscribe(subscriber);

            pass(1.1);
            assertThat(subscriber.isTerminated()).isFalse();
            statement.complete(1);

            assertThat(subscriber.expectTerminalError())
                    .satisfies(timeout(Limit.HOLD, ScopeState.EXECUTING))
                    .hasMessageContaining("the scope was EXECUTING \"select slow\" and had started 1 statements");
            assertThat(subscriber.getReceivedOnNext()).isEmpty();
            assertThat(database.log()).containsExactly("create", "begin#1", "select slow#1", "rollback#1", "close#1");
        }

        @Test
        void doesNotCountTheWaitForTheConnection() {
            Step<Connection> create = new Step<>();
            database.on("create", create);
            held.withConnectionMany(c -> Mono.never().cast(Integer.class)).subscribe(subscriber);
            pass(1.5);
            create.complete(database.newConnection());
            time.advanceTime();
            pass(0.9);
            assertThat(subscriber.isTerminated()).isFalse();
            pass(0.2);
            assertThat(subscriber.expectTerminalError()).satisfies(timeout(Limit.HOLD, ScopeState.IDLE));
        }

        @Test
        void countsTheTimeThatTheDatabaseNeedsToBegin() {
            database.on("begin", ProbeFault.delay(BOUND.dividedBy(2)));
            held.inTransaction(c -> Mono.<Integer>never()).subscribe(subscriber);

            pass(0.9);
            assertThat(subscriber.isTerminated()).isFalse();
            pass(0.2);

            assertThat(subscriber.expectTerminalError()).satisfies(timeout(Limit.HOLD, ScopeState.IDLE));
        }

        @ParameterizedTest
        @EnumSource
        void doesNothingToAScopeThatEndedInTime(ScopeShape shape) {
            shape.around(held, c -> Mono.just(1)).subscribe(subscriber);
            pass(2);
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
        }

        @Test
        void doesNothingToAScopeThatIsExiting() {
            Step<Void> commit = new Step<>();
            database.on("commit", commit);
            ScopeOptions patient = ScopeOptions.defaults().withMaxHold(BOUND).withMaxIdle(BOUND);
            plain.with(patient.withReleaseTimeout(BOUND.multipliedBy(4)))
                    .inTransactionMany(c -> Mono.just(1))
                    .subscribe(subscriber);
            pass(3);
            commit.complete();
            assertThat(subscriber.isTerminatedComplete()).isTrue();
        }

        @Test
        void endsATransactionInsideAScopeAndNotTheScope() {
            plain.withConnectionMany(c -> held.inTransaction(t -> Mono.<Integer>never())
                            .onErrorResume(
                                    ScopeTimeoutException.class,
                                    e -> Rows.ints(c, "select 2").next()))
                    .subscribe(subscriber);
            pass(1.1);
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "select 2#1", "close#1");
        }

        @Test
        void givesAnErrorThatWaitsForTheElementThatIsBeingDelivered() {
            TestPublisher<Integer> source = TestPublisher.create();
            TestSubscriber<Integer> reentrant = TestSubscriber.create();
            held.withConnectionMany(c -> source.flux())
                    .doOnNext(value -> {
                        pass(1.1);
                        assertThat(reentrant.isTerminated()).isFalse();
                    })
                    .subscribe(reentrant);
            source.next(1);
            assertThat(reentrant.getReceivedOnNext()).containsExactly(1);
            assertThat(reentrant.expectTerminalError()).satisfies(timeout(Limit.HOLD, ScopeState.IDLE));
            assertThat(reentrant.getProtocolErrors()).isEmpty();
            source.assertCancelled();
        }
    }

    @Nested
    class Idle {

        @ParameterizedTest
        @EnumSource
        void endsAScopeThatUsesNothing(ScopeShape shape) {
            shape.around(idle, c -> Mono.never()).subscribe(subscriber);
            pass(0.9);
            assertThat(subscriber.isTerminated()).isFalse();
            pass(0.3);
            assertThat(subscriber.expectTerminalError())
                    .satisfies(timeout(Limit.IDLE, ScopeState.IDLE))
                    .hasMessageContaining("no statement was in flight");
            assertThat(database.log()).containsExactly(shape.rolledBack());
        }

        @Test
        void countsFromTheLastStatement() {
            idle.withConnectionMany(c -> Flux.range(1, 3)
                            .concatMap(i -> Mono.delay(BOUND.multipliedBy(i).dividedBy(2))
                                    .thenMany(Rows.ints(c, "select " + i))))
                    .subscribe(subscriber);
            pass(1.6);
            assertThat(subscriber.getReceivedOnNext()).containsExactly(1, 1);
            pass(1.2);
            assertThat(subscriber.expectTerminalError()).satisfies(timeout(Limit.IDLE, ScopeState.IDLE));
            assertThat(database.log()).containsExactly("create", "select 1#1", "select 2#1", "close#1");
        }

        @Test
        void doesNotEndAScopeWhoseStatementRuns() {
            Step<Integer> statement = new Step<>();
            database.on("select slow", statement);
            idle.withConnectionMany(c -> Rows.ints(c, "select slow")).subscribe(subscriber);
            pass(5);
            statement.complete(7);
            assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
        }

        @Test
        void endsAScopeWhoseSubscriberDoesNotAskForTheRows() {
            database.on("select many", () -> Flux.range(1, 100));
            TestSubscriber<Integer> slow =
                    TestSubscriber.builder().initialRequest(3).build();
            idle.inTransactionMany(c -> Flux.from(
                                    c.createStatement("select many").execute())
                            .concatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class)), 1))
                    .subscribe(slow);
            for (int i = 0; i < 5; i++) {
                pass(0.8);
                slow.request(1);
            }
            assertThat(slow.getReceivedOnNext()).hasSize(8);
            pass(1.3);
            assertThat(slow.expectTerminalError())
                    .satisfies(timeout(Limit.IDLE, ScopeState.BLOCKED_BY_DEMAND))
                    .hasMessageContaining("nobody asked for the rows of \"select many\"");
            assertThat(database.log()).containsExactly("create", "begin#1", "select many#1", "rollback#1", "close#1");
        }

        @Test
        void looksThroughATransactionInside() {
            Step<Integer> statement = new Step<>();
            database.on("select slow", statement);
            idle.withConnectionMany(c -> plain.inTransactionMany(
                            t -> Rows.ints(t, "select slow").concatWith(Mono.never())))
                    .subscribe(subscriber);
            pass(3);
            assertThat(subscriber.isTerminated()).isFalse();
            statement.complete(7);
            pass(1.3);
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOfSatisfying(
                            ScopeTimeoutException.class,
                            e -> assertThat(e.limit()).isEqualTo(Limit.IDLE));
            assertThat(database.log()).containsExactly("create", "begin#1", "select slow#1", "rollback#1", "close#1");
        }

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void doesNothingToAScopeThatHasEnded(boolean cancelled) {
            Step<Integer> work = new Step<>();
            idle.withConnectionMany(c -> work.publisher()).subscribe(subscriber);
            pass(0.5);
            if (cancelled) {
                subscriber.cancel();
            } else {
                work.complete(1);
            }
            pass(3);
            assertThat(subscriber.isTerminated()).isEqualTo(!cancelled);
        }
    }
}
