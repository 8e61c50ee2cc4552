package dev.r2dbcscope;

import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * When and how often a transaction is tried again. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * <p>Tried again is what the database rolled back for a reason that may be gone the next time: serialization failures and
 * deadlocks, which are the SQLSTATEs of class 40. They are recognized in the error with which the transaction ended and in
 * its causes, so that errors that a library has translated count as well; behind a {@link ScopeRolledBackException}, when
 * a scope that had joined the transaction met them; and behind a COMMIT that was answered with ROLLBACK, when the
 * pipeline had swallowed them.
 *
 * <p>Never tried again is what may have been committed: a {@link CommitOutcomeUnknownException}, and SQLSTATE 40003
 * (statement completion unknown). Nor is any other {@link ScopeException}.
 *
 * <p>Each attempt subscribes to the pipeline anew, on a fresh transaction, which begins when the exit of the attempt before
 * and a wait are over; nothing is held meanwhile. So the pipeline runs several times: what it does besides, outside the
 * database or in transactions of its own, must bear that. A cancel ends the wait, and during an
 * attempt makes it the last one, under {@link OnCancel#COMPLETE} too. The last error is passed on as
 * it is; when the retries are used up, it has a {@link ScopeRolledBackException} suppressed under it that says so.
 *
 * @see TransactionOptions#withRetry(RetryPolicy)
 */
public final class RetryPolicy {

    private final int maxRetries;
    private final Duration firstBackoff;
    private final Duration maxBackoff;
    private final double jitter;
    private final Predicate<? super Throwable> also;

    private RetryPolicy(
            int maxRetries,
            Duration firstBackoff,
            Duration maxBackoff,
            double jitter,
            Predicate<? super Throwable> also) {
        this.maxRetries = maxRetries;
        this.firstBackoff = firstBackoff;
        this.maxBackoff = maxBackoff;
        this.jitter = jitter;
        this.also = also;
    }

    /**
     * Retries serialization failures and deadlocks, with a wait that begins at 10 milliseconds, doubles each time up to a
     * second, and is up to half shorter at random.
     *
     * @param maxRetries how many attempts may follow the first one, positive
     * @return the policy
     * @throws IllegalArgumentException if it is zero or negative
     */
    public static RetryPolicy serialization(int maxRetries) {
        return new RetryPolicy(
                ScopeOptions.positive(maxRetries, "maxRetries"),
                Duration.ofMillis(10),
                Duration.ofSeconds(1),
                0.5,
                error -> false);
    }

    /**
     * Sets the wait before an attempt, which doubles each time.
     *
     * @param first the wait before the first retry, positive
     * @param max the longest wait, not shorter than the first
     * @return a copy with these waits
     * @throws IllegalArgumentException if a value is out of range
     */
    public RetryPolicy withBackoff(Duration first, Duration max) {
        Duration shortest = ScopeOptions.positive(first, "first");
        Duration longest = ScopeOptions.positive(max, "max");
        if (longest.compareTo(shortest) < 0) {
            throw new IllegalArgumentException("max must not be shorter than first: " + max);
        }
        return new RetryPolicy(maxRetries, shortest, longest, jitter, also);
    }

    /**
     * Sets how much of each wait is random, so that transactions that were in each other's way do not meet again. A wait
     * is drawn uniformly from {@code backoff * (1 - jitter)} to {@code backoff}.
     *
     * @param jitter the random part, from 0.0 (always the full wait) to 1.0 (any wait up to it); 0.5 by default
     * @return a copy with that jitter
     * @throws IllegalArgumentException if it is out of range
     * @see <a href="https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/">Exponential Backoff And
     *     Jitter</a>, where 1.0 is called "full jitter" and 0.5 "equal jitter"
     */
    public RetryPolicy withJitter(double jitter) {
        if (!(jitter >= 0 && jitter <= 1)) {
            throw new IllegalArgumentException("jitter must be from 0.0 to 1.0: " + jitter);
        }
        return new RetryPolicy(maxRetries, firstBackoff, maxBackoff, jitter, also);
    }

    /**
     * Retries other errors as well, such as a lock that was not available in time. The predicate gets the error with which
     * the transaction ended, or the one behind it as the class describes; it is not asked about errors that are never
     * retried. Several predicates add up.
     *
     * @param predicate says whether to retry
     * @return a copy that retries these, too
     */
    public RetryPolicy alsoOn(Predicate<? super Throwable> predicate) {
        Objects.requireNonNull(predicate, "predicate");
        Predicate<? super Throwable> before = also;
        return new RetryPolicy(
                maxRetries, firstBackoff, maxBackoff, jitter, error -> before.test(error) || predicate.test(error));
    }

    /**
     * Returns how many attempts may follow the first one.
     *
     * @return the number of retries
     */
    public int maxRetries() {
        return maxRetries;
    }

    /** Whether a transaction that ended with this error was rolled back and may be tried again. */
    boolean retries(Throwable error) {
        Throwable reason = error;
        for (int i = 0; i < AbortReason.LONGEST_CHAIN && reason instanceof ScopeRolledBackException; i++) {
            Throwable cause = reason.getCause();
            if (cause == null) {
                return false;
            }
            reason = cause;
        }
        boolean rolledBack = false;
        Throwable link = reason;
        for (int i = 0; i < AbortReason.LONGEST_CHAIN && link != null; i++) {
            if (isFinal(link)) {
                return false;
            }
            rolledBack |= isOfClass40(link);
            link = link.getCause();
        }
        return rolledBack || also.test(reason);
    }

    private static boolean isFinal(Throwable error) {
        return error instanceof ScopeException && !(error instanceof ScopeRolledBackException)
                || Commit.COMPLETION_UNKNOWN.equals(sqlState(error));
    }

    private static boolean isOfClass40(Throwable error) {
        String sqlState = sqlState(error);
        return sqlState != null && sqlState.startsWith("40");
    }

    private static @Nullable String sqlState(Throwable error) {
        return error instanceof R2dbcException known ? known.getSqlState() : null;
    }

    /** The wait before a retry, which are counted from 1. */
    Duration backoff(int retry) {
        long first = firstBackoff.toNanos();
        long max = maxBackoff.toNanos();
        int doublings = Math.min(retry - 1, Long.SIZE - 2);
        long full = first > max >> doublings ? max : first << doublings;
        return Duration.ofNanos(
                full - (long) (full * jitter * ThreadLocalRandom.current().nextDouble()));
    }

    @Override
    public String toString() {
        return "RetryPolicy[maxRetries=" + maxRetries + ", firstBackoff=" + firstBackoff + ", maxBackoff=" + maxBackoff
                + ", jitter=" + jitter + "]";
    }
}
