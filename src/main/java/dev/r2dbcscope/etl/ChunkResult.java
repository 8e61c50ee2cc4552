package dev.r2dbcscope.etl;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/**
 * A chunk that was committed.
 *
 * @param partition the partition of a job it belongs to, from 0; 0 if there are none
 * @param number its number in its partition, from 1; a job goes on counting when it is resumed
 * @param rows how many rows it has
 * @param written how many the sink says it wrote, which may be fewer or more: rows that were there already, triggers
 * @param rejected how many the database did not accept, which are with {@link Rejects}
 * @param firstRow the number of its first row in the source, from 1
 * @param lastRow the number of its last row in the source
 * @param firstPosition the position of its first row, or {@code null} if the source has none
 * @param lastPosition the position of its last row, or {@code null} if the source has none
 * @param attempts how often it was tried, the last time with success
 * @param duration from its first attempt until it was committed
 */
public record ChunkResult(
        int partition,
        long number,
        long rows,
        long written,
        long rejected,
        long firstRow,
        long lastRow,
        @Nullable String firstPosition,
        @Nullable String lastPosition,
        int attempts,
        Duration duration) {}
