package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.NestedAcquireDeadlockException;
import dev.r2dbcscope.ScopeAcquisitionException;
import dev.r2dbcscope.postgresql.AdvisoryLock;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.Queue;
import java.util.UUID;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.IntFunction;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * One run of a job, for one subscriber: attempts that each begin at the checkpoints.
 *
 * <p>The first connection of an attempt holds the job's lock and writes partitions as well; so a job needs no connection that does
 * nothing. The lock keeps others from starting; what keeps a run that has lost its lock from committing is its number, which
 * each chunk's transaction looks for in the checkpoint.
 */
final class JobRun<T> {

    private static final Duration LOCK_POLL = Duration.ofMillis(100);

    private final JobControl control;
    private final EtlJob<T> job;
    private final ConnectionScopes scopes;
    private final ChunkTransaction<T> transaction;
    private final UUID run = number();
    private final List<Sieve<T>> sieves;
    private volatile boolean begun;

    JobRun(EtlJob<T> job, ConnectionScopes scopes, ChunkTransaction<T> transaction, JobControl control) {
        this.control = control;
        this.job = job;
        this.scopes = scopes;
        this.transaction = transaction;
        this.sieves =
                job.partitions().stream().map(source -> job.writer().sieve()).toList();
    }

    /** It need not be a secret, and {@code UUID.randomUUID()} may block. */
    private static UUID number() {
        ThreadLocalRandom random = ThreadLocalRandom.current();
        return new UUID(random.nextLong(), random.nextLong());
    }

    Flux<ChunkResult> results() {
        return scopes.apart(Flux.defer(this::attempt)
                .retryWhen(job.writer().retries().on(this::isRetried).transientErrors(true)));
    }

    /**
     * What a failed COPY says of its rows is worth another attempt, with another connection. A lock that is not to be had may
     * be that of this run's own connection, which the server does not know to be lost.
     */
    private boolean isRetried(Throwable error) {
        boolean learned = sieves.stream().filter(Sieve::hasLearned).count() > 0;
        return learned
                || TransientErrors.isTransient(error)
                || TransientErrors.isUnknown(error)
                || begun && error instanceof JobRunningException running && running.isAboutTheLock();
    }

    private Flux<ChunkResult> attempt() {
        if (job.takesOver()) {
            return claimed().flatMapMany(found -> new Attempt(found).inScopesOfTheirOwn());
        }
        return scopes.withConnectionMany(connection ->
                lock(connection).then(claimed()).flatMapMany(found -> new Attempt(found).withThisConnection()));
    }

    private Mono<Void> lock(Connection connection) {
        AdvisoryLock lock = AdvisoryLock.of("r2dbc-scope job " + job.name());
        long deadline = System.nanoTime() + job.lockWait().toNanos();
        return lock.tryAcquire(connection)
                .flatMap(held -> held || System.nanoTime() >= deadline ? Mono.just(held) : Mono.empty())
                .repeatWhenEmpty(polls -> polls.delayElements(LOCK_POLL))
                .flatMap(held -> held ? Mono.<Void>empty() : Mono.error(JobRunningException.locked(job)));
    }

    private Mono<List<Checkpoint>> claimed() {
        return scopes.inTransaction(this::claim).doOnNext(found -> begun = true);
    }

    private Mono<List<Checkpoint>> claim(Connection connection) {
        int partitions = job.partitions().size();
        return begun
                ? job.checkpoints().reclaim(connection, job.name(), partitions, run)
                : job.checkpoints().claim(connection, job.name(), partitions, run);
    }

    /** From the checkpoints on, until something fails. */
    private final class Attempt {

        private final Queue<Checkpoint> waiting = new ConcurrentLinkedQueue<>();
        private final Failure failure = new Failure();

        Attempt(List<Checkpoint> checkpoints) {
            checkpoints.stream().filter(one -> !one.finished()).forEach(waiting::add);
        }

        private int lanes() {
            return Math.max(1, Math.min(job.writer().concurrency(), waiting.size()));
        }

        Flux<ChunkResult> inScopesOfTheirOwn() {
            return together(lane -> lane());
        }

        /** The others have connections of their own, if there are any to be had. */
        Flux<ChunkResult> withThisConnection() {
            return together(lane -> lane == 0 ? lane() : another());
        }

        /** When one of them fails, the others finish the chunks that they are writing. */
        private Flux<ChunkResult> together(IntFunction<Flux<ChunkResult>> lanes) {
            int number = lanes();
            return Flux.range(0, number)
                    .flatMap(lane -> lanes.apply(lane).onErrorResume(failure::keep), number, 1)
                    .concatWith(failure.thrown());
        }

        private Flux<ChunkResult> another() {
            AtomicBoolean there = new AtomicBoolean();
            return scopes.withOwnConnectionMany(connection -> {
                        there.set(true);
                        return lane();
                    })
                    .onErrorResume(error -> !there.get() && isDoneWithout(error), error -> Flux.empty());
        }

        private boolean isDoneWithout(Throwable error) {
            return error instanceof NestedAcquireDeadlockException || error instanceof ScopeAcquisitionException;
        }

        private Flux<ChunkResult> lane() {
            return Mono.fromSupplier(waiting::poll)
                    .flatMapMany(this::partition)
                    .repeat(() -> !waiting.isEmpty() && !isEnding());
        }

        private Flux<ChunkResult> partition(Checkpoint from) {
            int partition = from.partition();
            Source<T> source = job.partitions().get(partition);
            Flux<Positioned<T>> rows = source.behind(from.position());
            Flux<Positioned<T>> read = source.joins() ? rows : scopes.apart(rows);
            return new ChunkFlow<>(
                            FluxChunks.ofPositioned(
                                    read, job.writer().bounds(), new FluxChunks.Start(from.chunks(), from.rows())),
                            chunk -> transaction.write(
                                    partition,
                                    chunk,
                                    connection ->
                                            job.checkpoints().advance(connection, job.name(), partition, run, chunk),
                                    sieves.get(partition)),
                            1,
                            true)
                    .run(control, failure.happened())
                    .concatWith(Mono.defer(() -> isEnding() ? Mono.empty() : finish(partition)));
        }

        private boolean isEnding() {
            return control.isStopped() || failure.hasHappened();
        }

        private Mono<ChunkResult> finish(int partition) {
            return scopes.inTransaction(connection -> job.checkpoints().finish(connection, job.name(), partition, run))
                    .then(Mono.empty());
        }
    }
}
