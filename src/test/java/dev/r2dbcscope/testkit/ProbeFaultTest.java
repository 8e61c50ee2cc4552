package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.Rows;
import dev.r2dbcscope.testkit.ProbeCall.Kind;
import dev.r2dbcscope.testkit.ProbeCall.State;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiFunction;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.StepVerifier;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** What can go wrong with each step, and what then becomes of it. */
class ProbeFaultTest {

    private final ProbeConnectionFactory probe = ProbeConnectionFactory.of().knowingCancel();
    private VirtualTimeScheduler time = VirtualTimeScheduler.create();

    @BeforeEach
    void stopTheTime() {
        time = VirtualTimeScheduler.getOrSet();
    }

    @AfterEach
    void letTimePass() {
        VirtualTimeScheduler.reset();
    }

    /** Each kind of step, and how it is made; the connection was opened before. */
    private enum Step {
        CREATE("create", (probe, connection) -> probe.create()),
        BEGIN("begin", (probe, connection) -> connection.beginTransaction()),
        STATEMENT("insert", (probe, connection) -> Rows.ints(connection, "insert")),
        COMMIT("commit", (probe, connection) -> connection.commitTransaction()),
        ROLLBACK("rollback", (probe, connection) -> connection.rollbackTransaction()),
        SAVEPOINT("savepoint", (probe, connection) -> connection.createSavepoint("s")),
        SETTING("statementTimeout", (probe, connection) -> connection.setStatementTimeout(Duration.ofSeconds(1))),
        CANCEL("cancel", (probe, connection) -> new ProbeDialect().cancelRunning(connection)),
        CLOSE("close", (probe, connection) -> connection.close());

        private final String step;
        private final BiFunction<ProbeConnectionFactory, Connection, Publisher<?>> call;

        Step(String step, BiFunction<ProbeConnectionFactory, Connection, Publisher<?>> call) {
            this.step = step;
            this.call = call;
        }

        /** Whether something comes before its end. */
        boolean hasAnswer() {
            return this == CREATE || this == STATEMENT;
        }

        TestSubscriber<Object> start(ProbeConnectionFactory probe, Connection connection) {
            TestSubscriber<Object> subscriber = TestSubscriber.create();
            Flux.<Object>from(call.apply(probe, connection)).subscribe(subscriber);
            return subscriber;
        }
    }

    private Connection open() {
        return Mono.<Connection>fromDirect(probe.create()).blockOptional().orElseThrow();
    }

    private ProbeCall last() {
        List<ProbeCall> calls = probe.calls();
        return calls.get(calls.size() - 1);
    }

    @ParameterizedTest
    @EnumSource
    void failsWithTheErrorOfTheTest(Step step) {
        Connection connection = open();
        AtomicInteger errors = new AtomicInteger();
        probe.on(step.step, ProbeFault.fail(() -> new IllegalStateException("staged " + errors.incrementAndGet())));

        assertThat(step.start(probe, connection).expectTerminalError()).hasMessage("staged 1");
        assertThat(last().state()).isEqualTo(State.FAILED);
        assertThat(probe.durable()).isEmpty();
        if (step != Step.CLOSE) {
            assertThat(step.start(probe, connection).expectTerminalError()).hasMessage("staged 2");
        }
    }

    @ParameterizedTest
    @EnumSource
    void failsWithASqlState(Step step) {
        Connection connection = open();
        probe.on(step.step, ProbeFault.fail("40001"));

        assertThat(step.start(probe, connection).expectTerminalError())
                .isInstanceOfSatisfying(
                        R2dbcException.class, e -> assertThat(e.getSqlState()).isEqualTo("40001"));
    }

    @ParameterizedTest
    @EnumSource
    void hangsUntilItIsLeft(Step step) {
        Connection connection = open();
        probe.on(step.step, ProbeFault.hang());

        TestSubscriber<Object> subscriber = step.start(probe, connection);
        time.advanceTimeBy(Duration.ofDays(1));
        assertThat(subscriber.isTerminatedOrCancelled()).isFalse();
        assertThat(probe.inFlight()).containsExactly(last());

        subscriber.cancel();
        assertThat(last().state()).isEqualTo(State.CANCELLED);
        assertThat(probe.durable()).isEmpty();
    }

    @ParameterizedTest
    @EnumSource
    void isDelayed(Step step) {
        Connection connection = open();
        probe.on(step.step, ProbeFault.delay(Duration.ofSeconds(3)));

        TestSubscriber<Object> subscriber = step.start(probe, connection);
        time.advanceTimeBy(Duration.ofMillis(2_999));
        assertThat(subscriber.isTerminated()).isFalse();
        time.advanceTimeBy(Duration.ofMillis(1));

        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(subscriber.getReceivedOnNext()).hasSize(step.hasAnswer() ? 1 : 0);
        assertThat(last().state()).isEqualTo(State.COMPLETED);
    }

    @ParameterizedTest
    @EnumSource
    void isHeldUntilTheTestLetsItGoOn(Step step) {
        Connection connection = open();
        ProbeHold hold = ProbeHold.of();
        probe.on(step.step, ProbeFault.hold(hold));
        StepVerifier.create(hold.reached()).expectSubscription().thenCancel().verify();

        TestSubscriber<Object> subscriber = step.start(probe, connection);
        StepVerifier.create(hold.reached()).verifyComplete();
        assertThat(subscriber.isTerminated()).isFalse();

        hold.release();
        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(last().state()).isEqualTo(State.COMPLETED);
    }

    @Test
    void aHoldHoldsSeveralStepsUntilItIsReleasedAndNoneAfterThat() {
        ProbeHold hold = ProbeHold.of();
        probe.on("create", ProbeFault.hold(hold));
        TestSubscriber<Object> first = Step.CREATE.start(probe, probe.newConnection());
        TestSubscriber<Object> second = Step.CREATE.start(probe, probe.newConnection());

        hold.release();
        hold.release();
        TestSubscriber<Object> third = Step.CREATE.start(probe, probe.newConnection());

        assertThat(List.of(first, second, third)).allMatch(TestSubscriber::isTerminatedComplete);
    }

    @Test
    void aHoldCanEndWithAnError() {
        Connection connection = open();
        ProbeHold hold = ProbeHold.of();
        probe.on("commit", ProbeFault.hold(hold));
        Mono.from(connection.beginTransaction()).block();
        Rows.ints(connection, "insert").blockLast();
        TestSubscriber<Object> subscriber = Step.COMMIT.start(probe, connection);

        hold.fail(new IllegalStateException("staged"));

        assertThat(subscriber.expectTerminalError()).hasMessage("staged");
        assertThat(probe.durable()).isEmpty();
        assertThat(connection.isAutoCommit()).isFalse();
    }

    @Test
    void waitsForSomethingElse() {
        Connection connection = open();
        AtomicInteger asked = new AtomicInteger();
        probe.on("begin", ProbeFault.delayUntil(() -> {
            asked.incrementAndGet();
            return Mono.delay(Duration.ofSeconds(1));
        }));

        TestSubscriber<Object> subscriber = Step.BEGIN.start(probe, connection);
        assertThat(asked).hasValue(1);
        assertThat(subscriber.isTerminated()).isFalse();
        time.advanceTimeBy(Duration.ofSeconds(1));

        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(connection.isAutoCommit()).isFalse();
    }

    @ParameterizedTest
    @EnumSource
    void isAnsweredWithoutAnEffect(Step step) {
        Connection connection = open();
        int opened = probe.opened();
        probe.on(step.step, ProbeFault.drop());

        TestSubscriber<Object> subscriber = step.start(probe, connection);

        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(subscriber.getReceivedOnNext()).isEmpty();
        assertThat(last().state()).isEqualTo(State.COMPLETED);
        assertThat(probe.durable()).isEmpty();
        assertThat(connection.isAutoCommit()).isTrue();
        assertThat(probe.opened()).isEqualTo(opened);
        assertThat(probe.inFlight()).isEmpty();
    }

    @Test
    void loseTheAnswerOfACommitThatTookEffect() {
        Connection connection = open();
        probe.on("commit", ProbeFault.failAfter("08006"));
        Mono.from(connection.beginTransaction()).block();
        Rows.ints(connection, "insert").blockLast();

        assertThat(Step.COMMIT.start(probe, connection).expectTerminalError()).isInstanceOf(R2dbcException.class);
        assertThat(probe.durable()).containsExactly("insert");
        assertThat(last().state()).isEqualTo(State.FAILED);
    }

    @Test
    void loseTheAnswerOfAStatementThatTookEffect() {
        Connection connection = open();
        probe.on("insert", ProbeFault.failAfter("08006"));

        assertThat(Step.STATEMENT.start(probe, connection).expectTerminalError())
                .isInstanceOf(R2dbcException.class);
        assertThat(probe.durable()).containsExactly("insert");
    }

    @Test
    void deliversAConnectionTwice() {
        probe.on("create", ProbeFault.duplicate());

        TestSubscriber<Object> subscriber = Step.CREATE.start(probe, probe.newConnection());

        assertThat(subscriber.getReceivedOnNext()).hasSize(2);
        assertThat(subscriber.getReceivedOnNext().get(0))
                .isSameAs(subscriber.getReceivedOnNext().get(1));
    }

    @ParameterizedTest
    @EnumSource(names = {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "SETTING", "CANCEL", "CLOSE"})
    void completesTwiceWhatAnswersNothing(Step step) {
        Connection connection = open();
        probe.on(step.step, ProbeFault.duplicate());
        AtomicInteger completions = new AtomicInteger();

        step.call.apply(probe, connection).subscribe(new CoreSubscriber<Object>() {
            @Override
            public void onSubscribe(Subscription s) {
                s.request(Long.MAX_VALUE);
            }

            @Override
            public void onNext(Object value) {}

            @Override
            public void onError(Throwable e) {}

            @Override
            public void onComplete() {
                completions.incrementAndGet();
            }
        });

        assertThat(completions).hasValue(2);
        assertThat(last().state()).isEqualTo(State.COMPLETED);
    }

    @Test
    void endsWithNoneAndWithoutFaults() {
        Connection connection = open();
        probe.on("begin", ProbeFault.hang()).on("begin", ProbeFault.none());
        assertThat(Step.BEGIN.start(probe, connection).isTerminatedComplete()).isTrue();

        probe.on("commit", ProbeFault.hang()).withFaults(call -> ProbeFault.hang());
        probe.withoutFaults();
        assertThat(Step.COMMIT.start(probe, connection).isTerminatedComplete()).isTrue();
    }

    @Test
    void aFaultThatWasNamedComesBeforeTheDecision() {
        Connection connection = open();
        probe.withFaults(call -> ProbeFault.fail("08006")).on("begin", ProbeFault.delay(Duration.ofSeconds(1)));

        TestSubscriber<Object> subscriber = Step.BEGIN.start(probe, connection);
        time.advanceTimeBy(Duration.ofSeconds(1));

        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(Step.COMMIT.start(probe, connection).expectTerminalError()).isInstanceOf(R2dbcException.class);
    }

    @Test
    void hitsARow() {
        Connection connection = open();
        List<Long> asked = new ArrayList<>();
        probe.on("insert", () -> Flux.range(1, 5)).withFaults(new ProbeFaults() {
            @Override
            public ProbeFault at(ProbeCall call) {
                return ProbeFault.none();
            }

            @Override
            public ProbeFault atRow(ProbeCall statement, long row) {
                assertThat(statement.kind()).isEqualTo(Kind.STATEMENT);
                asked.add(row);
                return row == 1
                        ? ProbeFault.duplicate()
                        : row == 2 ? ProbeFault.drop() : row == 4 ? ProbeFault.fail("08006") : ProbeFault.none();
            }
        });

        TestSubscriber<Object> subscriber = Step.STATEMENT.start(probe, connection);

        assertThat(subscriber.getReceivedOnNext()).containsExactly(1, 2, 2, 4);
        assertThat(subscriber.expectTerminalError()).isInstanceOf(R2dbcException.class);
        assertThat(asked).containsExactly(0L, 1L, 2L, 3L, 4L);
        assertThat(last().state()).isEqualTo(State.FAILED);
    }

    @Test
    void aStatementThatWasHitIsNotCancelledOnceMore() {
        Connection connection = open();
        probe.on("insert", ProbeFault.hang());
        TestSubscriber<Object> subscriber = Step.STATEMENT.start(probe, connection);

        assertThat(Step.CANCEL.start(probe, connection).isTerminatedComplete()).isTrue();

        assertThat(subscriber.expectTerminalError())
                .isInstanceOfSatisfying(
                        R2dbcException.class, e -> assertThat(e.getSqlState()).isEqualTo("57014"));
    }

    // seeds ----------------------------------------------------------------------------------------------------------

    private List<String> outcomes(SeededFaults faults) {
        ProbeConnectionFactory seeded = ProbeConnectionFactory.of().withFaults(faults);
        List<String> outcomes = new ArrayList<>();
        for (int i = 0; i < 200; i++) {
            ProbeCall call = seeded.called(Kind.values()[i % Kind.values().length], 1, "step " + i);
            outcomes.add(seeded.faultAt(call) + " " + seeded.faultAtRow(call, i));
        }
        return outcomes;
    }

    @Test
    void aSeedRepeats() {
        assertThat(outcomes(SeededFaults.of(42))).isEqualTo(outcomes(SeededFaults.of(42)));
        assertThat(outcomes(SeededFaults.of(42))).isNotEqualTo(outcomes(SeededFaults.of(43)));
    }

    @Test
    void aCopyOfSeededFaultsBeginsAgain() {
        SeededFaults used = SeededFaults.of(42);
        List<String> first = outcomes(used);
        assertThat(outcomes(used)).isNotEqualTo(first);

        assertThat(outcomes(used.withChance(Kind.CLOSE, 0))).isEqualTo(first);
        assertThat(used).hasToString("seed 42");
    }

    @Test
    void chancesCanBeChosen() {
        SeededFaults always = SeededFaults.of(1).withChanceOfRow(1).withFaults(ProbeFault.drop());
        for (Kind kind : Kind.values()) {
            always = always.withChance(kind, 1);
        }

        assertThat(outcomes(always)).containsOnly("drop drop");

        SeededFaults never = SeededFaults.of(1);
        for (Kind kind : Kind.values()) {
            never = never.withChance(kind, 0);
        }
        assertThat(outcomes(never)).containsOnly("none none");
    }

    @Test
    void theCloseHasNoFaultByDefault() {
        SeededFaults faults = SeededFaults.of(7);
        ProbeCall close = new ProbeCall(1, Kind.CLOSE, 1, "close");
        for (int i = 0; i < 1_000; i++) {
            assertThat(faults.at(close).isNone()).isTrue();
        }
    }

    @Test
    void refusesWhatIsNoChance() {
        SeededFaults faults = SeededFaults.of(1);

        assertThatThrownBy(() -> faults.withChance(Kind.BEGIN, 1.5))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("chance must be between 0 and 1, but is 1.5");
        assertThatThrownBy(() -> faults.withChanceOfRow(Double.NaN)).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> faults.withFaults()).isInstanceOf(IllegalArgumentException.class);
    }

    @Test
    void holdsAreLetGoWhenTheirStepIsLeft() {
        Connection connection = open();
        ProbeHold hold = ProbeHold.of();
        probe.on("begin", ProbeFault.hold(hold));
        Disposable left = Mono.from(connection.beginTransaction()).subscribe();

        left.dispose();
        hold.release();

        assertThat(connection.isAutoCommit()).isTrue();
        assertThat(last().state()).isEqualTo(State.CANCELLED);
    }
}
