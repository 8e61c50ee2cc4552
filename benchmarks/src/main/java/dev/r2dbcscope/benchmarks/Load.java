package dev.r2dbcscope.benchmarks;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.HdrHistogram.AbstractHistogram;
import org.HdrHistogram.ConcurrentHistogram;

/** The calls that one measurement makes, and how long each of them took. */
final class Load {

    private static final long LONGEST_NANOS = TimeUnit.MINUTES.toNanos(2);

    private final AbstractHistogram latencies = new ConcurrentHistogram(1_000, LONGEST_NANOS, 3);
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final CountDownLatch parties;
    private final long start = System.nanoTime();
    private long end;

    /** Lasts until so many parties have left. */
    Load(int parties) {
        this.parties = new CountDownLatch(parties);
    }

    /** A call has ended. Every call gives a value, so one without a value or an error has failed, too. */
    void ended(long begunNanos, Object value, Throwable error) {
        if (error != null) {
            fail(error);
        } else if (value == null) {
            fail(new IllegalStateException("A call gave no value"));
        } else {
            latencies.recordValue(Math.min(System.nanoTime() - begunNanos, LONGEST_NANOS));
        }
    }

    void fail(Throwable error) {
        failure.compareAndSet(null, error);
    }

    boolean hasFailed() {
        return failure.get() != null;
    }

    void leave() {
        parties.countDown();
    }

    /** Waits for the end of all calls, and throws if one has failed. */
    Load await() throws Exception {
        boolean over = parties.await(Server.LONG.toSeconds(), TimeUnit.SECONDS);
        end = System.nanoTime();
        if (hasFailed()) {
            throw new IllegalStateException("A call has failed", failure.get());
        }
        if (!over) {
            throw new IllegalStateException(parties.getCount() + " parties have not come to an end");
        }
        return this;
    }

    double callsPerSecond() {
        return latencies.getTotalCount() * 1e9 / (end - start);
    }

    double millis(double percentile) {
        return latencies.getValueAtPercentile(percentile) / 1e6;
    }
}
