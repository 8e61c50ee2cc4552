package dev.r2dbcscope.etl;

import java.time.Duration;
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;

/**
 * When a chunk is full.
 *
 * @param maxRows how many rows it has at most
 * @param maxBytes at how many bytes it ends, if they are counted
 * @param bytes counts those of a row
 * @param maxWait how long after its first row it ends, if it is wanted then
 * @param prefetch how many rows the source may be ahead
 */
record ChunkBounds<T>(
        int maxRows,
        long maxBytes,
        @Nullable ToLongFunction<? super T> bytes,
        @Nullable Duration maxWait,
        int prefetch) {

    static final int DEFAULT_ROWS = 10_000;
    static final int DEFAULT_PREFETCH = 256;

    /** Of which it is not known how large they are. */
    private static final int FIRST_ROWS = 16;

    static <T> ChunkBounds<T> defaults() {
        return new ChunkBounds<>(DEFAULT_ROWS, Long.MAX_VALUE, null, null, DEFAULT_PREFETCH);
    }

    ChunkBounds<T> withMaxRows(int maxRows) {
        return new ChunkBounds<>(positive(maxRows, "maxRows"), maxBytes, bytes, maxWait, prefetch);
    }

    ChunkBounds<T> withMaxBytes(long maxBytes, ToLongFunction<? super T> bytes) {
        if (maxBytes <= 0) {
            throw new IllegalArgumentException("maxBytes must be positive: " + maxBytes);
        }
        return new ChunkBounds<>(maxRows, maxBytes, bytes, maxWait, prefetch);
    }

    ChunkBounds<T> withMaxWait(Duration maxWait) {
        if (maxWait.isZero() || maxWait.isNegative()) {
            throw new IllegalArgumentException("maxWait must be positive: " + maxWait);
        }
        return new ChunkBounds<>(maxRows, maxBytes, bytes, maxWait, prefetch);
    }

    ChunkBounds<T> withPrefetch(int prefetch) {
        return new ChunkBounds<>(maxRows, maxBytes, bytes, maxWait, positive(prefetch, "prefetch"));
    }

    /** The same for rows of another type, if their bytes are not counted. */
    <R> ChunkBounds<R> of() {
        return new ChunkBounds<>(maxRows, Long.MAX_VALUE, null, maxWait, prefetch);
    }

    static int positive(int value, String name) {
        if (value <= 0) {
            throw new IllegalArgumentException(name + " must be positive: " + value);
        }
        return value;
    }

    /** How many rows of the size of those before may wait. */
    int ahead(long rowsBefore, long bytesBefore) {
        if (bytes == null) {
            return prefetch;
        }
        if (rowsBefore == 0) {
            return Math.min(prefetch, FIRST_ROWS);
        }
        long fit = maxBytes / Math.max(1, bytesBefore / rowsBefore);
        return (int) Math.max(1, Math.min(prefetch, fit));
    }
}
