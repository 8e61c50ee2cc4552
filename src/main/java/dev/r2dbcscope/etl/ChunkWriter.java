package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeClosedException;
import java.time.Duration;
import java.util.Objects;
import java.util.function.Predicate;
import java.util.function.ToLongFunction;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Writes a {@code Publisher} chunk by chunk, each of them one transaction. Immutable and thread-safe: every {@code with} method
 * returns a copy.
 *
 * <pre>{@code
 * Flux<ChunkResult> written = ChunkWriter.to(ChunkSink.of(copy))
 *         .withMaxRows(5_000)
 *         .withMaxWait(Duration.ofSeconds(1))
 *         .write(scopes, orders);
 * }</pre>
 *
 * <p>A chunk ends after {@link #withMaxRows}, {@link #withMaxBytes} or {@link #withMaxWait}, whichever comes first. It is
 * collected while the one before is being written, without a connection; so a source that reads with another connection of the
 * same pool does not keep the writer from getting one, as long as the pool has two.
 *
 * @param <T> the type of the rows
 * @see EtlJob for a job that goes on where it was after a crash
 */
public final class ChunkWriter<T> {

    private final ChunkSink<T> sink;
    private final ChunkBounds<T> bounds;
    private final int concurrency;
    private final boolean ordered;
    private final Backoff retries;
    private final @Nullable Rejects<T> rejects;

    private ChunkWriter(
            ChunkSink<T> sink,
            ChunkBounds<T> bounds,
            int concurrency,
            boolean ordered,
            Backoff retries,
            @Nullable Rejects<T> rejects) {
        this.sink = sink;
        this.bounds = bounds;
        this.concurrency = concurrency;
        this.ordered = ordered;
        this.retries = retries;
        this.rejects = rejects;
    }

    /**
     * Writes chunks into a sink.
     *
     * @param sink writes one
     * @param <T> the type of the rows
     * @return a writer of 10,000 rows a chunk, one at a time
     */
    public static <T> ChunkWriter<T> to(ChunkSink<T> sink) {
        return new ChunkWriter<>(
                Objects.requireNonNull(sink, "sink"), ChunkBounds.defaults(), 1, true, Backoff.DEFAULT, null);
    }

    /**
     * Bounds the rows of a chunk.
     *
     * @param maxRows positive; 10,000 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ChunkWriter<T> withMaxRows(int maxRows) {
        return with(bounds.withMaxRows(maxRows));
    }

    /**
     * Ends a chunk with the row that reaches a number of bytes. It also bounds how many rows of their size wait for the next
     * chunk.
     *
     * @param maxBytes positive; by default they are not counted
     * @param bytes counts those of a row, in whatever way they are to be bounded
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ChunkWriter<T> withMaxBytes(long maxBytes, ToLongFunction<? super T> bytes) {
        return with(bounds.withMaxBytes(maxBytes, Objects.requireNonNull(bytes, "bytes")));
    }

    /**
     * Ends a chunk that long after its first row, so that what a slow source has emitted is committed soon. While the chunks
     * before it are still being written it goes on growing to its other bounds.
     *
     * @param maxWait positive; by default a chunk waits until it is full or the source completes
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ChunkWriter<T> withMaxWait(Duration maxWait) {
        return with(bounds.withMaxWait(Objects.requireNonNull(maxWait, "maxWait")));
    }

    /**
     * Bounds how many rows the source may be ahead of the chunk that is collected.
     *
     * @param prefetch positive; 256 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ChunkWriter<T> withPrefetch(int prefetch) {
        return with(bounds.withPrefetch(prefetch));
    }

    /**
     * Says how many chunks are written at once, each with a connection of its own. They may be committed in any order then.
     *
     * @param concurrency positive; 1 by default: each chunk is committed before the next one begins
     * @return a copy with that number
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ChunkWriter<T> withConcurrency(int concurrency) {
        return new ChunkWriter<>(
                sink, bounds, ChunkBounds.positive(concurrency, "concurrency"), ordered, retries, rejects);
    }

    /**
     * Says whether the results of chunks that are written at once come in the order of the chunks, or as they are committed.
     *
     * @param ordered {@code true} by default
     * @return a copy that does or does not
     */
    public ChunkWriter<T> withOrder(boolean ordered) {
        return new ChunkWriter<>(sink, bounds, concurrency, ordered, retries, rejects);
    }

    /**
     * Says how often a chunk is tried again that failed for a reason which may be gone the next time: a serialization failure or
     * a deadlock (SQLSTATE class 40), a connection that is lost or not to be had (class 08, 57P01, 57P02, 57P03, 57P05, 53300).
     * Each attempt is a transaction of its own. One whose COMMIT may have succeeded is not tried again.
     *
     * @param max how many attempts may follow the first one; 11 by default, 0 for none
     * @param first the wait before the first of them, which doubles each time and is up to half longer or shorter at random;
     *     100 ms by default
     * @param longest the longest wait; 5 s by default
     * @return a copy with these retries
     * @throws IllegalArgumentException if {@code max} is negative, {@code first} not positive, or {@code longest} shorter
     */
    public ChunkWriter<T> withRetries(int max, Duration first, Duration longest) {
        return new ChunkWriter<>(
                sink,
                bounds,
                concurrency,
                ordered,
                new Backoff(max, Objects.requireNonNull(first, "first"), Objects.requireNonNull(longest, "longest")),
                rejects);
    }

    /**
     * Leaves out the rows that the database does not accept, and commits the rest of their chunk. Without this, one such row
     * fails its chunk.
     *
     * <p>They are found by writing the chunk again: by COPY through a temporary table, see {@link
     * dev.r2dbcscope.postgresql.RejectingCopy}; with any other sink by halves, behind savepoints. The chunks behind one with rejects
     * are written so from the beginning, until one has none.
     *
     * @param rejects what becomes of them
     * @return a copy that leaves them out
     */
    public ChunkWriter<T> withRejects(Rejects<T> rejects) {
        return new ChunkWriter<>(
                sink, bounds, concurrency, ordered, retries, Objects.requireNonNull(rejects, "rejects"));
    }

    private ChunkWriter<T> with(ChunkBounds<T> bounds) {
        return new ChunkWriter<>(sink, bounds, concurrency, ordered, retries, rejects);
    }

    /**
     * Writes rows.
     *
     * <p><strong>Lifetime.</strong> Each attempt at a chunk is a transaction of its own, by {@link
     * ConnectionScopes#inTransaction}, that holds a connection while the chunk is written, and not while rows are collected.
     *
     * <p><strong>Endings.</strong> A result is emitted after its chunk's COMMIT. When the source fails, what it emitted before is
     * written, and then its error comes. When a chunk fails, the source is cancelled, the chunks that are being written are
     * finished, and then a {@link ChunkFailedException} comes: chunks whose results were not emitted are not committed. When the
     * subscriber cancels, so is the source, and the transactions of chunks that are being written are rolled back.
     *
     * <p><strong>Demand.</strong> The source is at most {@link #withPrefetch} rows and one chunk ahead of the chunks that are being
     * written. A subscriber that does not ask for results stops the writing after a few chunks.
     *
     * <p>Sizes are counted on a worker of {@code Schedulers.parallel()}.
     *
     * @param scopes where the connections come from
     * @param rows the rows, subscribed to once for each subscription
     * @return emits what was committed. Fails with {@link IllegalStateException} inside a transaction, of which the chunks would be
     *     part
     */
    public Flux<ChunkResult> write(ConnectionScopes scopes, Publisher<? extends T> rows) {
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(rows, "rows");
        ChunkTransaction<T> transaction = transaction(scopes, ChunkWriter::isRetried);
        return ChunkTransaction.requireNone(scopes).thenMany(Flux.defer(() -> {
            Sieve<T> sieve = sieve();
            return new ChunkFlow<>(
                            FluxChunks.of(rows, bounds),
                            chunk -> transaction.write(0, chunk, connection -> Mono.empty(), sieve),
                            concurrency,
                            ordered)
                    .run();
        }));
    }

    /** A scope around the writer that has lost its connection does not get another one. */
    private static boolean isRetried(Throwable error) {
        return !(error instanceof ScopeClosedException) && TransientErrors.isTransient(error);
    }

    ChunkTransaction<T> transaction(ConnectionScopes scopes, Predicate<Throwable> retried) {
        return new ChunkTransaction<>(scopes, retries, retried);
    }

    Sieve<T> sieve() {
        return new Sieve<>(sink, rejects);
    }

    ChunkBounds<T> bounds() {
        return bounds;
    }

    Backoff retries() {
        return retries;
    }

    int concurrency() {
        return concurrency;
    }

    boolean ordered() {
        return ordered;
    }
}
