package dev.r2dbcscope;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.ZZZ_Result;
import org.openjdk.jcstress.infra.results.ZZ_Result;
import reactor.util.context.Context;

/** What decides at the end of a scope: whether it may commit, and whether code outside Reactor still holds it. */
public class EndingStress {

    private static final ScopeLabel LABEL = ScopeLabel.here("stress");

    @JCStressTest
    @State
    @Outcome(id = "true, false", expect = Expect.ACCEPTABLE, desc = "asked in time, so it is rolled back")
    @Outcome(id = "false, true", expect = Expect.ACCEPTABLE, desc = "too late, and the caller knows")
    @Outcome(expect = Expect.FORBIDDEN, desc = "a promise that is not kept")
    public static class RequestRacesCommit {
        private final RollbackOnly mark = new RollbackOnly();

        @Actor
        public void request(ZZ_Result result) {
            result.r1 = mark.request();
        }

        @Actor
        public void settle(ZZ_Result result) {
            result.r2 = mark.settle();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "true, true, false", expect = Expect.ACCEPTABLE, desc = "both in time")
    @Outcome(id = "true, false, false", expect = Expect.ACCEPTABLE, desc = "the owner first, and no COMMIT")
    @Outcome(id = "false, true, false", expect = Expect.ACCEPTABLE, desc = "the joined scope first, and no COMMIT")
    @Outcome(id = "false, false, true", expect = Expect.ACCEPTABLE, desc = "both too late")
    @Outcome(expect = Expect.FORBIDDEN, desc = "a promise that is not kept")
    public static class TwoThatSpeakAgainstItRaceCommit {
        private final RollbackOnly mark = new RollbackOnly();
        private final ScopeRolledBackException doom = new ScopeRolledBackException("doomed", LABEL, null);

        @Actor
        public void request(ZZZ_Result result) {
            result.r1 = mark.request();
        }

        @Actor
        public void doom(ZZZ_Result result) {
            result.r2 = mark.doom(doom);
        }

        @Actor
        public void settle(ZZZ_Result result) {
            result.r3 = mark.settle();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "true, false", expect = Expect.ACCEPTABLE, desc = "the code came first, and the scope waits for it")
    @Outcome(id = "false, true", expect = Expect.ACCEPTABLE, desc = "the end came first, and the code is refused")
    @Outcome(expect = Expect.FORBIDDEN, desc = "code on a connection that is given back")
    public static class BridgedCodeRacesTheEnd {
        private final Bridges bridges = new Bridges();
        private final BridgedCode code =
                new BridgedCode(ProbeConnectionFactory.of().newConnection(), Context.empty());

        @Actor
        public void enter(ZZ_Result result) {
            result.r1 = bridges.enter(code);
        }

        @Actor
        public void end(ZZ_Result result) {
            result.r2 = bridges.sealIfIdle();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "true, true", expect = Expect.ACCEPTABLE, desc = "the last code ends, and the scope's end is told")
    @Outcome(expect = Expect.FORBIDDEN, desc = "an end that waits for ever")
    public static class EndOfBridgedCodeRacesTheEnd {
        private final Bridges bridges = new Bridges();
        private final BridgedCode code =
                new BridgedCode(ProbeConnectionFactory.of().newConnection(), Context.empty());
        private volatile boolean told;

        public EndOfBridgedCodeRacesTheEnd() {
            bridges.enter(code);
        }

        @Actor
        public void leave(ZZ_Result result) {
            result.r1 = bridges.leave(code);
        }

        @Actor
        public void end() {
            if (bridges.sealIfIdle()) {
                told = true;
            } else {
                bridges.ended().subscribe(null, null, () -> told = true);
            }
        }

        @Arbiter
        public void see(ZZ_Result result) {
            result.r2 = told;
        }
    }
}
