package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.atomic.AtomicBoolean;
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
 * One execution of a statement or batch: what stands between the driver's {@code execute()} and the user's subscriber.
 *
 * <p>It lasts until the driver's publisher and every result that it emitted have ended, whether or not the user reads
 * them. A result that the user does not subscribe to while it is handed out is parked (see {@link ResultReader}), so that
 * {@code execute().then()} runs the statement; the completion is passed on when nothing of that is outstanding, and the
 * error of a result that nobody reads is passed on instead of being lost.
 *
 * <p>The driver's publisher is cancelled in one case: r2dbc-postgresql sends the bindings of {@link
 * io.r2dbc.spi.Statement#add} one after the other, and after the error of one it neither goes on nor ends unless it is
 * cancelled. Nothing is in flight at that moment.
 */
final class ResultExchange extends Exchange implements CoreSubscriber<Result>, Subscription {

    private static final AtomicIntegerFieldUpdater<ResultExchange> WIP =
            AtomicIntegerFieldUpdater.newUpdater(ResultExchange.class, "wip");
    private static final AtomicIntegerFieldUpdater<ResultExchange> OPEN =
            AtomicIntegerFieldUpdater.newUpdater(ResultExchange.class, "open");
    private static final AtomicIntegerFieldUpdater<ResultExchange> UNSETTLED =
            AtomicIntegerFieldUpdater.newUpdater(ResultExchange.class, "unsettled");
    private static final AtomicLongFieldUpdater<ResultExchange> REQUESTED =
            AtomicLongFieldUpdater.newUpdater(ResultExchange.class, "requested");

    private final Scope scope;
    private final Gate gate;
    private final String sql;
    private final Publisher<? extends Result> source;
    private final boolean hasManyBindings;
    private volatile boolean fetches;
    private final AtomicBoolean stopped = new AtomicBoolean();
    private final CoreSubscriber<? super Result> actual;
    private final @Nullable StatementGuard guard;
    private volatile boolean guarded;

    private final LateSubscription driver = new LateSubscription();
    private volatile @Nullable Queue<ResultSource> undelivered;
    private final List<ResultReader<?>> readers = new ArrayList<>(1);

    private volatile int wip;
    private volatile long requested;
    private volatile boolean draining;
    private volatile boolean cancelled;
    private volatile @Nullable Throwable aborted;

    /** The driver's publisher and each of its results, as long as they have not ended. */
    private volatile int open = 1;

    private volatile int unsettled;
    private volatile boolean executed;
    private volatile boolean partDone;
    private @Nullable Throwable error;
    private volatile @Nullable Throwable unreadError;
    private volatile @Nullable Throwable firstError;
    private volatile @Nullable Shown shown;
    private boolean terminated;
    private long rows;

    ResultExchange(
            Scope scope,
            Gate gate,
            String sql,
            boolean hasManyBindings,
            Publisher<? extends Result> source,
            CoreSubscriber<? super Result> actual) {
        this.scope = scope;
        this.gate = gate;
        this.sql = sql;
        this.hasManyBindings = hasManyBindings;
        this.source = source;
        this.actual = actual;
        this.guard = StatementGuard.in(actual.currentContext());
    }

    /** An error of the driver, and what the subscriber gets instead. */
    private record Shown(Throwable error, Throwable instead) {}

    Scope scope() {
        return scope;
    }

    Gate gate() {
        return gate;
    }

    @Override
    String sql() {
        return sql;
    }

    // the gate -------------------------------------------------------------------------------------------------------

    /** What its guard does belongs to it. */
    @Override
    boolean isExclusive() {
        return guard != null;
    }

    @Override
    void start() {
        if (isDeaf()) {
            gate.ended(this);
            return;
        }
        starting();
        StatementGuard before = guard;
        if (before == null) {
            send();
        } else {
            Shield.start(before::before, currentContext()).subscribe(null, this::onError, this::guarded);
        }
    }

    private void guarded() {
        guarded = true;
        if (isDeaf()) {
            onComplete();
        } else {
            send();
        }
    }

    private void send() {
        try {
            source.subscribe(this);
        } catch (Throwable e) {
            onError(e);
        }
    }

    @Override
    void refuse(RuntimeException reason) {
        aborted = reason;
        run();
    }

    @Override
    void drain() {
        if (!draining) {
            draining = true;
            driver.request(Long.MAX_VALUE);
            openReaders().forEach(ResultReader::drain);
        }
    }

    @Override
    void abandon(RuntimeException reason) {
        aborted = reason;
        driver.request(Long.MAX_VALUE);
        openReaders().forEach(reader -> reader.abort(reason));
        run();
        left();
    }

    /**
     * A result that was handed out and is not being read yet may still be, or is executed for its effects. So is what comes
     * after a result that has ended well: {@code Mono.from(batch.execute())} leaves when it has the first one, which the
     * database would undo together with the rest. Only who ends the scope wants nothing of that.
     */
    @Override
    boolean isUnwanted() {
        if (!isDeaf() || partDone && !executed && aborted == null) {
            return false;
        }
        if (guard != null && (!guarded || open == 0)) {
            return false; // a request to cancel it would hit the guard
        }
        int before = open;
        int reading;
        synchronized (readers) {
            reading = readers.size();
            for (ResultReader<?> reader : readers) {
                if (!reader.isDeaf()) {
                    return false;
                }
            }
        }
        return before == reading + (executed ? 0 : 1) && before == open;
    }

    /**
     * One of those who waited for something of it does not any more, or has got it. Says whether nobody does: what is still to
     * come is then read as far as the gate says, and otherwise whatever is left for nobody is read to its end.
     */
    boolean left() {
        if (isEnded() || !isUnwanted()) {
            return false;
        }
        if (fetches && stopFetching()) {
            drain();
            gate.unwanted();
        } else if (gate.isAbleToCancel()) {
            openReaders().forEach(ResultReader::skim);
            gate.unwanted();
        } else {
            drain();
        }
        return true;
    }

    /** The driver reads its result by fetch size, and not in a transaction. */
    ResultExchange fetching() {
        fetches = true;
        return this;
    }

    /**
     * Lets the driver close its portal instead of reading all of it: by a cancel of whatever of the driver's publishers has not
     * ended, the execution or else its only result, as soon as a row of that has come. A request to cancel would mostly come
     * between two fetches, when the server has nothing to cancel. Says whether it was done.
     */
    private boolean stopFetching() {
        List<ResultReader<?>> reading = openReaders();
        if (stopped.get()) {
            return true;
        }
        if (reading.size() != 1 || !reading.get(0).hasRows()) {
            return false;
        }
        Mono<Void> after = gate.owner().afterCancelledFetch();
        if (after == null) {
            fetches = false;
            return false;
        }
        if (stopped.compareAndSet(false, true)) {
            ResultReader<?> reader = reading.get(0);
            gate.onConnection(() -> {
                if (executed) {
                    reader.stop(after);
                } else {
                    driver.cancel();
                    executed();
                }
            });
        }
        return true;
    }

    void flooded() {
        gate.flooded();
    }

    @Override
    ScopeState state() {
        List<ResultReader<?>> reading = openReaders();
        return reading.isEmpty() ? ScopeState.EXECUTING : reading.get(0).state();
    }

    @Override
    @Nullable
    Pause pause() {
        List<ResultReader<?>> reading = openReaders();
        if (!reading.isEmpty()) {
            return reading.get(0).pause();
        }
        return requested == 0 && !isDeaf() && !draining ? new Pause(this, rows, sql) : null;
    }

    boolean isDraining() {
        return draining;
    }

    // its readers ----------------------------------------------------------------------------------------------------

    /** Takes notice of a reader before it starts. */
    void reading(ResultReader<?> reader) {
        synchronized (readers) {
            readers.add(reader);
        }
        if (draining) {
            reader.drain();
        }
        Throwable reason = aborted;
        if (reason != null) {
            reader.abort(reason);
        }
    }

    void resultEnded(ResultReader<?> reader, @Nullable Throwable thrown) {
        take(reader, thrown);
        if (firstError != null && hasManyBindings && !executed) {
            driver.cancel();
            executed();
        }
        partEnded();
    }

    /**
     * The same before the subscriber of the result hears of its end, if nothing of the exchange is left then; says whether it is
     * so. A scope that ends with this result finds its gate idle, and its exit has nothing to wait for.
     */
    boolean endsWith(ResultReader<?> reader, @Nullable Throwable thrown) {
        if (!executed || !isLastPart()) {
            return false;
        }
        take(reader, thrown);
        endFirst();
        return true;
    }

    /** Nobody else changes that: what is left then is whoever asks. A guard comes between the last part and the end. */
    private boolean isLastPart() {
        return open == 1 && guard == null;
    }

    private void endFirst() {
        open = 0;
        report();
        markEnded();
    }

    private void take(ResultReader<?> reader, @Nullable Throwable thrown) {
        synchronized (readers) {
            readers.remove(reader);
            rows += reader.delivered();
        }
        if (thrown != null) {
            failedWith(thrown);
        } else {
            partDone = true;
        }
    }

    /** A parked reader begins to read what is to come before the completion is passed on. */
    void unsettled() {
        UNSETTLED.incrementAndGet(this);
    }

    void settled() {
        UNSETTLED.decrementAndGet(this);
        run();
    }

    void unreadFailed(Throwable thrown) {
        if (unreadError == null) {
            unreadError = thrown;
        }
    }

    /** A result that had failed for nobody has found its reader, who gets the error. */
    void isReadAfterAll(Throwable thrown) {
        if (unreadError == thrown) {
            unreadError = null;
        }
    }

    void failedWith(Throwable thrown) {
        databaseFailed(gate.owner(), thrown);
        shown(thrown);
        if (firstError == null) {
            firstError = thrown;
        }
    }

    /** An error as the subscriber gets it; asked for when it comes, because the time that passed until then counts. */
    Throwable shown(Throwable thrown) {
        Shown known = shown;
        if (known == null || known.error != thrown) {
            known = new Shown(thrown, gate.owner().shown(thrown, sql, ran()));
            shown = known;
        }
        return known.instead;
    }

    /** Whether the subscriber wants everything that comes and may be waiting for the completion only. */
    boolean awaitsCompletion() {
        return requested == Long.MAX_VALUE && !isDeaf();
    }

    /** The error for a result that is read too late. */
    RuntimeException discardedError() {
        RuntimeException closed = scope.closedErrorIfEnded();
        return closed != null ? closed : gate.owner().overflowError(sql, "what came after it");
    }

    RuntimeException overflowError() {
        return gate.owner().overflowError(sql, gate.waitingSql(this));
    }

    private List<ResultReader<?>> openReaders() {
        synchronized (readers) {
            return List.copyOf(readers);
        }
    }

    private void partEnded() {
        if (OPEN.decrementAndGet(this) == 0) {
            report();
            over();
        } else if (!left() && isDeaf()) {
            gate.unwanted();
        }
    }

    private void report() {
        long total;
        synchronized (readers) {
            total = rows;
        }
        Throwable failure = firstError;
        if (failure != null) {
            failedWork(failure);
        }
        gate.owner().statementEnded(sql, ran(), total, failure);
    }

    private void over() {
        StatementGuard after = guard;
        if (after == null || !guarded) {
            gate.ended(this);
        } else {
            Shield.start(() -> after.after(firstError), currentContext())
                    .subscribe(null, this::guardFailed, () -> gate.ended(this));
        }
    }

    private void guardFailed(Throwable thrown) {
        databaseFailed(gate.owner(), thrown);
        gate.owner().condemn();
        gate.ended(this);
    }

    // the driver -----------------------------------------------------------------------------------------------------

    @Override
    public Context currentContext() {
        return actual.currentContext();
    }

    @Override
    public void onSubscribe(Subscription s) {
        driver.arrive(s);
    }

    @Override
    public void onNext(Result result) {
        OPEN.incrementAndGet(this);
        ResultSource delivered = new ResultSource(this, result);
        if (!deliverNow(delivered)) {
            keep(delivered);
            run();
        }
        delivered.parkUnlessRead();
    }

    @Override
    public void onError(Throwable thrown) {
        if (!executed) {
            failedWith(thrown);
            error = thrown;
            executed();
        } else {
            Operators.onErrorDropped(thrown, currentContext());
        }
    }

    @Override
    public void onComplete() {
        if (!executed) {
            executed();
        }
    }

    private void executed() {
        executed = true;
        if (open == 1) {
            answered();
        }
        if (isLastPart()) {
            endFirst();
            run();
            gate.ended(this);
        } else {
            run();
            partEnded();
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

    /**
     * Wants no further result. One that was handed out before stays readable, with its own demand: {@code
     * Mono.from(statement.execute())} cancels as soon as it has its result.
     */
    @Override
    public void cancel() {
        if (cancelled) {
            return;
        }
        cancelled = true;
        if (withdraw()) {
            gate.withdrawn();
        } else {
            driver.request(Long.MAX_VALUE);
            run();
            left();
        }
    }

    /** Without the queue, which most executions never need: they have one result, which is waited for. */
    private boolean deliverNow(ResultSource result) {
        if (requested == 0 || isDeaf() || !WIP.compareAndSet(this, 0, 1)) {
            return false;
        }
        boolean now = requested != 0 && !isDeaf() && isEverythingDelivered();
        if (now) {
            Operators.produced(REQUESTED, this, 1);
            deliver(new ScopedResult(result));
        } else {
            keep(result);
        }
        loop();
        return true;
    }

    private void keep(ResultSource result) {
        Queue<ResultSource> queue = undelivered;
        if (queue == null) {
            queue = Queues.<ResultSource>unbounded(Queues.XS_BUFFER_SIZE).get();
            undelivered = queue;
        }
        queue.offer(result);
    }

    private @Nullable ResultSource nextKept() {
        Queue<ResultSource> queue = undelivered;
        return queue == null ? null : queue.poll();
    }

    private boolean isEverythingDelivered() {
        Queue<ResultSource> queue = undelivered;
        return queue == null || queue.isEmpty();
    }

    private void run() {
        if (WIP.getAndIncrement(this) != 0) {
            return;
        }
        loop();
    }

    private void loop() {
        int missed = 1;
        do {
            turn();
            missed = WIP.addAndGet(this, -missed);
        } while (missed != 0);
    }

    private void turn() {
        while (!isDeaf() && requested != 0) {
            ResultSource next = nextKept();
            if (next == null) {
                break;
            }
            Operators.produced(REQUESTED, this, 1);
            deliver(new ScopedResult(next));
        }
        if (isDeaf()) {
            ResultSource next;
            while ((next = nextKept()) != null) {
                next.discard();
            }
            finish(aborted);
        } else if (executed && unsettled == 0 && isEverythingDelivered()) {
            finish(error != null ? error : unreadError);
        }
    }

    /** A subscriber must not throw; if one does, because of a fatal error, it gets that as its error. */
    private void deliver(Result result) {
        try {
            actual.onNext(result);
        } catch (Throwable e) {
            aborted = e;
            drain();
            scope.subscriberThrew(e);
        }
    }

    private boolean isDeaf() {
        return cancelled || aborted != null;
    }

    private void finish(@Nullable Throwable reason) {
        if (terminated || cancelled) {
            return;
        }
        terminated = true;
        try {
            if (reason != null) {
                actual.onError(shown(reason));
            } else {
                actual.onComplete();
            }
        } catch (Throwable e) {
            scope.subscriberThrew(e);
        }
    }
}
