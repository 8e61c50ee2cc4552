package dev.r2dbcscope;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * How long the database of a connection factory takes to answer BEGIN at least, which is a round trip, and whether it takes a
 * statement behind it.
 *
 * <p>The shortest of the last ones counts: those that took longer had to wait for a thread, here or there, by which nothing
 * can be gained.
 */
final class RoundTrips {

    /** After so many the shortest of them is what counts, so that a network that became slower is noticed. */
    private static final int WINDOW = 64;

    /** So many are needed at first: what an application does for the first time takes longer than the network. */
    private static final int FIRST = 16;

    private static final long UNKNOWN = Long.MAX_VALUE;

    private final AtomicInteger count = new AtomicInteger();
    private final AtomicLong shortestNow = new AtomicLong(UNKNOWN);
    private volatile long shortest = UNKNOWN;
    private volatile @Nullable Boolean available;

    /** Takes notice of the time in which BEGIN was answered. */
    void note(long nanos) {
        long now = shortestNow.accumulateAndGet(nanos, Math::min);
        int noted = count.incrementAndGet();
        if (noted % WINDOW == 0) {
            shortest = shortestNow.getAndSet(UNKNOWN);
        } else if (noted == FIRST || now < shortest && shortest != UNKNOWN) {
            shortest = now;
        }
    }

    /** Whether they take at least that long, as far as that is known. */
    boolean areAtLeast(Duration bound) {
        long known = shortest;
        return bound.isZero() || known != UNKNOWN && Duration.ofNanos(known).compareTo(bound) >= 0;
    }

    /** Whether the database takes a statement behind BEGIN; {@code null} if it was not asked yet. */
    @Nullable
    Boolean arePipelined() {
        return available;
    }

    void arePipelined(boolean whether) {
        available = whether;
    }
}
