package dev.r2dbcscope.etl;

import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.Objects;
import java.util.function.BiFunction;
import java.util.function.Function;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * What becomes of rows that the database does not accept, so that the rest of their chunk can be committed. Immutable and
 * thread-safe: every {@code with} method returns a copy.
 *
 * <p>Rejected is a row with an error of SQLSTATE class 22 (data), 23 (constraints), 44 (a view's check option), P0 (what triggers
 * raise) or 21 (rows of one upsert that meet), and one that cannot be sent at all. Deferred constraints, which fail at the COMMIT,
 * fail their chunk.
 *
 * @param <T> the type of the rows
 * @see ChunkWriter#withRejects
 */
public final class Rejects<T> {

    /** Of fewer rows a share says nothing. */
    private static final long ROWS_OF_A_SHARE = 1_000;

    private final BiFunction<? super Connection, ? super List<Reject<T>>, ? extends Publisher<?>> inTransaction;
    private final Function<? super List<Reject<T>>, ? extends Publisher<?>> afterCommit;
    private final long limit;
    private final double share;

    private Rejects(
            BiFunction<? super Connection, ? super List<Reject<T>>, ? extends Publisher<?>> inTransaction,
            Function<? super List<Reject<T>>, ? extends Publisher<?>> afterCommit,
            long limit,
            double share) {
        this.inTransaction = inTransaction;
        this.afterCommit = afterCommit;
        this.limit = limit;
        this.share = share;
    }

    /**
     * Writes rejected rows in the transaction of their chunk, such as into a table: each of them exactly once, as the others.
     *
     * @param deadLetters writes some, at least one, with the chunk's connection
     * @param <T> the type of the rows
     * @return rejects without a limit
     */
    public static <T> Rejects<T> inTransaction(
            BiFunction<? super Connection, ? super List<Reject<T>>, ? extends Publisher<?>> deadLetters) {
        return new Rejects<>(
                Objects.requireNonNull(deadLetters, "deadLetters"), rejects -> Mono.empty(), Long.MAX_VALUE, 1);
    }

    /**
     * Hands rejected rows over after their chunk's COMMIT and before its result is emitted, such as to a file. If the process ends
     * in between, or this fails, they are lost.
     *
     * @param deadLetters takes some, at least one
     * @param <T> the type of the rows
     * @return rejects without a limit
     */
    public static <T> Rejects<T> afterCommit(Function<? super List<Reject<T>>, ? extends Publisher<?>> deadLetters) {
        return new Rejects<>(
                (connection, rejects) -> Mono.empty(),
                Objects.requireNonNull(deadLetters, "deadLetters"),
                Long.MAX_VALUE,
                1);
    }

    /**
     * Bounds how many rows may be rejected; with the next one, the chunk fails with {@link TooManyRejectsException}.
     *
     * @param limit not negative, counted from the beginning of the run; unlimited by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is negative
     */
    public Rejects<T> withLimit(long limit) {
        if (limit < 0) {
            throw new IllegalArgumentException("limit must not be negative: " + limit);
        }
        return new Rejects<>(inTransaction, afterCommit, limit, share);
    }

    /**
     * Bounds the share of the rows that may be rejected, looked at after each chunk from the thousandth row on.
     *
     * @param share from 0.0 to 1.0, of the rows from the beginning of the run; 1.0 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is out of range
     */
    public Rejects<T> withShare(double share) {
        if (!(share >= 0 && share <= 1)) {
            throw new IllegalArgumentException("share must be from 0.0 to 1.0: " + share);
        }
        return new Rejects<>(inTransaction, afterCommit, limit, share);
    }

    Mono<Void> write(Connection connection, List<Reject<T>> rejects) {
        return rejects.isEmpty()
                ? Mono.empty()
                : Flux.from(inTransaction.apply(connection, rejects)).then();
    }

    Mono<Void> committed(List<Reject<T>> rejects) {
        return rejects.isEmpty()
                ? Mono.empty()
                : Flux.from(afterCommit.apply(rejects)).then();
    }

    /** Fails if there are too many. */
    void check(long rejected, long rows, Reject<T> last) {
        if (rejected > limit) {
            throw new TooManyRejectsException(rejected, rows, "Rejects.withLimit(" + limit + ")", last);
        }
        if (rows >= ROWS_OF_A_SHARE && rejected > share * rows) {
            throw new TooManyRejectsException(rejected, rows, "Rejects.withShare(" + share + ")", last);
        }
    }
}
