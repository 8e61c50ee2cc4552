package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicInteger;

/** Counts the rows of one scope that were read ahead of their subscribers, and says when there are too many. */
final class RowBudget {

    private final AtomicInteger used = new AtomicInteger();
    private final int limit;

    RowBudget(int limit) {
        this.limit = limit;
    }

    /** Takes one row; says whether it is within the limit. The row counts in any case until it is {@link #free freed}. */
    boolean take() {
        return used.incrementAndGet() <= limit;
    }

    void free(int rows) {
        used.addAndGet(-rows);
    }

    int used() {
        return used.get();
    }
}
