package dev.r2dbcscope.etl;

import io.r2dbc.spi.R2dbcException;
import org.jspecify.annotations.Nullable;

/**
 * A chunk could not be written, and its transaction was rolled back, unless the cause is a {@link
 * dev.r2dbcscope.CommitOutcomeUnknownException}. The cause says why; row numbers in it are counted within the chunk.
 *
 * <p>The message names the chunk and its rows by their numbers. The positions, which are values of the source's key, and the
 * database's own message, which may quote values, are not in it.
 */
public final class ChunkFailedException extends R2dbcException {

    private static final long serialVersionUID = 1L;

    private static final String OURS = "dev.r2dbcscope.";

    /** Of the first row. */
    private final long firstRow;

    /** Of the last row. */
    private final long lastRow;

    /** Of the first row. */
    private final @Nullable String firstPosition;

    /** Of the last row. */
    private final @Nullable String lastPosition;

    /** How often it was tried. */
    private final int attempts;

    private ChunkFailedException(String message, Chunk<?> chunk, int attempts, Throwable cause) {
        super(message, sqlState(cause), errorCode(cause), null, cause);
        this.firstRow = chunk.firstRow();
        this.lastRow = chunk.lastRow();
        this.firstPosition = chunk.firstPosition();
        this.lastPosition = chunk.lastPosition();
        this.attempts = attempts;
    }

    static ChunkFailedException of(Chunk<?> chunk, int attempts, Throwable cause) {
        String tries = attempts == 1 ? "" : " in " + attempts + " attempts";
        return new ChunkFailedException(
                chunk.which() + ", could not be written" + tries + ": " + why(cause), chunk, attempts, cause);
    }

    private static String why(Throwable cause) {
        if (cause instanceof R2dbcException && !cause.getClass().getName().startsWith(OURS)) {
            String state = sqlState(cause);
            return cause.getClass().getSimpleName() + (state == null ? "" : ", SQLSTATE " + state) + "; see the cause";
        }
        return cause.getMessage() == null ? cause.toString() : cause.getMessage();
    }

    private static @Nullable String sqlState(Throwable cause) {
        return cause instanceof R2dbcException known ? known.getSqlState() : null;
    }

    private static int errorCode(Throwable cause) {
        return cause instanceof R2dbcException known ? known.getErrorCode() : 0;
    }

    /**
     * Returns where the chunk begins.
     *
     * @return the number of its first row in the source, from 1
     */
    public long firstRow() {
        return firstRow;
    }

    /**
     * Returns where the chunk ends.
     *
     * @return the number of its last row in the source
     */
    public long lastRow() {
        return lastRow;
    }

    /**
     * Returns where the chunk begins.
     *
     * @return the position of its first row, or {@code null} if the source has none
     */
    public @Nullable String firstPosition() {
        return firstPosition;
    }

    /**
     * Returns where the chunk ends.
     *
     * @return the position of its last row, or {@code null} if the source has none
     */
    public @Nullable String lastPosition() {
        return lastPosition;
    }

    /**
     * Returns how often it was tried.
     *
     * @return the number of attempts
     */
    public int attempts() {
        return attempts;
    }
}
