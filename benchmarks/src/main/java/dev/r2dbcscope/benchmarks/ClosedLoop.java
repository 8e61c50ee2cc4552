package dev.r2dbcscope.benchmarks;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;

/** Callers of which each begins its next call as soon as its last one has ended. */
interface ClosedLoop {

    /** Goes on while there is more to do, which each caller asks before each of its calls. */
    Load run(int callers, BooleanSupplier more) throws Exception;

    /** So many calls, of all callers together. */
    static BooleanSupplier times(int calls) {
        AtomicInteger left = new AtomicInteger(calls);
        return () -> left.getAndDecrement() > 0;
    }

    /** As many calls as begin in a duration from now on. */
    static BooleanSupplier during(Duration duration) {
        long end = System.nanoTime() + duration.toNanos();
        return () -> System.nanoTime() < end;
    }
}
