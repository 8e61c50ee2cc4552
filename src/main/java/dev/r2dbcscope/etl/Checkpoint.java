package dev.r2dbcscope.etl;

import java.time.Instant;
import org.jspecify.annotations.Nullable;

/**
 * How far a job has got in one of its partitions.
 *
 * @param partition from 0
 * @param position of the last row that was committed, or {@code null} if there is none
 * @param rows how many rows of the source were committed
 * @param chunks how many chunks they were
 * @param finished whether the source has no more
 * @param changedAt when this was last changed, by the database's clock
 */
public record Checkpoint(
        int partition, @Nullable String position, long rows, long chunks, boolean finished, Instant changedAt) {}
