package dev.r2dbcscope.testkit;

import java.time.Duration;
import java.util.concurrent.TimeUnit;

/**
 * How fast one direction of a network is.
 *
 * @param latency how much later what is sent arrives, in nanoseconds
 * @param bytesPerSecond how much of it in a second, or zero for as much as there is
 */
record NetworkShape(long latency, long bytesPerSecond) {

    static final NetworkShape NONE = new NetworkShape(0, 0);

    private static final long PORTIONS_PER_SECOND = 100;

    NetworkShape withLatency(Duration value) {
        if (value.isNegative()) {
            throw new IllegalArgumentException("latency must not be negative: " + value);
        }
        return new NetworkShape(value.toNanos(), bytesPerSecond);
    }

    NetworkShape withBytesPerSecond(long value) {
        if (value < 0) {
            throw new IllegalArgumentException("bytesPerSecond must not be negative: " + value);
        }
        return new NetworkShape(latency, value);
    }

    /** How many of so many bytes are sent at once. */
    int portion(int length) {
        return bytesPerSecond == 0 ? length : (int) Math.min(length, Math.max(1, bytesPerSecond / PORTIONS_PER_SECOND));
    }

    /** How long it takes to send so many bytes. */
    long nanosFor(int length) {
        return bytesPerSecond == 0 ? 0 : length * TimeUnit.SECONDS.toNanos(1) / bytesPerSecond;
    }
}
