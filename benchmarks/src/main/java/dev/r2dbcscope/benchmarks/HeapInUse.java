package dev.r2dbcscope.benchmarks;

import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryType;

/**
 * How much of the heap is in use: the most that a garbage collection has left. Each sample collects first, so it is what is
 * really kept; what is outside the heap, such as Netty's buffers, is not in it. A read that is sampled is not timed.
 */
final class HeapInUse {

    private long most;

    void sample() {
        System.gc();
        most = Math.max(
                most,
                ManagementFactory.getMemoryPoolMXBeans().stream()
                        .filter(pool -> pool.getType() == MemoryType.HEAP && pool.getCollectionUsage() != null)
                        .mapToLong(HeapInUse::left)
                        .sum());
    }

    private static long left(MemoryPoolMXBean pool) {
        return pool.getCollectionUsage().getUsed();
    }

    double megabytes() {
        return most / 1e6;
    }
}
