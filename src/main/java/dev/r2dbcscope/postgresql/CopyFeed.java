package dev.r2dbcscope.postgresql;

import io.netty.buffer.ByteBuf;
import java.util.Objects;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.util.concurrent.Queues;
import reactor.util.context.Context;

/**
 * What the driver's COPY is fed with: subscribes to the rows, encodes them, and gives them to the driver in chunks.
 *
 * <p>The driver asks for far more chunks than it can send, so its demand says nothing. A chunk counts as sent when the driver has
 * written it to the socket, and it gets the next one only then; rows are encoded only into a chunk that has room, and asked for
 * only as they are encoded. So a server that does not read stops the source, the memory is bounded by a few chunks and
 * as many rows as are asked for at once, and little is on its way when the COPY fails.
 *
 * <p>The driver's COPY must not be cancelled. It ends early in one way only: this fails, which makes the driver tell the server
 * that the COPY has failed. The driver puts the message of that error into the server's log, so it is not the source's own.
 *
 * <p>All work is done in one loop, {@link #step}, on whatever thread brings something to do and never on two at once. The
 * exception is the driver's thread that releases a chunk: it would encode the next one for the same socket and never come to
 * read what the server says, nor to serve the other connections of its event loop, if the source always has rows and the server
 * reads them fast, as it does after an error to throw them away.
 *
 * @param <T> the type of the rows
 */
final class CopyFeed<T> extends Flux<Publisher<ByteBuf>> implements CoreSubscriber<T>, Subscription {

    @SuppressWarnings("rawtypes")
    private static final AtomicIntegerFieldUpdater<CopyFeed> WIP =
            AtomicIntegerFieldUpdater.newUpdater(CopyFeed.class, "wip");

    @SuppressWarnings("rawtypes")
    private static final AtomicLongFieldUpdater<CopyFeed> REQUESTED =
            AtomicLongFieldUpdater.newUpdater(CopyFeed.class, "requested");

    private static final byte[] EMPTY = {};

    /** Longer arrays, which exceptionally long rows need, are not worth keeping. */
    private static final int LONGEST_KEPT = 1 << 20;

    private final Publisher<? extends T> rows;
    private final RowEncoder<? super T> encoder;
    private final CopyRow row;
    private final int prefetch;
    private final int chunkSize;
    private final Context context;
    private final Mono<Void> left;

    private final Queue<T> queue;
    private final Queue<byte[]> free = new ConcurrentLinkedQueue<>();
    private final Scheduler elsewhere = Schedulers.parallel();
    private final Disposable.Swap leaving = Disposables.swap();

    private volatile int wip;
    private volatile boolean unsent;
    private volatile long requested;
    private volatile boolean sourceEnded;
    private volatile boolean abandoned;
    private volatile boolean closed;
    private volatile boolean ended;
    private volatile boolean waitsForRows;
    private volatile long encoded;
    private volatile @Nullable Throwable failure;

    private @Nullable CoreSubscriber<? super Publisher<ByteBuf>> driver;
    private @Nullable Subscription source;
    private int taken;
    private boolean finished;

    /** Why the driver's COPY is made to fail, without anything that belongs to the user. */
    private static final class Stopped extends RuntimeException {

        private static final long serialVersionUID = 1L;

        Stopped(String reason) {
            super(reason, null, false, false);
        }
    }

    CopyFeed(
            Publisher<? extends T> rows,
            RowEncoder<? super T> encoder,
            CopyRow row,
            int prefetch,
            int chunkSize,
            Mono<Void> left,
            Context context) {
        this.rows = rows;
        this.encoder = encoder;
        this.row = row;
        this.prefetch = prefetch;
        this.chunkSize = chunkSize;
        this.left = left;
        this.context = context;
        this.queue = Queues.<T>get(prefetch).get();
    }

    /** The error of the source or of its encoder, if one of them made the COPY fail. */
    @Nullable
    Throwable failure() {
        return failure;
    }

    /** Whether it ended because nobody waited for the COPY any more. */
    boolean isAbandoned() {
        return abandoned;
    }

    /** Stands still only while the source has no row. */
    long progress() {
        return waitsForRows ? encoded : System.nanoTime();
    }

    /** Whether the driver has no use for more, and would not release it. */
    boolean isClosed() {
        return closed;
    }

    /** The driver's COPY has ended: nothing more is asked for. */
    void close() {
        closed = true;
        drain();
    }

    // as the driver sees it ------------------------------------------------------------------------------------------

    @Override
    public void subscribe(CoreSubscriber<? super Publisher<ByteBuf>> actual) {
        driver = actual;
        row.bytes = new byte[chunkSize];
        row.header();
        actual.onSubscribe(this);
        leaving.update(left.subscribe(null, null, this::leave));
        Flux.<T>from(rows).subscribe(this);
    }

    private void leave() {
        abandoned = true;
        drain();
    }

    @Override
    public void request(long n) {
        if (Operators.validate(n)) {
            Operators.addCap(REQUESTED, this, n);
            drain();
        }
    }

    @Override
    public void cancel() {
        close();
    }

    private void sent(byte[] bytes) {
        if (bytes.length <= LONGEST_KEPT) {
            free.offer(bytes);
        }
    }

    private void written() {
        unsent = false;
        try {
            elsewhere.schedule(this::drain);
        } catch (RejectedExecutionException e) {
            drain();
        }
    }

    // as the source sees it ------------------------------------------------------------------------------------------

    @Override
    public Context currentContext() {
        return context;
    }

    @Override
    public void onSubscribe(Subscription s) {
        if (Operators.validate(source, s)) {
            source = s;
            if (!ended) {
                s.request(prefetch);
            }
            drain(); // it may have ended before there was somebody to cancel
        }
    }

    @Override
    public void onNext(T next) {
        if (sourceEnded || ended) {
            Operators.onNextDropped(next, context);
            return;
        }
        if (!queue.offer(next)) {
            Operators.onDiscard(next, context);
            onError(new IllegalStateException("The source of COPY emitted more rows than it was asked for"));
            return;
        }
        drain();
    }

    @Override
    public void onError(Throwable error) {
        if (sourceEnded || ended) {
            Operators.onErrorDropped(error, context);
            return;
        }
        failure = error;
        sourceEnded = true;
        drain();
    }

    @Override
    public void onComplete() {
        sourceEnded = true;
        drain();
    }

    // the loop -------------------------------------------------------------------------------------------------------

    private void drain() {
        if (WIP.getAndIncrement(this) != 0) {
            return;
        }
        int missed = 1;
        do {
            step();
            missed = WIP.addAndGet(this, -missed);
        } while (missed != 0);
    }

    private void step() {
        while (!ended) {
            if (closed) {
                end(null);
            } else if (abandoned) {
                end(new Stopped("nobody waits for it any more"));
            } else if (failure != null) {
                end(new Stopped("the source of the rows has failed"));
            } else if (row.end >= chunkSize - chunkSize / 8) {
                if (!send()) {
                    return;
                }
            } else if (!encodeOrFinish()) {
                return;
            }
        }
        Subscription rest = source;
        if (rest != null && !sourceEnded) {
            rest.cancel();
        }
        Operators.onDiscardQueueWithClear(queue, context, null);
    }

    /** Says whether there may be more to do now. */
    private boolean encodeOrFinish() {
        boolean last = sourceEnded; // before the queue is looked at
        T next = queue.poll();
        if (next == null) {
            waitsForRows = !last;
            return last && finish();
        }
        try {
            row.encode(next, encoder);
        } catch (Throwable e) {
            failure = Operators.onOperatorError(source, e, next, context);
            return true;
        }
        encoded = row.rows();
        waitsForRows = false;
        if (++taken == prefetch - (prefetch >> 2)) {
            int n = taken;
            taken = 0;
            Objects.requireNonNull(source).request(n);
        }
        return true;
    }

    private boolean finish() {
        if (!finished) {
            finished = true;
            row.trailer();
        }
        if (row.end > 0 && !send()) {
            return false;
        }
        end(null);
        return true;
    }

    /**
     * Gives the driver what was encoded, if it may have more, and an empty chunk behind it.
     *
     * <p>The driver writes one chunk after the other, and releases each when it begins to. So when it releases the empty one,
     * the other was written. And when the server fails the COPY, the driver releases the last one that it got even if
     * it is still to be written, fails to write it then, and loses the buffer that it had taken for that: five bytes with the
     * empty one, instead of a whole chunk.
     */
    private boolean send() {
        if (requested < 2 || unsent) {
            return false;
        }
        if (requested != Long.MAX_VALUE) {
            REQUESTED.addAndGet(this, -2);
        }
        unsent = true;
        ByteBuf chunk = new CopyChunk(row.bytes, row.end, this::sent);
        byte[] next = free.poll();
        row.bytes = next == null ? new byte[chunkSize] : next;
        row.end = 0;
        CoreSubscriber<? super Publisher<ByteBuf>> to = Objects.requireNonNull(driver);
        to.onNext(Mono.just(chunk));
        to.onNext(Mono.just(new CopyChunk(EMPTY, 0, empty -> written())));
        return true;
    }

    private void end(@Nullable Throwable error) {
        ended = true;
        leaving.dispose();
        CoreSubscriber<? super Publisher<ByteBuf>> told = driver;
        if (told == null) {
            return;
        }
        if (error == null) {
            told.onComplete();
        } else {
            told.onError(error);
        }
    }
}
