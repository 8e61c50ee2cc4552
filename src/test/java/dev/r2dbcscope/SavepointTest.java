package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.List;
import java.util.function.Supplier;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** What is sent for a NESTED scope, in which order, and what becomes of it when a step fails or hangs. */
class SavepointTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private static <T> Supplier<Flux<T>> failing(String message) {
        return () -> Flux.error(new IllegalStateException(message));
    }

    private static TestSubscriber<Integer> start(Flux<Integer> pipeline) {
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        pipeline.subscribe(subscriber);
        return subscriber;
    }

    @Nested
    class Sends {

        private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
        private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
        private final ConnectionScopes nested = scopes.transactions(Propagation.NESTED);

        private TestSubscriber<Integer> inside(Flux<Integer> inner) {
            return start(scopes.inTransactionMany(
                    c -> Rows.ints(c, "before").thenMany(inner).concatWith(Rows.ints(c, "after"))));
        }

        @Test
        void savepointAndReleaseOnSuccess() {
            inside(nested.inTransactionMany(c -> Rows.ints(c, "inner"))).block();

            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "before#1",
                            "savepoint#1",
                            "inner#1",
                            "release savepoint#1",
                            "after#1",
                            "commit#1",
                            "close#1");
        }

        @Test
        void rollbackToAndReleaseOnErrorAndOnCancelOfTheInnerPipelineAlone() {
            Flux<Integer> fails = nested.inTransactionMany(
                    c -> Rows.ints(c, "inner").concatWith(Mono.error(new IllegalStateException("the user's"))));
            Flux<Integer> isLeft =
                    nested.inTransactionMany(c -> Rows.ints(c, "inner").concatWith(Flux.never()));
            for (Flux<Integer> inner : List.of(fails.onErrorResume(e -> Mono.empty()), isLeft.take(1))) {
                int before = database.log().size();
                TestSubscriber<Integer> outer = inside(inner);

                outer.block();
                assertThat(outer.isTerminatedComplete()).isTrue();
                assertThat(database.log().subList(before, database.log().size()))
                        .extracting(step -> step.replaceAll("#.*", ""))
                        .containsExactly(
                                "create",
                                "begin",
                                "before",
                                "savepoint",
                                "inner",
                                "rollback to savepoint",
                                "release savepoint",
                                "after",
                                "commit",
                                "close");
            }
        }

        @Test
        void nothingForAnOperatorThatNeedsNoConnection() {
            inside(Flux.just(5).as(nested::transactional)).block();

            assertThat(database.log())
                    .containsExactly("create", "begin#1", "before#1", "after#1", "commit#1", "close#1");
        }

        @Test
        void siblingsOneAfterTheOther() {
            Step<Integer> first = new Step<>();
            database.on("first", () -> first.publisher());
            TestSubscriber<Integer> outer = start(scopes.inTransactionMany(c -> Flux.merge(
                    nested.inTransactionMany(a -> Rows.ints(a, "first")),
                    nested.inTransactionMany(b -> Rows.ints(b, "second")),
                    Rows.ints(c, "third"))));

            assertThat(database.log()).containsExactly("create", "begin#1", "savepoint#1", "first#1");
            first.complete(7);

            outer.block();
            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "savepoint#1",
                            "first#1",
                            "release savepoint#1",
                            "savepoint#1",
                            "second#1",
                            "release savepoint#1",
                            "third#1",
                            "commit#1",
                            "close#1");
        }

        @Test
        void rollbackOfTheTransactionWhenTheWholePipelineIsLeft() {
            TestSubscriber<Integer> outer =
                    inside(nested.inTransactionMany(c -> Rows.ints(c, "inner").concatWith(Flux.never())));
            outer.cancel();

            Await.until(
                    () -> database.log().contains("close#1"),
                    () -> database.log().toString());
            assertThat(database.log())
                    .containsSubsequence(
                            "inner#1", "rollback to savepoint#1", "release savepoint#1", "rollback#1", "close#1")
                    .doesNotContain("commit#1", "after#1");
        }

        @Test
        void nothingMoreAfterASavepointThatCouldNotBeSet() {
            database.on("savepoint", failing("no savepoint"));
            TestSubscriber<Integer> outer =
                    inside(nested.inTransactionMany(c -> Rows.ints(c, "inner")).onErrorReturn(0));

            outer.block();
            assertThat(database.log())
                    .containsExactly("create", "begin#1", "before#1", "savepoint#1", "after#1", "commit#1", "close#1");
        }

        @Test
        void whatNeedsNoneOfItAlthoughASavepointCouldNotBeSet() {
            database.on("savepoint", failing("no savepoint"));
            ConnectionScopes own = scopes.transactions(Propagation.REQUIRES_NEW);
            TestSubscriber<Integer> outer =
                    inside(Flux.from(scopes.connectionFactory().create())
                            .flatMap(c -> Rows.ints(c, "inner"))
                            .onErrorResume(e -> own.inTransactionMany(c -> Rows.ints(c, "audit")))
                            .as(nested::transactional));

            outer.block();
            assertThat(outer.isTerminatedComplete()).isTrue();
            assertThat(database.log())
                    .containsSubsequence("begin#2", "audit#2", "commit#2", "after#1", "commit#1")
                    .doesNotContain("inner#1");
        }

        @Test
        void rollbackToWhenItCannotBeReleasedBecauseAStatementFailed() {
            database.on("release savepoint", () -> {
                boolean rolledBack = database.log().contains("rollback to savepoint#1");
                return rolledBack ? Mono.empty() : Mono.error(new IllegalStateException("aborted"));
            });
            TestSubscriber<Integer> outer = inside(nested.inTransactionMany(c -> Rows.ints(c, "inner"))
                    .onErrorResume(ScopeRolledBackException.class, e -> Mono.just(-1)));

            outer.block();
            assertThat(outer.getReceivedOnNext()).containsExactly(1, -1, 1);
            assertThat(database.log())
                    .containsSubsequence(
                            "release savepoint#1",
                            "rollback to savepoint#1",
                            "release savepoint#1",
                            "after#1",
                            "commit#1");
        }

        @Test
        void nothingMoreWhenTheConnectionIsLostWhileItIsReleased() {
            R2dbcNonTransientResourceException lost = new R2dbcNonTransientResourceException("gone", "08006");
            database.on("release savepoint", ProbeFault.fail(() -> lost));
            TestSubscriber<Integer> outer = inside(nested.inTransactionMany(c -> Rows.ints(c, "inner")));

            assertThat(outer.expectTerminalError()).isSameAs(lost);
            assertThat(database.log()).doesNotContain("rollback to savepoint#1", "after#1", "commit#1");
        }

        @Test
        void noCommitWhenItCouldNotBeRolledBackTo() {
            database.on("rollback to savepoint", failing("connection is gone"));
            TestSubscriber<Integer> outer = inside(nested.inTransactionMany(
                            c -> Rows.ints(c, "inner").concatWith(Mono.error(new IllegalStateException("the user's"))))
                    .onErrorReturn(0));

            assertThat(outer.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
            assertThat(database.log()).doesNotContain("commit#1", "after#1").contains("close#1");
        }
    }

    @Nested
    class InTime {

        private final VirtualTimeScheduler time = witness.virtualTime();
        private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
        private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
        private final ConnectionScopes nested = scopes.transactions(Propagation.NESTED);

        @ParameterizedTest
        @EnumSource
        void stepsThatAreNotAnsweredEndWithinTheReleaseTimeout(Unanswered step) {
            database.on(step.sql, Mono::never);
            TestSubscriber<Integer> outer =
                    start(scopes.inTransactionMany(c -> nested.inTransactionMany(s -> Rows.ints(s, "inner")
                                    .concatWith(
                                            step == Unanswered.ROLLBACK_TO
                                                    ? Mono.error(new IllegalStateException("the user's"))
                                                    : Mono.empty()))
                            .onErrorResume(e -> Rows.ints(c, "after"))));
            assertThat(outer.isTerminated()).isFalse();
            time.advanceTimeBy(Duration.ofSeconds(31));

            assertThat(outer.isTerminatedError()).isTrue();
            assertThat(database.log()).doesNotContain("commit#1", "after#1").contains("close#1");
        }

        enum Unanswered {
            SAVEPOINT("savepoint"),
            RELEASE("release savepoint"),
            ROLLBACK_TO("rollback to savepoint");

            final String sql;

            Unanswered(String sql) {
                this.sql = sql;
            }
        }

        @Test
        void aSiblingWaitsAsLongAsTheSavepointWorks() {
            Step<Integer> slow = new Step<>();
            database.on("slow", () -> slow.publisher());
            TestSubscriber<Integer> outer = start(scopes.inTransactionMany(
                    c -> Flux.merge(nested.inTransactionMany(s -> Rows.ints(s, "slow")), Rows.ints(c, "sibling"))));
            time.advanceTimeBy(Duration.ofMinutes(10));
            assertThat(outer.isTerminated()).isFalse();
            slow.complete(7);

            assertThat(outer.getReceivedOnNext()).containsExactly(7, 1);
            assertThat(outer.isTerminatedComplete()).isTrue();
        }

        @Test
        void aSiblingWaitsAsLongAsTheSavepointGoesFromOneShortStatementToTheNext() {
            TestSubscriber<Integer> outer = start(scopes.inTransactionMany(c -> Flux.merge(
                    nested.inTransactionMany(
                            s -> Flux.interval(Duration.ofSeconds(20)).take(30).concatMap(i -> Rows.ints(s, "short"))),
                    Rows.ints(c, "sibling"))));
            time.advanceTimeBy(Duration.ofMinutes(11));

            outer.block();
            assertThat(outer.isTerminatedComplete()).isTrue();
            assertThat(database.log()).endsWith("release savepoint#1", "sibling#1", "commit#1", "close#1");
        }

        @Test
        void aSiblingSavepointWaitsAsLongAsTheFirstWorksAndNoLonger() {
            Step<Integer> slow = new Step<>();
            database.on("slow", () -> slow.publisher());
            Sinks.Empty<Integer> idle = Sinks.empty();
            TestSubscriber<Integer> outer = start(scopes.inTransactionMany(c -> Flux.mergeDelayError(
                    4,
                    nested.inTransactionMany(s -> Rows.ints(s, "slow").concatWith(idle.asMono())),
                    nested.inTransactionMany(s -> Rows.ints(s, "sibling")))));
            time.advanceTimeBy(Duration.ofMinutes(10));
            assertThat(outer.isTerminated()).isFalse();
            assertThat(database.log()).doesNotContain("sibling#1");

            slow.complete(7);
            time.advanceTimeBy(Duration.ofSeconds(61));
            idle.tryEmitEmpty();
            assertThat(outer.getReceivedOnNext()).containsExactly(7);
            assertThat(outer.expectTerminalError()).isInstanceOf(ScopeAcquisitionException.class);
        }

        @Test
        void aSiblingDoesNotWaitForEverForASavepointThatDoesNothing() {
            TestSubscriber<Integer> outer = start(scopes.inTransactionMany(c -> Flux.merge(
                    nested.inTransactionMany(s -> Rows.ints(s, "inner").concatWith(Flux.never())),
                    Rows.ints(c, "sibling"))));
            time.advanceTimeBy(Duration.ofSeconds(31));

            assertThat(outer.expectTerminalError())
                    .isInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("sibling")
                    .hasMessageContaining("the savepoint of scope");
        }
    }

    @Nested
    class JoinedFailures {

        private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
        private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));

        @Test
        void failTheTransactionEvenIfItNeverNeededAConnection() {
            TestSubscriber<Integer> outer = start(Flux.<Integer>error(new IllegalStateException("inner"))
                    .as(scopes::transactional)
                    .onErrorReturn(0)
                    .as(scopes::transactional));

            assertThat(outer.expectTerminalError())
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasRootCauseMessage("inner");
            assertThat(database.log()).isEmpty();
        }

        @Test
        void failTheTransactionThatCompletesWhileItStillWaitsForAConnection() {
            Step<Connection> create = new Step<>();
            database.on("create", create);
            Mono<Integer> swallowed = Mono.<Integer>error(new IllegalStateException("inner"))
                    .as(scopes::transactional)
                    .onErrorReturn(0);
            TestSubscriber<Integer> outer = start(Mono.<Integer>firstWithValue(
                            Mono.from(scopes.connectionFactory().create()).map(c -> 1), swallowed)
                    .as(scopes::transactional)
                    .flux());

            assertThat(outer.expectTerminalError())
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasRootCauseMessage("inner");
            create.complete(database.newConnection());
        }
    }

    @Nested
    class Races {

        /** Whoever wins: the savepoint is either released or rolled back to, once, and the transaction goes on. */
        @Test
        @Tag("race")
        void endsOnceWhenItsCancelRacesItsCompletion() {
            int released = 0;
            for (int i = 0; i < RACES; i++) {
                ProbeConnectionFactory database = ProbeConnectionFactory.of();
                ConnectionScopes scopes = ConnectionScopes.of(database);
                Sinks.Empty<Integer> end = Sinks.empty();
                Sinks.Empty<Void> leave = Sinks.empty();
                Probe<Integer> probe = Probe.unbounded();
                scopes.inTransactionMany(c -> scopes.transactions(Propagation.NESTED)
                                .inTransactionMany(s -> Rows.ints(s, "inner").concatWith(end.asMono()))
                                .takeUntilOther(leave.asMono())
                                .concatWith(Rows.ints(c, "after")))
                        .subscribe(probe);

                RaceTestUtils.race(end::tryEmitEmpty, leave::tryEmitEmpty);

                assertThat(probe.awaitEnd().error()).isNull();
                probe.assertSound();
                assertSettled(scopes, database);
                assertThat(database.log())
                        .startsWith("create", "begin#1", "savepoint#1", "inner#1")
                        .endsWith("release savepoint#1", "after#1", "commit#1", "close#1")
                        .hasSizeBetween(8, 9);
                released += database.log().size() == 8 ? 1 : 0;
            }
            assertThat(released).isBetween(1, RACES - 1);
        }

        @Test
        @Tag("race")
        void endsBeforeTheTransactionWhenBothAreLeftAtOnce() {
            for (int i = 0; i < RACES; i++) {
                ProbeConnectionFactory database = ProbeConnectionFactory.of();
                ConnectionScopes scopes = ConnectionScopes.of(database);
                Sinks.Empty<Void> leave = Sinks.empty();
                Probe<Integer> probe = Probe.unbounded();
                scopes.inTransactionMany(c -> scopes.transactions(Propagation.NESTED)
                                .inTransactionMany(s -> Rows.ints(s, "inner").concatWith(Flux.never()))
                                .takeUntilOther(leave.asMono())
                                .concatWith(Flux.never()))
                        .subscribe(probe);

                RaceTestUtils.race(probe::cancel, leave::tryEmitEmpty);

                assertSettled(scopes, database);
                probe.assertSound();
                assertThat(database.log())
                        .containsExactly(
                                "create",
                                "begin#1",
                                "savepoint#1",
                                "inner#1",
                                "rollback to savepoint#1",
                                "release savepoint#1",
                                "rollback#1",
                                "close#1");
            }
        }
    }
}
