package dev.r2dbcscope.benchmarks;

import java.time.Duration;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;

/**
 * Calls that arrive at a fixed rate, whether or not earlier ones have ended. The latency of a call counts from the time at which
 * it was due, even if it could only begin later, so a stall is charged to all calls that it has held up (no coordinated
 * omission). All calls begin on one thread.
 */
final class OpenLoop {

    private final Supplier<? extends CompletionStage<?>> call;

    OpenLoop(Supplier<? extends CompletionStage<?>> call) {
        this.call = call;
    }

    Load run(int callsPerSecond, Duration duration) throws Exception {
        int calls = Math.toIntExact(callsPerSecond * duration.toMillis() / 1_000);
        Load load = new Load(calls);
        long start = System.nanoTime();
        for (int i = 0; i < calls; i++) {
            begin(load, start + i * 1_000_000_000L / callsPerSecond);
        }
        return load.await();
    }

    private void begin(Load load, long due) {
        for (long wait = due - System.nanoTime(); wait > 0; wait = due - System.nanoTime()) {
            LockSupport.parkNanos(wait);
        }
        try {
            call.get().whenComplete((value, error) -> {
                load.ended(due, value, error);
                load.leave();
            });
        } catch (RuntimeException e) {
            load.fail(e);
            load.leave();
        }
    }
}
