package dev.r2dbcscope.etl;

import io.r2dbc.spi.R2dbcNonTransientException;
import org.jspecify.annotations.Nullable;

/**
 * The checkpoints of a job cannot be used: their table is not there or of another version of this library, or they are those of
 * a job with another number of partitions. The message says what to do.
 */
public final class CheckpointException extends R2dbcNonTransientException {

    private static final long serialVersionUID = 1L;

    CheckpointException(String problem, @Nullable Throwable cause) {
        super(problem, cause);
    }
}
