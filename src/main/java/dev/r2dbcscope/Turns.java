package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * Keeps an ending that comes from another thread apart from the elements that are being delivered: either nothing is, and the
 * ending goes first, or whoever delivers passes the ending on afterwards.
 */
final class Turns {

    private static final int CLOSED = Integer.MIN_VALUE;

    /** How many deliveries there are, within each other; from {@link #CLOSED} on after the end. */
    private final AtomicInteger deliveries = new AtomicInteger();

    /** An element is about to be delivered; says whether it may be. */
    boolean begin() {
        while (true) {
            int now = deliveries.get();
            if (now < 0) {
                return false;
            }
            if (deliveries.compareAndSet(now, now + 1)) {
                return true;
            }
        }
    }

    /** It was delivered; says whether the ending waits for that. */
    boolean end() {
        return deliveries.decrementAndGet() == CLOSED;
    }

    /** Nothing may be delivered any more; says whether nothing is, so that the ending may go first. Called once. */
    boolean close() {
        return deliveries.getAndAdd(CLOSED) == 0;
    }
}
