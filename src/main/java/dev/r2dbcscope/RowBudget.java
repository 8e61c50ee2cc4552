package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicInteger;

/** Counts the rows of one scope that were read ahead of their subscribers, and says when there are too many. */
final class RowBudget {

    private final AtomicInteger used = new AtomicInteger();
    private final int limit;

    RowBudget(int limit) {
        this.limit = limit;
    }

    /** Takes one row, whether or not that is within the limit. */
    void take() {
        used.incrementAndGet();
    }

    boolean isExceeded() {
        return used.get() > limit;
    }

    void free(int rows) {
        used.addAndGet(-rows);
    }

    int used() {
        return used.get();
    }
}
