package dev.r2dbcscope.etl;

import java.time.Duration;
import java.util.function.Predicate;
import reactor.util.retry.Retry;
import reactor.util.retry.RetryBackoffSpec;

/**
 * How often something is tried again, and after which wait.
 *
 * @param max how many attempts may follow the first one
 * @param first the wait before the first of them, which doubles each time
 * @param longest the longest wait
 */
record Backoff(int max, Duration first, Duration longest) {

    /** 0.1 + 0.2 + 0.4 + ... s, some 33 s in all: a server that restarts is back by then. */
    static final Backoff DEFAULT = new Backoff(11, Duration.ofMillis(100), Duration.ofSeconds(5));

    Backoff {
        if (max < 0) {
            throw new IllegalArgumentException("max must not be negative: " + max);
        }
        if (first.isNegative() || first.isZero() || longest.compareTo(first) < 0) {
            throw new IllegalArgumentException(
                    "first must be positive and not longer than longest: " + first + ", " + longest);
        }
    }

    /** Passes the last error on as it is. */
    RetryBackoffSpec on(Predicate<? super Throwable> errors) {
        return Retry.backoff(max, first)
                .maxBackoff(longest)
                .filter(errors)
                .onRetryExhaustedThrow((spec, signal) -> signal.failure());
    }
}
