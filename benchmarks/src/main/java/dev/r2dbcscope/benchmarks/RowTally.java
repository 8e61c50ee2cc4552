package dev.r2dbcscope.benchmarks;

import java.time.Instant;

/** What a reader reports its rows to: counts them, adds up their ids, and knows when the first one came. Not for two threads at once. */
final class RowTally {

    private final long start = System.nanoTime();
    private final int expected;
    private final HeapInUse heap;
    private final int interval;

    private long first;
    private long rows;
    private long ids;

    /** Keeps the other columns from being of no use to anybody. */
    private long rest;

    private RowTally(int expected, HeapInUse heap) {
        this.expected = expected;
        this.heap = heap;
        this.interval = Math.max(1, expected / 10);
    }

    static RowTally of(int expected) {
        return new RowTally(expected, null);
    }

    /** Samples the heap at the first row and ten times more. */
    static RowTally sampling(int expected, HeapInUse heap) {
        return new RowTally(expected, heap);
    }

    void row(Order order) {
        row(order.id(), order.quantity(), order.note(), order.created(), order.price());
    }

    void row(long id, int quantity, String note, Instant created, double price) {
        row(id, quantity + note.length() + created.getEpochSecond() + (long) price);
    }

    void row(long id, long othersDecoded) {
        if (rows++ == 0) {
            first = System.nanoTime();
        }
        ids += id;
        rest ^= othersDecoded;
        if (heap != null && (rows == 1 || rows % interval == 0)) {
            heap.sample();
        }
    }

    double millisToFirst() {
        return (first - start) / 1e6;
    }

    double perSecond() {
        return rows * 1e9 / (System.nanoTime() - start);
    }

    /** Every row was there, once. */
    void check(String side) {
        long sum = (long) expected * (expected + 1) / 2;
        if (rows != expected || ids != sum || rest == Long.MIN_VALUE) {
            throw new IllegalStateException(side + " read " + rows + " rows with ids of " + ids + " altogether, not "
                    + expected + " with " + sum);
        }
    }
}
