package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.util.context.ContextView;

/** Who shares a connection with whom. */
class NestingTest extends FormContract {

    @Nested
    class ScopeInScope {

        @ParameterizedTest
        @EnumSource
        @Tag("lifecycle-44")
        void sharesTheConnectionAndOnlyTheOutermostExits(Form.Shape inner) {
            TestSubscriber<List<Integer>> subscriber =
                    runToEnd(c -> Flux.from(inner.of(scopes, nested -> Rows.ints(nested, "select inner")))
                            .concatWith(Rows.ints(c, "select outer"))
                            .collectList());

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            List<String> expected = new ArrayList<>(List.of("create"));
            if (isTransactional() || inner.transactional) {
                expected.add("begin#1");
            }
            expected.add("select inner#1");
            if (!isTransactional() && inner.transactional) {
                expected.add("commit#1");
            }
            expected.add("select outer#1");
            if (isTransactional()) {
                expected.add("commit#1");
            }
            expected.add("close#1");
            assertThat(database.log()).isEqualTo(expected);
        }

        @Test
        @Tag("lifecycle-44")
        void sharesTheConnectionOverAllLevels() {
            runToEnd(a -> scope(b -> scope(c -> scope(d -> Rows.ints(d, "select 1")))));

            assertThat(database.log())
                    .isEqualTo(isTransactional() ? steps("select 1#1", "commit#1") : steps("select 1#1"));
        }

        @Test
        @Tag("lifecycle-44")
        void rollsTheWholeTransactionBackWhenAJoinedOneFailed() {
            TestSubscriber<Integer> subscriber =
                    runToEnd(a -> scope(b -> Mono.<Integer>error(new IllegalStateException("inner")))
                            .onErrorReturn(7));

            assertThat(database.log()).isEqualTo(rolledBack());
            if (isTransactional()) {
                assertThat(subscriber.expectTerminalError())
                        .isInstanceOf(ScopeRolledBackException.class)
                        .hasRootCauseMessage("inner");
            } else {
                assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            }
        }

        @Test
        void keepsTheScopesOfTwoDatabasesApart() {
            ProbeConnectionFactory target = witness.watch(ProbeConnectionFactory.of());
            ConnectionScopes other = witness.watch(ConnectionScopes.of(target));

            runToEnd(from -> Flux.from(form.shape()
                    .of(other, to -> Rows.ints(from, "select 1").flatMap(n -> Rows.ints(to, "insert " + n)))));

            assertThat(database.log()).contains("select 1#1").doesNotContain("insert 1#1");
            assertThat(target.log()).contains("insert 1#1", "close#1").doesNotContain("select 1#1");
        }
    }

    @Nested
    class BranchesOfAZip {

        private final IllegalStateException failure = new IllegalStateException("of one branch");
        private final Step<Integer> statement = new Step<>();

        private TestSubscriber<Integer> zip(Step<Integer> failing) {
            database.on("select slow", statement);
            return run(c -> Mono.zip(Rows.ints(c, "select slow").next(), failing.publisher(), Integer::sum));
        }

        @Test
        @Tag("lifecycle-49")
        void areAwaitedBeforeTheExit() {
            Step<Integer> failing = new Step<>();
            TestSubscriber<Integer> subscriber = zip(failing);
            statement.awaitReached();
            failing.awaitReached().fail(failure);

            assertThat(subscriber.isTerminated()).isFalse();
            assertThat(statement.cancels()).isZero();
            assertThat(database.log()).doesNotContain("rollback#1", "close#1");

            statement.complete(1);
            subscriber.block(PATIENCE);
            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(database.log())
                    .isEqualTo(isTransactional() ? steps("select slow#1", "rollback#1") : steps("select slow#1"));
        }

        @Test
        @Tag("lifecycle-49")
        void areAwaitedNoLongerThanTheReleaseTimeout() {
            VirtualTimeScheduler time = witness.virtualTime();
            Step<Integer> failing = new Step<>();
            TestSubscriber<Integer> subscriber = zip(failing);
            time.advanceTime();
            failing.fail(failure);
            Duration bound = ScopeOptions.defaults().releaseTimeout();
            time.advanceTimeBy(bound.minusMillis(1));
            assertThat(subscriber.isTerminated()).isFalse();
            time.advanceTimeBy(Duration.ofMillis(1));

            assertThat(subscriber.expectTerminalError()).isSameAs(failure);
            assertThat(failure.getSuppressed()).hasOnlyElementsOfType(ScopeReleaseException.class);
            assertThat(database.log()).isEqualTo(steps("select slow#1"));
        }
    }

    @Nested
    class Visibility {

        @Test
        @Tag("lifecycle-50")
        void isTheBodyAndUpstreamOnly() {
            List<String> seen = new CopyOnWriteArrayList<>();

            scope(c -> see("body", seen))
                    .concatWith(see("downstream", seen))
                    .contextWrite(context -> context.put("user", "value"))
                    .as(flux -> flux.concatWith(see("further downstream", seen)))
                    .blockLast(PATIENCE);

            assertThat(seen).containsExactly("body scope user", "downstream user", "further downstream");
        }

        @Test
        @Tag("lifecycle-50")
        void ofTheUsersContextIncludesEveryStep() {
            List<String> seen = new CopyOnWriteArrayList<>();
            for (String step : List.of("create", "begin", "commit", "close")) {
                database.on(
                        step,
                        () -> see(step, seen)
                                .then(Mono.defer(() ->
                                        step.equals("create") ? Mono.just(database.newConnection()) : Mono.empty())));
            }

            scope(c -> Mono.just(1))
                    .contextWrite(context -> context.put("user", "value"))
                    .blockLast(PATIENCE);

            assertThat(seen)
                    .allSatisfy(words -> assertThat(words).endsWith("user"))
                    .hasSize(isTransactional() ? 4 : 2);
        }

        private static Mono<Integer> see(String where, List<String> seen) {
            return Mono.deferContextual(context -> {
                seen.add(where + (hasScope(context) ? " scope" : "") + (context.hasKey("user") ? " user" : ""));
                return Mono.empty();
            });
        }

        private static boolean hasScope(ContextView context) {
            return context.stream().anyMatch(entry -> entry.getValue() instanceof Scope);
        }
    }

    @Nested
    class LostContext {

        @Test
        @Tag("lifecycle-51")
        void makesTheInnerScopeOpenItsOwnConnection() {
            TestSubscriber<Integer> subscriber = runToEnd(c -> Rows.ints(c, "select 1")
                    .next()
                    .flatMap(n -> Mono.fromFuture(
                            scope(own -> Rows.ints(own, "select 2")).last().toFuture())));

            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(database.log()).contains("select 1#1", "select 2#2", "close#1", "close#2");
        }

        @Test
        @Tag("lifecycle-51")
        void makesTheAmbientFactoryAPlainOne() {
            runToEnd(c -> Mono.fromFuture(Mono.<Connection>from(
                            scopes.connectionFactory().create())
                    .flatMap(own -> Rows.ints(own, "select 2").then(Mono.defer(() -> Mono.from(own.close()))))
                    .toFuture()));

            assertThat(database.log()).contains("select 2#2", "close#1", "close#2");
        }
    }
}
