package dev.r2dbcscope.jcstress;

import java.util.concurrent.atomic.AtomicInteger;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.ZZ_Result;

/** Of two signals that race for one state word, exactly one wins. To be replaced by the races of the engine. */
@JCStressTest
@State
@Outcome(id = "true, false", expect = Expect.ACCEPTABLE, desc = "the first actor won")
@Outcome(id = "false, true", expect = Expect.ACCEPTABLE, desc = "the second actor won")
@Outcome(expect = Expect.FORBIDDEN, desc = "no winner, or two")
public class CasWinnerStress {

    private final AtomicInteger state = new AtomicInteger();

    @Actor
    public void first(ZZ_Result result) {
        result.r1 = state.compareAndSet(0, 1);
    }

    @Actor
    public void second(ZZ_Result result) {
        result.r2 = state.compareAndSet(0, 2);
    }
}
