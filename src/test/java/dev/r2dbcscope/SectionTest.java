package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiConsumer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/** Transactions inside a plain scope, and others that want its connection to themselves. */
class SectionTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final VirtualTimeScheduler time = witness.virtualTime();
    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final Step<Integer> end = new Step<>();

    /** Runs code in a scope that stays open until {@link #complete}. */
    private TestSubscriber<Integer> inside(BiConsumer<Connection, ContextView> code) {
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.withConnection(c -> Mono.deferContextual(context -> {
                    code.accept(c, context);
                    return end.publisher();
                }))
                .subscribe(subscriber);
        return subscriber;
    }

    private void complete(TestSubscriber<Integer> scope) {
        end.complete(7);
        scope.block(FormContract.PATIENCE);
        assertThat(scope.getReceivedOnNext()).containsExactly(7);
    }

    /** Work on the side that belongs to the scope. */
    private static <T> TestSubscriber<T> start(Flux<T> work, ContextView context) {
        TestSubscriber<T> subscriber =
                TestSubscriber.builder().contextPutAll(context).build();
        work.subscribe(subscriber);
        return subscriber;
    }

    @Test
    void beginsBeforeAStatementOnTheOuterHandleThatComesMeanwhile() {
        Step<Integer> begin = new Step<>();
        database.on("begin", begin);
        TestSubscriber<Integer> scope = inside((c, context) -> {
            TestSubscriber<Integer> section = start(scopes.inTransactionMany(t -> Rows.ints(t, "inner")), context);
            TestSubscriber<Integer> outer = start(Rows.ints(c, "outer"), context);

            assertThat(database.log()).containsExactly("create", "begin#1");
            begin.complete();

            assertThat(section.getReceivedOnNext()).containsExactly(1);
            assertThat(outer.getReceivedOnNext()).containsExactly(1);
        });

        complete(scope);
        assertThat(database.log()).containsExactly("create", "begin#1", "inner#1", "commit#1", "outer#1", "close#1");
    }

    @Test
    void hasTimeToBeginThoughItWaitedForLongerThanTheAcquireTimeout() {
        Duration most = ScopeOptions.defaults().acquireTimeout().multipliedBy(2).dividedBy(3);
        Step<Integer> begin = new Step<>();
        TestSubscriber<Integer> scope = inside((c, context) -> {
            TestSubscriber<Integer> working = start(
                    scopes.inTransactionMany(t -> Mono.delay(most)
                            .thenMany(Rows.ints(t, "first"))
                            .concatWith(Mono.delay(most).then(Mono.empty()))),
                    context);
            database.on("begin", begin);
            TestSubscriber<Integer> waiting = start(scopes.inTransactionMany(t -> Rows.ints(t, "second")), context);

            time.advanceTimeBy(most);
            time.advanceTimeBy(most);
            assertThat(working.isTerminatedComplete()).isTrue();
            time.advanceTimeBy(most);
            begin.complete();

            assertThat(waiting.getReceivedOnNext()).containsExactly(1);
        });

        complete(scope);
    }

    @Test
    void thatCannotBeginSendsNoStatementOfItsCodeByTheOuterHandle() {
        IllegalStateException failure = new IllegalStateException("of BEGIN");
        Step<Integer> begin = new Step<>();
        database.on("begin", begin);
        TestSubscriber<Integer> scope = inside((c, context) -> {
            Mono<?> first = Mono.from(scopes.connectionFactory().create()).onErrorResume(e -> Mono.empty());
            TestSubscriber<Void> section = start(
                    Mono.when(first, Rows.ints(c, "insert"))
                            .as(scopes::transactional)
                            .flux(),
                    context);
            begin.fail(failure);

            assertThat(section.expectTerminalError()).isSameAs(failure);
        });

        complete(scope);
        assertThat(database.log()).doesNotContain("insert#1").endsWith("close#1");
    }

    @Test
    @Tag("lifecycle-61")
    void thatStillWaitsWhenTheScopeCompletesDoesNotCallItsCode() {
        Step<Integer> rows = new Step<>();
        database.on("long", rows);
        List<TestSubscriber<Integer>> work = new ArrayList<>();
        TestSubscriber<Integer> scope = inside((c, context) -> {
            work.add(start(Rows.ints(c, "long"), context));
            work.add(start(scopes.inTransactionMany(t -> Rows.ints(t, "inner")), context));
            work.add(start(Rows.ints(c, "behind"), context));
        });

        end.complete(7);
        assertThat(scope.isTerminated()).isFalse();
        rows.complete(1);

        scope.block(FormContract.PATIENCE);
        assertThat(scope.getReceivedOnNext()).containsExactly(7);
        assertThat(work.get(0).getReceivedOnNext()).containsExactly(1);
        assertThat(work.get(1).expectTerminalError()).isInstanceOf(ScopeClosedException.class);
        assertThat(work.get(2).getReceivedOnNext()).containsExactly(1);
        assertThat(database.log()).containsExactly("create", "long#1", "behind#1", "close#1");
    }

    @Test
    @Tag("lifecycle-61")
    void thatHasBegunWhenTheScopeCompletesIsAwaited() {
        Step<Integer> rows = new Step<>();
        database.on("inner", rows);
        List<TestSubscriber<Integer>> work = new ArrayList<>();
        TestSubscriber<Integer> scope =
                inside((c, context) -> work.add(start(scopes.inTransactionMany(t -> Rows.ints(t, "inner")), context)));

        end.complete(7);
        assertThat(scope.isTerminated()).isFalse();
        rows.complete(1);

        scope.block(FormContract.PATIENCE);
        assertThat(work.get(0).getReceivedOnNext()).containsExactly(1);
        assertThat(database.log()).containsExactly("create", "begin#1", "inner#1", "commit#1", "close#1");
    }

    @Test
    void thatIsCancelledWhileItWaitsHoldsUpNobody() {
        Step<Integer> rows = new Step<>();
        database.on("long", rows);
        TestSubscriber<Integer> scope = inside((c, context) -> {
            TestSubscriber<Integer> running = start(Rows.ints(c, "long"), context);
            TestSubscriber<Integer> section = start(scopes.inTransactionMany(t -> Rows.ints(t, "inner")), context);
            TestSubscriber<Integer> behind = start(Rows.ints(c, "behind"), context);
            assertThat(behind.getReceivedOnNext()).isEmpty();

            section.cancel();

            assertThat(behind.getReceivedOnNext()).containsExactly(1);
            assertThat(running.isTerminated()).isFalse();
            rows.complete(1);
        });

        complete(scope);
        assertThat(database.log()).containsExactly("create", "long#1", "behind#1", "close#1");
    }

    @Test
    void thatWaitsForTooLongHoldsUpNobodyAfterwards() {
        Step<Integer> rows = new Step<>();
        database.on("long", rows);
        TestSubscriber<Integer> scope = inside((c, context) -> {
            start(Rows.ints(c, "long"), context);
            TestSubscriber<Integer> section = start(scopes.inTransactionMany(t -> Rows.ints(t, "inner")), context);
            time.advanceTimeBy(Duration.ofSeconds(30));

            assertThat(section.expectTerminalError()).isInstanceOf(ScopeAcquisitionException.class);
            assertThat(start(Rows.ints(c, "behind"), context).getReceivedOnNext())
                    .containsExactly(1);
            rows.complete(1);
        });

        complete(scope);
        assertThat(database.log()).containsExactly("create", "long#1", "behind#1", "close#1");
    }

    @Test
    void anExclusiveHeadThatIsTakenBackWakesThoseBehindIt() {
        Step<Integer> rows = new Step<>();
        database.on("long", rows);
        TestSubscriber<Integer> scope = inside((c, context) -> {
            start(Rows.ints(c, "long"), context);
            TestSubscriber<Boolean> exclusive = start(Flux.from(c.validate(ValidationDepth.REMOTE)), context);
            TestSubscriber<Integer> behind = start(Rows.ints(c, "behind"), context);
            assertThat(behind.getReceivedOnNext()).isEmpty();

            exclusive.cancel();

            assertThat(behind.getReceivedOnNext()).containsExactly(1);
            rows.complete(1);
        });

        complete(scope);
        assertThat(database.log()).containsExactly("create", "long#1", "behind#1", "close#1");
    }

    @Test
    void aBeginThatIsTakenBackInTheQueueLeavesTheTransactionToOtherHandles() {
        Step<Integer> rows = new Step<>();
        database.on("long", rows);
        TestSubscriber<Integer> scope = inside((c, context) -> {
            Connection first = handle(context);
            Connection second = handle(context);
            start(Rows.ints(c, "long"), context);
            start(Flux.from(first.beginTransaction()), context).cancel();
            rows.complete(1);

            TestSubscriber<Void> begun = start(Flux.from(second.beginTransaction()), context);
            assertThat(begun.isTerminatedComplete()).isTrue();
            assertThat(start(Flux.from(second.commitTransaction()), context).isTerminatedComplete())
                    .isTrue();
        });

        complete(scope);
        assertThat(database.log()).containsExactly("create", "long#1", "begin#1", "commit#1", "close#1");
    }

    private Connection handle(ContextView context) {
        return java.util.Objects.requireNonNull(
                Mono.<Connection>from(scopes.connectionFactory().create())
                        .contextWrite(Context.of(context))
                        .block(FormContract.PATIENCE));
    }
}
