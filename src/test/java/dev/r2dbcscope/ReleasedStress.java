package dev.r2dbcscope;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.II_Result;
import org.openjdk.jcstress.infra.results.ZI_Result;
import reactor.core.publisher.Mono;
import reactor.util.context.Context;

/** Who waits for the release of a scope hears of it once, and not before; a hook that was accepted is run. */
public class ReleasedStress {

    /** A session that holds its connection. */
    private static SessionStress.Stage held() {
        SessionStress.Stage stage = new SessionStress.Stage();
        stage.database.on("create", () -> Mono.just(stage.connection));
        stage.open();
        return stage;
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 1", expect = Expect.ACCEPTABLE, desc = "told once, when the connection had been given back")
    @Outcome(expect = Expect.FORBIDDEN, desc = "told too early, twice or never")
    public static class WaitRacesExit {
        private final SessionStress.Stage stage = held();
        private volatile int told;
        private volatile int closed;

        @Actor
        public void exit() {
            stage.exit();
        }

        @Actor
        public void await() {
            stage.session.released().subscribe(null, null, () -> {
                closed = stage.database.closed();
                told++;
            });
        }

        @Arbiter
        public void see(II_Result result) {
            result.r1 = told;
            result.r2 = closed;
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 1", expect = Expect.ACCEPTABLE, desc = "told once, and given back once")
    @Outcome(expect = Expect.FORBIDDEN, desc = "told of an exit that is not over, or given back twice")
    public static class WaitRacesExitOfAScopeThatIsOpening {
        private final SessionStress.Stage stage = new SessionStress.Stage();
        private volatile int told;

        public WaitRacesExitOfAScopeThatIsOpening() {
            stage.database.on("create", () -> Mono.just(stage.connection));
            stage.session.released().subscribe(null, null, () -> told++);
        }

        @Actor
        public void open() {
            stage.open();
        }

        @Actor
        public void exit() {
            stage.exit();
        }

        @Arbiter
        public void see(II_Result result) {
            result.r1 = told;
            result.r2 = stage.database.log().contains("create") ? stage.database.closed() : 1;
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "true, 1", expect = Expect.ACCEPTABLE, desc = "accepted, and run")
    @Outcome(id = "false, 0", expect = Expect.ACCEPTABLE, desc = "too late, and the caller knows")
    @Outcome(expect = Expect.FORBIDDEN, desc = "accepted and forgotten, or run although refused")
    public static class HookRacesDecision {
        private final ScopeHooks hooks = held().session.hooks();
        private volatile int runs;

        @Actor
        public void register(ZI_Result result) {
            result.r1 = hooks.add(new ScopeHooks.Hook(outcome -> true, outcome -> Mono.fromRunnable(() -> runs++)));
        }

        @Actor
        public void decide() {
            hooks.decide(TransactionOutcome.COMMITTED, null);
        }

        @Arbiter
        public void see(ZI_Result result) {
            hooks.after(Mono.empty()).contextWrite(Context.empty()).subscribe();
            result.r2 = runs;
        }
    }
}
