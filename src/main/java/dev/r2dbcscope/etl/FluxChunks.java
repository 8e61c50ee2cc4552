package dev.r2dbcscope.etl;

import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.util.concurrent.Queues;
import reactor.util.context.Context;

/**
 * Collects rows into chunks that are bounded by rows, bytes and time. {@code bufferTimeout} fails when its time is up and no
 * buffer is wanted; here the chunk goes on growing to its other bounds then, and the source waits.
 *
 * <p>An error of the source comes behind the chunk of the rows before it.
 *
 * @param <E> what the source emits
 * @param <T> the rows in it
 */
final class FluxChunks<E, T> extends Flux<Chunk<T>> {

    private final Publisher<? extends E> source;
    private final Function<? super E, ? extends T> row;
    private final Function<? super E, @Nullable String> position;
    private final ChunkBounds<T> bounds;
    private final Start start;

    /**
     * Where it begins to count.
     *
     * @param chunks how many there were before
     * @param rows how many there were before
     */
    record Start(long chunks, long rows) {
        static final Start FIRST = new Start(0, 0);
    }

    private FluxChunks(
            Publisher<? extends E> source,
            Function<? super E, ? extends T> row,
            Function<? super E, @Nullable String> position,
            ChunkBounds<T> bounds,
            Start start) {
        this.source = source;
        this.row = row;
        this.position = position;
        this.bounds = bounds;
        this.start = start;
    }

    static <T> FluxChunks<T, T> of(Publisher<? extends T> rows, ChunkBounds<T> bounds) {
        return new FluxChunks<>(rows, row -> row, row -> null, bounds, Start.FIRST);
    }

    static <T> FluxChunks<Positioned<T>, T> ofPositioned(
            Publisher<Positioned<T>> rows, ChunkBounds<T> bounds, Start start) {
        return new FluxChunks<>(rows, Positioned::row, Positioned::position, bounds, start);
    }

    @Override
    public void subscribe(CoreSubscriber<? super Chunk<T>> actual) {
        source.subscribe(new ChunkSubscriber<>(actual, this));
    }

    /**
     * All of its state but {@code arrived}, {@code done} and the counters belongs to one worker, which is one thread at a time; so
     * a synchronous source does not occupy the thread that wants a chunk either, which is often one of the driver's.
     */
    private static final class ChunkSubscriber<E, T> implements CoreSubscriber<E>, Subscription, Runnable {

        @SuppressWarnings("rawtypes")
        private static final AtomicIntegerFieldUpdater<ChunkSubscriber> RUNS =
                AtomicIntegerFieldUpdater.newUpdater(ChunkSubscriber.class, "runs");

        @SuppressWarnings("rawtypes")
        private static final AtomicLongFieldUpdater<ChunkSubscriber> WANTED =
                AtomicLongFieldUpdater.newUpdater(ChunkSubscriber.class, "wanted");

        private final CoreSubscriber<? super Chunk<T>> actual;
        private final FluxChunks<E, T> chunks;
        private final ChunkBounds<T> bounds;
        private final Queue<E> arrived;
        private final Scheduler.Worker worker = Schedulers.parallel().createWorker();
        private Subscription upstream = Operators.emptySubscription();
        private volatile int runs;
        private volatile long wanted;
        private volatile boolean done;
        private volatile boolean cancelled;
        private @Nullable Throwable error;

        private List<T> rows = new ArrayList<>();
        private long bytes;
        private List<String> positions = new ArrayList<>();
        private long number;
        private long rowsBefore;
        private long allBytes;
        private int asked;
        private boolean overdue;
        private boolean ended;
        private Disposable timer = Disposables.disposed();

        ChunkSubscriber(CoreSubscriber<? super Chunk<T>> actual, FluxChunks<E, T> chunks) {
            this.actual = actual;
            this.chunks = chunks;
            this.bounds = chunks.bounds;
            this.arrived = Queues.<E>get(bounds.prefetch()).get();
            this.number = chunks.start.chunks();
            this.rowsBefore = chunks.start.rows();
        }

        @Override
        public Context currentContext() {
            return actual.currentContext();
        }

        @Override
        public void onSubscribe(Subscription s) {
            if (Operators.validate(upstream == Operators.emptySubscription() ? null : upstream, s)) {
                upstream = s;
                actual.onSubscribe(this);
            }
        }

        @Override
        public void onNext(E element) {
            if (done) {
                Operators.onNextDropped(element, currentContext());
                return;
            }
            if (!arrived.offer(element)) {
                Operators.onDiscard(element, currentContext());
                onError(new IllegalStateException("The source emits more rows than it was asked for"));
                return;
            }
            work();
        }

        @Override
        public void onError(Throwable failure) {
            if (done) {
                Operators.onErrorDropped(failure, currentContext());
                return;
            }
            error = failure;
            done = true;
            work();
        }

        @Override
        public void onComplete() {
            if (!done) {
                done = true;
                work();
            }
        }

        @Override
        public void request(long n) {
            if (Operators.validate(n)) {
                Operators.addCap(WANTED, this, n);
                work();
            }
        }

        @Override
        public void cancel() {
            cancelled = true;
            upstream.cancel();
            work();
        }

        private void work() {
            if (RUNS.getAndIncrement(this) != 0) {
                return;
            }
            try {
                worker.schedule(this);
            } catch (RejectedExecutionException rejected) {
                withoutWorker(rejected);
            }
        }

        /** The worker is gone because this has ended, or because the scheduler was shut down. */
        private void withoutWorker(RejectedExecutionException rejected) {
            upstream.cancel();
            int missed = 1;
            do {
                discard();
                missed = RUNS.addAndGet(this, -missed);
            } while (missed != 0);
            if (!cancelled && !ended) {
                ended = true;
                actual.onError(Operators.onRejectedExecution(rejected, currentContext()));
            }
        }

        @Override
        public void run() {
            int missed = 1;
            do {
                step();
                missed = RUNS.addAndGet(this, -missed);
            } while (missed != 0);
        }

        private void step() {
            if (ended || cancelled) {
                discard();
                return;
            }
            boolean last = done; // before the queue is emptied
            try {
                while (take()) {
                    if (isFull() && !emit()) {
                        return;
                    }
                }
            } catch (Throwable thrown) {
                fail(Operators.onOperatorError(upstream, thrown, currentContext()));
                return;
            }
            if (!rows.isEmpty() && (overdue || last)) {
                emit();
            }
            if (last && rows.isEmpty()) {
                finish();
            } else {
                ask();
            }
        }

        /** Takes a row, unless the chunk is full already, or there is none. */
        private boolean take() {
            if (isFull()) {
                return true;
            }
            E element = arrived.poll();
            if (element == null) {
                return false;
            }
            asked--;
            T row = chunks.row.apply(element);
            String position = chunks.position.apply(element);
            if (rows.isEmpty()) {
                arm();
            }
            rows.add(row);
            if (position != null) {
                positions.add(position);
            }
            if (bounds.bytes() != null) {
                long size = bounds.bytes().applyAsLong(row);
                bytes += size;
                allBytes += size;
            }
            return true;
        }

        private boolean isFull() {
            return rows.size() >= bounds.maxRows() || bytes >= bounds.maxBytes();
        }

        private void arm() {
            if (bounds.maxWait() != null) {
                long mine = number;
                timer = worker.schedule(
                        () -> {
                            if (mine == number) {
                                overdue = true;
                                work();
                            }
                        },
                        bounds.maxWait().toNanos(),
                        TimeUnit.NANOSECONDS);
            }
        }

        /** Says whether a chunk was wanted. */
        private boolean emit() {
            if (wanted == 0 || cancelled) {
                return false;
            }
            timer.dispose();
            Chunk<T> chunk = new Chunk<>(++number, rowsBefore + 1, rows, positions);
            rowsBefore += rows.size();
            rows = new ArrayList<>(rows.size());
            positions = new ArrayList<>(positions.size());
            bytes = 0;
            overdue = false;
            actual.onNext(chunk);
            Operators.produced(WANTED, this, 1);
            return true;
        }

        /** Asks for more when a quarter of what may be ahead has come. */
        private void ask() {
            int ahead = bounds.ahead(rowsBefore + rows.size() - chunks.start.rows(), allBytes);
            int missing = ahead - asked;
            if (missing > 0 && missing >= ahead / 4 && !done) {
                asked += missing;
                upstream.request(missing);
            }
        }

        private void finish() {
            ended = true;
            worker.dispose();
            if (error == null) {
                actual.onComplete();
            } else {
                actual.onError(error);
            }
        }

        private void fail(Throwable thrown) {
            ended = true;
            discard();
            actual.onError(thrown);
        }

        /** What arrives afterwards comes here as well. */
        private void discard() {
            Context context = currentContext();
            Operators.onDiscardQueueWithClear(arrived, context, null);
            Operators.onDiscardMultiple(rows, context);
            rows = List.of();
            worker.dispose();
        }
    }
}
