package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import reactor.core.publisher.Flux;

/**
 * Moves rows from a source into a database, chunk by chunk, and goes on where it was when it is run again: every row takes effect
 * exactly once, however often the process is killed in between. Immutable and thread-safe: every {@code with} method returns a
 * copy.
 *
 * <pre>{@code
 * EtlJob<Order> job = EtlJob.of("orders of 2026", source, ChunkWriter.to(ChunkSink.of(copy)));
 * Mono<Long> rows = Checkpoints.defaults().create(target)
 *         .thenMany(job.run(target))
 *         .reduce(0L, (sum, chunk) -> sum + chunk.rows());
 * }</pre>
 *
 * <p>The position of a chunk's last row is stored by its transaction, in the table of {@link Checkpoints}. A job that is finished
 * does nothing when it is run again, until it is {@linkplain Checkpoints#forget forgotten}; one that has to be done every day needs
 * a name for each day.
 *
 * <p><strong>Exactly once</strong> holds for what the sink does with its connection. What it does besides is done at least once.
 *
 * @param <T> the type of the rows
 */
public final class EtlJob<T> {

    private final String name;
    private final List<Source<T>> partitions;
    private final ChunkWriter<T> writer;
    private final Checkpoints checkpoints;
    private final boolean takeover;
    private final Duration lockWait;

    private EtlJob(
            String name,
            List<Source<T>> partitions,
            ChunkWriter<T> writer,
            Checkpoints checkpoints,
            boolean takeover,
            Duration lockWait) {
        this.name = name;
        this.partitions = partitions;
        this.writer = writer;
        this.checkpoints = checkpoints;
        this.takeover = takeover;
        this.lockWait = lockWait;
    }

    /**
     * Makes a job of one source.
     *
     * @param name by which it is found again, not empty
     * @param source the rows
     * @param writer how they are written; its concurrency does not matter, because chunks of one source are committed in order
     * @param <T> the type of the rows
     * @return a job that has not run
     * @throws IllegalArgumentException if the name is empty
     */
    public static <T> EtlJob<T> of(String name, Source<T> source, ChunkWriter<T> writer) {
        return ofPartitions(name, List.of(source), writer);
    }

    /**
     * Makes a job of several sources that have no row in common, such as ranges of a key. As many of them as the writer has
     * {@linkplain ChunkWriter#withConcurrency concurrency} are written at once, each in its own order.
     *
     * @param name by which it is found again, not empty
     * @param partitions the sources, always in the same order and as many, at least one
     * @param writer how they are written
     * @param <T> the type of the rows
     * @return a job that has not run
     * @throws IllegalArgumentException if the name is empty, or there is no source
     */
    public static <T> EtlJob<T> ofPartitions(String name, List<? extends Source<T>> partitions, ChunkWriter<T> writer) {
        if (Objects.requireNonNull(name, "name").isEmpty() || name.indexOf('\0') >= 0) {
            throw new IllegalArgumentException("name must not be empty or have the character NUL");
        }
        if (partitions.isEmpty()) {
            throw new IllegalArgumentException("partitions must not be empty");
        }
        return new EtlJob<>(
                name,
                List.copyOf(partitions),
                Objects.requireNonNull(writer, "writer"),
                Checkpoints.defaults(),
                false,
                Duration.ofSeconds(5));
    }

    /**
     * Says where the checkpoints are.
     *
     * @param checkpoints {@link Checkpoints#defaults()} by default
     * @return a copy that keeps them there
     */
    public EtlJob<T> withCheckpoints(Checkpoints checkpoints) {
        Objects.requireNonNull(checkpoints, "checkpoints");
        return new EtlJob<>(name, partitions, writer, checkpoints, takeover, lockWait);
    }

    /**
     * Says what becomes of another process that runs the same job.
     *
     * <ul>
     *   <li>By default an advisory lock of the database excludes it: the job does not start while the other one runs, but fails
     *       with a {@link JobRunningException}. One connection is held from the beginning to the end then, and the chunks
     *       are written with it.
     *   <li>With takeover the job starts at once, from the last chunk that the other one has committed; that one fails with a
     *       {@link JobRunningException} at its next chunk. Between two chunks no connection is held. For targets behind a pooler in
     *       transaction mode, and for processes that have lost touch.
     * </ul>
     *
     * @param takeover {@code false} by default
     * @return a copy that does or does not take over
     */
    public EtlJob<T> withTakeover(boolean takeover) {
        return new EtlJob<>(name, partitions, writer, checkpoints, takeover, lockWait);
    }

    /**
     * Says how long to wait for the lock, which the database releases when it notices that the connection of a process is gone.
     *
     * @param lockWait not negative; 5 s by default
     * @return a copy that waits as long
     * @throws IllegalArgumentException if it is negative
     */
    public EtlJob<T> withLockWait(Duration lockWait) {
        if (lockWait.isNegative()) {
            throw new IllegalArgumentException("lockWait must not be negative: " + lockWait);
        }
        return new EtlJob<>(name, partitions, writer, checkpoints, takeover, lockWait);
    }

    /**
     * Runs the job, from where it was.
     *
     * <p><strong>Lifetime.</strong> Each partition that is being written holds a connection, in a plain scope in which each chunk
     * is a transaction; with {@linkplain #withTakeover takeover} each chunk is a scope of its own. If the pool has fewer
     * connections than the writer has concurrency, fewer partitions are written at once. A source does not take part in these
     * scopes, except for {@link Source#of(dev.r2dbcscope.postgresql.KeysetRead, ConnectionScopes, java.util.function.Function)}.
     *
     * <p><strong>Endings.</strong> A result is emitted after its chunk's COMMIT. When a connection is lost, or the outcome of a
     * COMMIT is unknown, the job begins again at its checkpoints, as often as the writer has {@linkplain ChunkWriter#withRetries
     * retries}, which are counted anew after each chunk; a chunk whose outcome was unknown and which turns out to be committed
     * has no result. Any other error of a source or a chunk ends the job. The chunks of other
     * partitions that are being written are finished then. A cancel rolls back what is being written. After
     * all of these the job goes on at its checkpoints when it is run again.
     *
     * <p><strong>Demand.</strong> For each partition as with {@link ChunkWriter#write}.
     *
     * @param scopes where the connections to the target come from
     * @return emits what was committed, of each partition in order. Fails with {@link JobRunningException} if somebody else runs it,
     *     with {@link CheckpointException} if its checkpoints cannot be used, with {@link ChunkFailedException} if a chunk cannot be
     *     written, with {@link IllegalStateException} inside a transaction, and with the source's error
     */
    public Flux<ChunkResult> run(ConnectionScopes scopes) {
        return run(scopes, JobControl.create());
    }

    /**
     * Runs the job, from where it was, until it is finished or stopped; otherwise as {@link #run(ConnectionScopes)}.
     *
     * @param scopes where the connections to the target come from
     * @param control pauses, resumes and stops it
     * @return emits what was committed, of each partition in order
     */
    public Flux<ChunkResult> run(ConnectionScopes scopes, JobControl control) {
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(control, "control");
        ChunkTransaction<T> transaction = writer.transaction(scopes, TransientErrors::isConflict);
        return ChunkTransaction.requireNone(scopes)
                .thenMany(Flux.defer(() -> new JobRun<>(this, scopes, transaction, control).results()));
    }

    String name() {
        return name;
    }

    List<Source<T>> partitions() {
        return partitions;
    }

    ChunkWriter<T> writer() {
        return writer;
    }

    Checkpoints checkpoints() {
        return checkpoints;
    }

    boolean takesOver() {
        return takeover;
    }

    Duration lockWait() {
        return lockWait;
    }

    @Override
    public String toString() {
        return "EtlJob[" + name + ", " + partitions.size() + " partitions, " + checkpoints + "]";
    }
}
