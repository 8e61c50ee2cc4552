package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import java.util.Queue;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.concurrent.Queues;
import reactor.util.context.Context;

/**
 * Reads one driver result to its end.
 *
 * <p>As long as nobody waits behind the result, it passes its subscriber's demand on to the driver and buffers nothing.
 * When it is told to {@link #drain}, it asks the driver for everything and keeps what the subscriber has not asked for,
 * within the {@link RowBudget} of the scope. A subscriber that cancels, or whose mapping function throws, is gone, but
 * the reading goes on and the rows are thrown away: the driver is never cancelled, because that can leave the
 * connection unusable.
 *
 * <p>Mapping functions run when the driver delivers a row, because a row is valid only then; what is kept are their
 * results. A result that nobody reads yet is <em>parked</em>: its reader has no subscriber and can be {@link #attach
 * attached} later. It asks for a few segments, so that a statement without rows is executed to its end; or for all, if the
 * subscriber of the execution asked for everything without reading the result when it came, which means that it waits for
 * the completion ({@code execute().then()}) and the driver does not complete before the rows were read.
 *
 * @param <T> what the mapping function makes of a row or segment
 */
final class ResultReader<T> implements CoreSubscriber<Object>, Subscription, Gate.Parked {

    /** What a mapping function gives when there is nothing to emit. */
    static final Object NOTHING = new Object();

    /** How many segments of a result are read before somebody asks for them. */
    private static final int PARKED_DEMAND = 16;

    /** How many rows are read for nobody before that is given up: some milliseconds' worth. */
    private static final int SKIMMED = 4_096;

    private static final int PARKED = 0;
    private static final int READ = 1;
    private static final int DISCARDED = 2;

    @SuppressWarnings("rawtypes")
    private static final AtomicIntegerFieldUpdater<ResultReader> WIP =
            AtomicIntegerFieldUpdater.newUpdater(ResultReader.class, "wip");

    @SuppressWarnings("rawtypes")
    private static final AtomicLongFieldUpdater<ResultReader> REQUESTED =
            AtomicLongFieldUpdater.newUpdater(ResultReader.class, "requested");

    @SuppressWarnings("rawtypes")
    private static final AtomicIntegerFieldUpdater<ResultReader> ATTACHED =
            AtomicIntegerFieldUpdater.newUpdater(ResultReader.class, "attached");

    private final ResultExchange exchange;
    private final RowBudget budget;
    private final LateSubscription driver = new LateSubscription();
    private volatile @Nullable Queue<T> buffer;
    private final Context context;

    private volatile @Nullable CoreSubscriber<? super T> actual;
    private volatile long requested;
    private volatile int wip;
    private volatile int attached;
    private volatile boolean cancelled;
    private volatile @Nullable Throwable aborted;
    private volatile boolean ended;
    private @Nullable Throwable error;
    private boolean terminated;

    private volatile boolean driverEnded;
    private volatile boolean skimming;
    private int skimmed;
    private boolean unsettled;
    private boolean readsAll;
    private boolean keptRows;
    private long delivered;
    private volatile @Nullable Throwable unreadError;

    /** A reader for a subscriber. */
    ResultReader(ResultExchange exchange, CoreSubscriber<? super T> actual) {
        this.exchange = exchange;
        this.budget = exchange.gate().budget();
        this.context = actual.currentContext();
        this.actual = actual;
        this.attached = READ;
    }

    /** A parked reader. */
    ResultReader(ResultExchange exchange) {
        this.exchange = exchange;
        this.budget = exchange.gate().budget();
        this.context = exchange.currentContext();
        this.readsAll = exchange.awaitsCompletion();
    }

    void start(Publisher<?> source) {
        exchange.reading(this);
        if (attached == PARKED) {
            unsettled = true;
            exchange.unsettled();
            driver.request(readsAll ? Long.MAX_VALUE : PARKED_DEMAND);
        }
        try {
            source.subscribe(this);
        } catch (Throwable e) {
            onError(e);
        }
    }

    /** Gives a parked reader its subscriber; says whether it was still without one. */
    boolean attach(CoreSubscriber<? super T> subscriber) {
        if (!ATTACHED.compareAndSet(this, PARKED, READ)) {
            return false;
        }
        exchange.gate().unpark(this);
        Throwable toBeReadNow = unreadError;
        if (toBeReadNow != null) {
            exchange.isReadAfterAll(toBeReadNow);
        }
        subscriber.onSubscribe(this);
        actual = subscriber;
        run();
        return true;
    }

    /** Nobody waits for anything of the exchange: reads so much that most results end with it. */
    void skim() {
        if (!skimming) {
            skimming = true;
            driver.request(SKIMMED);
        }
    }

    /** It is read for nobody, and perhaps not even the exchange is wanted any more. */
    private void leave() {
        if (!exchange.left()) {
            drain();
        }
    }

    /** Others wait behind this result: reads it whatever the subscriber asks for. */
    void drain() {
        driver.request(Long.MAX_VALUE);
    }

    /** Fails the subscriber at once; what still comes is thrown away. */
    void abort(Throwable reason) {
        aborted = reason;
        leave();
        run();
    }

    /** Nobody will ever read it, unless somebody does already. */
    @Override
    public void discard() {
        if (ATTACHED.compareAndSet(this, PARKED, DISCARDED)) {
            cancel();
        }
    }

    @Override
    public boolean isComplete() {
        return driverEnded;
    }

    /** The error for those who come after a parked result was thrown away, if it was. */
    @Nullable
    RuntimeException discardedError() {
        return attached == DISCARDED ? exchange.discardedError() : null;
    }

    /** The error that a segment of the result stands for, if it does. */
    @Nullable
    Throwable errorIn(Result.Segment segment) {
        return ResultReading.errorIn(segment, exchange.gate().owner().dialect());
    }

    /** A segment that is an error came by, which the driver does not signal as one. */
    void sawError(Throwable inSegment) {
        exchange.failedWith(inSegment);
        if (attached == PARKED) {
            unreadError = inSegment;
            exchange.unreadFailed(inSegment);
        }
    }

    /** Whether nobody listens any more, so that mapping functions need not be called. */
    boolean isDeaf() {
        return cancelled || ended || aborted != null;
    }

    /** The mapping function threw: fails the subscriber after what it mapped before. Returns {@link #NOTHING}. */
    Object failed(Throwable thrown) {
        end(thrown);
        leave();
        run();
        return NOTHING;
    }

    long delivered() {
        return delivered;
    }

    ScopeState state() {
        if (delivered == 0 && isBufferEmpty()) {
            return ScopeState.EXECUTING;
        }
        return requested == 0 && !isDeaf() && !exchange.isDraining()
                ? ScopeState.BLOCKED_BY_DEMAND
                : ScopeState.STREAMING;
    }

    /** What stands still while nobody asks for rows: of a parked reader, once it has read what it reads for nobody. */
    @Nullable
    Pause pause() {
        boolean waits = attached == PARKED ? !readsAll && delivered >= PARKED_DEMAND : requested == 0;
        return waits && !isDeaf() && !exchange.isDraining() ? new Pause(this, delivered, exchange.sql()) : null;
    }

    // the driver -----------------------------------------------------------------------------------------------------

    @Override
    public Context currentContext() {
        return context;
    }

    @Override
    public void onSubscribe(Subscription s) {
        driver.arrive(s);
    }

    @Override
    @SuppressWarnings("unchecked")
    public void onNext(Object value) {
        exchange.answered();
        if (skimming) {
            skimmed();
        }
        if (value == NOTHING) {
            return;
        }
        delivered++;
        T mapped = (T) value;
        if (isDeaf()) {
            discard(mapped);
            return;
        }
        CoreSubscriber<? super T> subscriber = actual;
        if (subscriber != null && requested != 0 && WIP.compareAndSet(this, 0, 1)) {
            if (requested != 0 && isBufferEmpty() && !isDeaf()) {
                Operators.produced(REQUESTED, this, 1);
                deliver(subscriber, mapped);
                if (aborted == null && WIP.decrementAndGet(this) == 0) {
                    return;
                }
            } else {
                keep(mapped);
            }
            loop();
            return;
        }
        keep(mapped);
        if (subscriber == null && delivered == PARKED_DEMAND && !readsAll) {
            settle();
        }
        run();
    }

    private void skimmed() {
        skimmed++;
        if (skimmed == 1) {
            exchange.left();
        } else if (skimmed == SKIMMED) {
            exchange.flooded();
        }
    }

    boolean hasRows() {
        return delivered > 0 || skimmed > 0;
    }

    /** Lets the driver end it without the rest; it signals nothing more by itself, unless it has just ended. */
    void stop(Mono<Void> over) {
        if (!driverEnded) {
            driver.cancel();
            over.subscribe(null, null, () -> driverEnded(null));
        }
    }

    /** A subscriber must not throw; if one does, because of a fatal error, it gets that as its error. */
    private void deliver(CoreSubscriber<? super T> subscriber, T mapped) {
        try {
            subscriber.onNext(mapped);
        } catch (Throwable e) {
            aborted = e;
            leave();
            exchange.scope().subscriberThrew(e);
        }
    }

    private void keep(T mapped) {
        Queue<T> kept = buffer;
        if (kept == null) {
            kept = Queues.<T>unbounded(Queues.XS_BUFFER_SIZE).get();
            buffer = kept;
        }
        kept.offer(mapped);
        if (!isRow(mapped)) {
            return;
        }
        keptRows = true;
        budget.take();
        while (requested == 0 && budget.isExceeded()) {
            if (!exchange.gate().evictParked()) {
                aborted = exchange.overflowError();
                leave();
                return;
            }
        }
    }

    private boolean isBufferEmpty() {
        Queue<T> kept = buffer;
        return kept == null || kept.isEmpty();
    }

    private @Nullable T nextKept() {
        Queue<T> kept = buffer;
        return kept == null ? null : kept.poll();
    }

    /** Update counts and messages are few and small; what counts are rows. */
    private static boolean isRow(Object mapped) {
        return !(mapped instanceof Held<?> held)
                || !(held.value() instanceof Result.UpdateCount || held.value() instanceof Result.Message);
    }

    private T freed(T mapped) {
        if (isRow(mapped)) {
            budget.free(1);
        }
        return mapped;
    }

    @Override
    public void onError(Throwable thrown) {
        end(thrown);
        driverEnded(thrown);
    }

    @Override
    public void onComplete() {
        end(null);
        driverEnded(null);
    }

    private void end(@Nullable Throwable thrown) {
        if (!ended) {
            error = thrown;
            ended = true;
        }
    }

    private void driverEnded(@Nullable Throwable thrown) {
        if (driverEnded) {
            return;
        }
        driverEnded = true;
        exchange.answered();
        if (attached == PARKED) {
            if (thrown != null) {
                unreadError = thrown;
                exchange.unreadFailed(thrown);
            }
            if (!keptRows) {
                exchange.gate().unpark(this);
            }
        }
        settle();
        boolean isAll = exchange.endsWith(this, thrown);
        run();
        if (isAll) {
            exchange.gate().ended(exchange);
        } else {
            exchange.resultEnded(this, thrown);
        }
    }

    private void settle() {
        if (unsettled) {
            unsettled = false;
            exchange.settled();
        }
    }

    // the subscriber -------------------------------------------------------------------------------------------------

    @Override
    public void request(long n) {
        if (Operators.validate(n)) {
            Operators.addCap(REQUESTED, this, n);
            driver.request(n);
            run();
        }
    }

    @Override
    public void cancel() {
        if (!cancelled) {
            cancelled = true;
            leave();
            run();
        }
    }

    private void run() {
        if (WIP.getAndIncrement(this) == 0) {
            loop();
        }
    }

    private void loop() {
        int missed = 1;
        do {
            turn();
            missed = WIP.addAndGet(this, -missed);
        } while (missed != 0);
    }

    private void turn() {
        CoreSubscriber<? super T> subscriber = actual;
        if (cancelled || aborted != null) {
            clear();
            if (subscriber != null && !cancelled && !terminated && aborted != null) {
                terminate(subscriber, aborted);
            }
            return;
        }
        if (subscriber == null || terminated) {
            return;
        }
        emit(subscriber);
        if (ended && isBufferEmpty() && !cancelled && aborted == null) {
            terminate(subscriber, error);
        }
    }

    private void terminate(CoreSubscriber<? super T> subscriber, @Nullable Throwable reason) {
        terminated = true;
        try {
            if (reason != null) {
                subscriber.onError(exchange.shown(reason));
            } else {
                subscriber.onComplete();
            }
        } catch (Throwable e) {
            exchange.scope().subscriberThrew(e);
        }
    }

    private void emit(CoreSubscriber<? super T> subscriber) {
        long demand = requested;
        long emitted = 0;
        while (emitted != demand && !cancelled && aborted == null) {
            T next = nextKept();
            if (next == null) {
                break;
            }
            emitted++;
            deliver(subscriber, freed(next));
        }
        if (emitted != 0) {
            Operators.produced(REQUESTED, this, emitted);
        }
    }

    private void clear() {
        T next;
        while ((next = nextKept()) != null) {
            discard(freed(next));
        }
    }

    private void discard(T value) {
        Held.discard(value, context);
    }
}
