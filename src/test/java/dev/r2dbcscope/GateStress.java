package dev.r2dbcscope;

import java.time.Duration;
import org.jspecify.annotations.Nullable;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.III_Result;
import org.openjdk.jcstress.infra.results.II_Result;
import org.openjdk.jcstress.infra.results.I_Result;
import reactor.core.publisher.Mono;

/** The decisions of the gate: every exchange is started or refused, once, and nothing is started after it closed. */
public class GateStress {

    private static final int AFTER_IDLE = 100;

    private static final RuntimeException CLOSED = new IllegalStateException("closed");

    private static final GateOwner OWNER = new Owner(null, ScopeOptions.defaults());

    /** Its database could be asked to cancel, but is not soon. */
    private static final GateOwner CANCELLING =
            new Owner(Mono.empty(), ScopeOptions.defaults().withCancelGrace(Duration.ofHours(1)));

    private record Owner(@Nullable Mono<Void> cancelRequest, ScopeOptions options) implements GateOwner {
        @Override
        public RuntimeException closedError() {
            return CLOSED;
        }

        @Override
        public RuntimeException overflowError(String openSql, String waitingSql) {
            return CLOSED;
        }

        @Override
        public RuntimeException tooManyError(String sql) {
            return CLOSED;
        }

        @Override
        public RuntimeException heldError(String waitingSql, String holder) {
            return CLOSED;
        }

        @Override
        public Duration longestHold() {
            return Duration.ofSeconds(5);
        }

        @Override
        public boolean isLost() {
            return false;
        }

        @Override
        public Dialect dialect() {
            return PlainDialect.INSTANCE;
        }

        @Override
        public boolean isInTransaction() {
            return false;
        }

        @Override
        public @Nullable Mono<Void> afterCancelledFetch() {
            return null;
        }

        @Override
        public void cancelRequested(String sql, long ran, long took, @Nullable Throwable error) {
            // nobody asks
        }

        @Override
        public Throwable cancelFailed(Throwable error) {
            return error;
        }

        @Override
        public boolean willRollBack() {
            return false;
        }

        @Override
        public void condemn() {
            // nothing fails
        }

        @Override
        public void databaseFailed(Throwable error) {
            // nobody asks
        }

        @Override
        public Throwable shown(Throwable error, String sql, long nanos) {
            return error;
        }

        @Override
        public void statementEnded(String sql, long nanos, long rows, @Nullable Throwable error) {
            // nobody asks
        }
    }

    /** A gate, with one permit if not said otherwise. */
    private static class Stage {
        final Gate gate;
        volatile int idle;

        Stage() {
            this(OWNER, 1);
        }

        Stage(GateOwner owner, int permits) {
            gate = new Gate(owner, null, permits, new RowBudget(1));
        }

        void await(Mono<Void> closing) {
            closing.subscribe(null, null, () -> idle++);
        }

        /** A statement that lasts until it is told to end. */
        Step lasting() {
            return new Step(this, false);
        }

        /** A statement that ends as soon as it is started. */
        Step instant() {
            return new Step(this, true);
        }
    }

    private static final class Step extends Exchange {
        private final Stage stage;
        private final boolean instant;
        private volatile int started;
        private volatile int refused;
        private volatile boolean unwanted;

        Step(Stage stage, boolean instant) {
            this.stage = stage;
            this.instant = instant;
        }

        @Override
        String sql() {
            return "step";
        }

        @Override
        void start() {
            started += stage.idle > 0 ? AFTER_IDLE : 1;
            if (instant) {
                stage.gate.ended(this);
            }
        }

        @Override
        void refuse(RuntimeException error) {
            refused++;
        }

        @Override
        boolean isUnwanted() {
            return unwanted;
        }

        @Override
        void drain() {
            // it has no rows
        }

        @Override
        void abandon(RuntimeException error) {
            stage.gate.ended(this);
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 0, 1", expect = Expect.ACCEPTABLE, desc = "admitted, and awaited")
    @Outcome(id = "0, 1, 1", expect = Expect.ACCEPTABLE, desc = "refused")
    @Outcome(expect = Expect.FORBIDDEN, desc = "lost, started after the end, or never idle")
    public static class EnterRacesCloseGracefully {
        private final Stage stage = new Stage();
        private final Step step = stage.instant();

        @Actor
        public void enter() {
            stage.gate.enter(step);
        }

        @Actor
        public void close() {
            stage.await(stage.gate.closeGracefully());
        }

        @Arbiter
        public void see(III_Result result) {
            result.r1 = step.started;
            result.r2 = step.refused;
            result.r3 = stage.idle;
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 0, 1", expect = Expect.ACCEPTABLE, desc = "admitted, abandoned and awaited")
    @Outcome(id = "0, 1, 1", expect = Expect.ACCEPTABLE, desc = "refused")
    @Outcome(expect = Expect.FORBIDDEN, desc = "lost, started after the end, or never idle")
    public static class EnterRacesCloseAbruptly {
        private final Stage stage = new Stage();
        private final Step step = stage.lasting();

        @Actor
        public void enter() {
            stage.gate.enter(step);
        }

        @Actor
        public void close() {
            stage.await(stage.gate.closeAbruptly());
        }

        @Arbiter
        public void see(III_Result result) {
            result.r1 = step.started;
            result.r2 = step.refused;
            result.r3 = stage.idle;
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1", expect = Expect.ACCEPTABLE, desc = "the permit was passed on")
    @Outcome(expect = Expect.FORBIDDEN, desc = "nobody admitted the one who waits")
    public static class EndedRacesEnter {
        private final Stage stage = new Stage();
        private final Step first = stage.lasting();
        private final Step second = stage.instant();

        public EndedRacesEnter() {
            stage.gate.enter(first);
        }

        @Actor
        public void end() {
            stage.gate.ended(first);
        }

        @Actor
        public void enter() {
            stage.gate.enter(second);
        }

        @Arbiter
        public void see(I_Result result) {
            result.r1 = second.started;
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 0", expect = Expect.ACCEPTABLE, desc = "admitted")
    @Outcome(id = "0, 1", expect = Expect.ACCEPTABLE, desc = "withdrawn")
    @Outcome(expect = Expect.FORBIDDEN, desc = "both or neither")
    public static class WithdrawRacesAdmit {
        private final Stage stage = new Stage();
        private final Step first = stage.lasting();
        private final Step second = stage.instant();

        public WithdrawRacesAdmit() {
            stage.gate.enter(first);
            stage.gate.enter(second);
        }

        @Actor
        public void end() {
            stage.gate.ended(first);
        }

        @Actor
        public void withdraw(II_Result result) {
            result.r2 = second.withdraw() ? 1 : 0;
        }

        @Arbiter
        public void see(II_Result result) {
            result.r1 = second.started;
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 1", expect = Expect.ACCEPTABLE, desc = "admitted before the first was unwanted")
    @Outcome(id = "0, 1", expect = Expect.ACCEPTABLE, desc = "held back until the first had ended")
    @Outcome(expect = Expect.FORBIDDEN, desc = "lost, or started twice")
    public static class UnwantedRacesEnter {
        private final Stage stage = new Stage(CANCELLING, 2);
        private final Step first = stage.lasting();
        private final Step second = stage.instant();

        public UnwantedRacesEnter() {
            stage.gate.enter(first);
        }

        @Actor
        public void leave() {
            first.unwanted = true;
            stage.gate.unwanted();
        }

        @Actor
        public void enter() {
            stage.gate.enter(second);
        }

        @Arbiter
        public void see(II_Result result) {
            result.r1 = second.started;
            stage.gate.ended(first);
            result.r2 = second.started;
        }
    }
}
