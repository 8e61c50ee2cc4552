package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.IJ_Result;
import org.openjdk.jcstress.infra.results.I_Result;
import org.openjdk.jcstress.infra.results.J_Result;
import org.reactivestreams.Subscription;

/** Demand and cancellation of a subscription that arrives late. */
public class LateSubscriptionStress {

    /** Counts what it is told. */
    private static final class Source implements Subscription {
        private final AtomicLong requested = new AtomicLong();
        private final AtomicInteger cancels = new AtomicInteger();

        @Override
        public void request(long n) {
            requested.addAndGet(n);
        }

        @Override
        public void cancel() {
            cancels.incrementAndGet();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "5", expect = Expect.ACCEPTABLE, desc = "all demand reached the source")
    @Outcome(expect = Expect.FORBIDDEN, desc = "demand was lost or doubled")
    public static class ArriveRacesRequests {
        private final LateSubscription subscription = new LateSubscription();
        private final Source source = new Source();

        @Actor
        public void arrive() {
            subscription.arrive(source);
        }

        @Actor
        public void request() {
            subscription.request(2);
        }

        @Actor
        public void requestToo() {
            subscription.request(3);
        }

        @Arbiter
        public void see(J_Result result) {
            result.r1 = source.requested.get();
        }
    }

    @JCStressTest
    @State
    @Outcome(
            id = {"1, 0", "1, 2"},
            expect = Expect.ACCEPTABLE,
            desc = "cancelled once")
    @Outcome(expect = Expect.FORBIDDEN, desc = "not cancelled, or twice")
    public static class ArriveRacesCancelAndRequest {
        private final LateSubscription subscription = new LateSubscription();
        private final Source source = new Source();

        @Actor
        public void arrive() {
            subscription.arrive(source);
        }

        @Actor
        public void cancel() {
            subscription.cancel();
        }

        @Actor
        public void request() {
            subscription.request(2);
        }

        @Arbiter
        public void see(IJ_Result result) {
            result.r1 = source.cancels.get();
            result.r2 = source.requested.get();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1", expect = Expect.ACCEPTABLE, desc = "cancelled once")
    @Outcome(expect = Expect.FORBIDDEN, desc = "not cancelled, or twice")
    public static class TwoCancelsRaceArrive {
        private final LateSubscription subscription = new LateSubscription();
        private final Source source = new Source();

        @Actor
        public void arrive() {
            subscription.arrive(source);
        }

        @Actor
        public void cancel() {
            subscription.cancel();
        }

        @Actor
        public void cancelToo() {
            subscription.cancel();
        }

        @Arbiter
        public void see(I_Result result) {
            result.r1 = source.cancels.get();
        }
    }
}
