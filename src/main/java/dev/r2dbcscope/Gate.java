package dev.r2dbcscope;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.util.concurrent.Queues;

/**
 * What every statement of a scope passes on its way to the driver.
 *
 * <p>A connection serves its results strictly in order and accepts a limited number of requests at once, so the gate
 *
 * <ul>
 *   <li>admits exchanges in order, at most {@code permits} at a time, and an exclusive one only when it is alone;
 *   <li>starts them on the connection's own scheduler, one after the other;
 *   <li>tells every exchange that another one waits behind to read on to its end: whoever is in flight therefore ends
 *       without its subscriber's help, and whoever waits is admitted at last. That is why nested statements on one
 *       connection always make progress;
 *   <li>admits nothing while the database is asked to cancel what is in flight, see {@link ServerCancel};
 *   <li>admits nothing any more once it was closed.
 * </ul>
 *
 * <p>All decisions are taken in one loop, {@link #step}, which runs on whatever thread has something to tell the gate and
 * never on two at once ({@code wip} counts those who asked for a turn). The lists belong to the loop; the volatile
 * fields are for those who look on.
 */
final class Gate {

    private static final AtomicIntegerFieldUpdater<Gate> WIP = AtomicIntegerFieldUpdater.newUpdater(Gate.class, "wip");

    private static final AtomicIntegerFieldUpdater<Gate> QUEUED =
            AtomicIntegerFieldUpdater.newUpdater(Gate.class, "queued");

    private static final AtomicIntegerFieldUpdater<Gate> STALE =
            AtomicIntegerFieldUpdater.newUpdater(Gate.class, "stale");

    /** Fewer that were taken back are not worth looking for among those that wait. */
    private static final int FEW_STALE = 64;

    private final GateOwner owner;
    private final @Nullable Scheduler scheduler;
    private final int permits;
    private final int maxWaiting;
    private final RowBudget budget;
    private final ServerCancel cancel;

    private final Queue<Exchange> arrived =
            Queues.<Exchange>unboundedMultiproducer().get();
    private final Deque<Exchange> waiting = new ArrayDeque<>(1);
    private final Set<Parked> parked = new LinkedHashSet<>();
    private final List<Exchange> inFlight = new ArrayList<>(2);
    private final Completion idle = new Completion();

    private volatile int wip;

    /** How many of those that wait were not taken back. */
    private volatile int queued;

    /** How many were taken back and may still be among those that wait. */
    private volatile int stale;

    private volatile Closing closing = Closing.OPEN;
    private final Disposable.Swap watch = Disposables.swap();
    private @Nullable Exchange watched;
    private volatile @Nullable Exchange reprieved;
    private boolean abandoned;
    private boolean sealed;

    private volatile @Nullable Exchange oldest;
    private volatile int flying;
    private volatile long started;
    private volatile long busySince;
    private volatile long busyNanos;

    private enum Closing {
        OPEN,
        GRACEFULLY,
        ABRUPTLY
    }

    Gate(GateOwner owner, @Nullable Scheduler scheduler, int permits, RowBudget budget) {
        this.owner = owner;
        this.scheduler = scheduler;
        this.permits = permits;
        this.maxWaiting = owner.options().maxStatementsWaiting();
        this.budget = budget;
        this.cancel = new ServerCancel(this, owner, scheduler);
    }

    GateOwner owner() {
        return owner;
    }

    RowBudget budget() {
        return budget;
    }

    /** Adds an exchange at the end of the queue, or refuses it if the gate is closed or too many wait already. */
    void enter(Exchange exchange) {
        int before = QUEUED.getAndIncrement(this);
        if (closing != Closing.OPEN) {
            refuse(exchange);
            return;
        }
        if (before >= maxWaiting) {
            refuse(exchange, owner.tooManyError(exchange.sql()));
            return;
        }
        arrived.offer(exchange);
        if (flying > 0 && scheduler != null && cancel.mayHoldBack()) {
            runLater(scheduler);
        } else {
            run();
        }
    }

    /**
     * Whoever has seen enough of a result may come with the next statement before the cancel of the first is here, because
     * operators like {@code flatMap} put it off until they have delivered; the connection's own thread is free after that.
     */
    private void runLater(Scheduler free) {
        try {
            free.schedule(this::run);
        } catch (RejectedExecutionException shutDown) {
            run();
        }
    }

    /** Takes notice that the driver is done with an exchange. */
    void ended(Exchange exchange) {
        exchange.markEnded();
        run();
    }

    /** Takes notice that one of those who wait was taken back. */
    void withdrawn() {
        leftTheQueue();
        STALE.incrementAndGet(this);
        run();
    }

    private void leftTheQueue() {
        QUEUED.decrementAndGet(this);
    }

    /** Takes notice that nobody wants anything any more of one that is in flight. */
    void unwanted() {
        run();
    }

    /** Admits no transaction any more, and nothing that comes from now on; completes when the statements before have ended. */
    Mono<Void> closeGracefully() {
        return close(Closing.GRACEFULLY);
    }

    /** Admits nothing any more, not even what waits; completes when what is in flight has ended. */
    Mono<Void> closeAbruptly() {
        return close(Closing.ABRUPTLY);
    }

    /** Takes notice that many rows were read for nobody. */
    void flooded() {
        cancel.flooded();
        run();
    }

    /** Whether the database may be asked to cancel what is in flight, once nobody wants anything of it. */
    boolean isAbleToCancel() {
        return cancel.isAble();
    }

    /** Admits nothing any more and does nothing any more: the connection will be destroyed. */
    void giveUp() {
        cancel.stop();
        close(Closing.ABRUPTLY);
    }

    /** Whoever waits for the end waits in vain. */
    void fail(Throwable error) {
        idle.fail(error);
    }

    private Mono<Void> close(Closing how) {
        if (closing != Closing.ABRUPTLY) {
            closing = how;
        }
        run();
        return idle.asMono();
    }

    /** Sees whether there is anything to do. */
    void run() {
        if (WIP.getAndIncrement(this) != 0) {
            return;
        }
        int missed = 1;
        do {
            step();
            if (wip == missed) {
                cancel.look(inFlight, isUndone(closing));
            }
            missed = WIP.addAndGet(this, -missed);
        } while (missed != 0);
    }

    private void step() {
        if (inFlight.removeIf(Exchange::isEnded)) {
            cancel.ended();
        }
        cancel.conclude();
        Closing now = closing;
        if (now == Closing.ABRUPTLY && !abandoned) {
            abandoned = true;
            RuntimeException error = owner.closedError();
            inFlight.forEach(exchange -> exchange.abandon(error));
        }
        boolean held = cancel.holdsBack(inFlight, isUndone(now));
        Exchange head;
        while ((head = head()) != null) {
            if (closing == Closing.ABRUPTLY || sealed || owner.isLost() || comesTooLate(head)) {
                waiting.poll();
                refuse(head);
            } else if (held) {
                // it would be hit
                break;
            } else if (mustWait(head)) {
                drainNewest(head);
                watch(head);
                break;
            } else {
                drainNewest(head);
                if (closing == Closing.ABRUPTLY) {
                    continue; // the rows that were read ahead have ended the scope
                }
                if (!inFlight.isEmpty()) {
                    inFlight.get(0).precedes(head);
                    if (closing == Closing.ABRUPTLY) {
                        continue; // nothing keeps it from taking effect
                    }
                }
                waiting.poll();
                if (head.admit()) {
                    leftTheQueue();
                    if (watched != null) {
                        watched = null;
                        watch.update(null);
                    }
                    inFlight.add(head);
                    if (!head.isOpening()) {
                        started++;
                    }
                    show();
                    send(head);
                }
            }
        }
        if (now != Closing.OPEN) {
            if (!held) {
                drainNewest(null);
            }
            discardParked();
        }
        show();
        if (now != Closing.OPEN && head == null && inFlight.isEmpty() && !cancel.isUnderWay()) {
            sealed = true;
            watch.dispose();
            idle.complete();
        }
    }

    /** A statement that waits as the scope ends is only sent; a transaction would call the code of a pipeline that has ended. */
    private boolean comesTooLate(Exchange head) {
        return closing != Closing.OPEN && head.holdsForOthers();
    }

    /** Whether all that is in flight, and all before it, is undone anyhow. */
    private boolean isUndone(Closing now) {
        return now == Closing.ABRUPTLY || now == Closing.GRACEFULLY && owner.willRollBack();
    }

    private @Nullable Exchange head() {
        Exchange next;
        while ((next = arrived.poll()) != null) {
            waiting.add(next);
        }
        forgetStale();
        Exchange head = waiting.peek();
        while (head != null && head.isWithdrawn()) {
            waiting.poll();
            head = waiting.peek();
        }
        return head;
    }

    /** Whoever comes and goes behind one that waits for long must not pile up; each is looked at twice at most, on average. */
    private void forgetStale() {
        int taken = stale;
        if (taken > FEW_STALE && taken > waiting.size() / 2) {
            STALE.addAndGet(this, -taken);
            waiting.removeIf(Exchange::isWithdrawn);
        }
    }

    private boolean mustWait(Exchange head) {
        if (inFlight.isEmpty()) {
            return false;
        }
        return head.isExclusive()
                || inFlight.size() >= permits
                || inFlight.get(0).holdsBack(head);
    }

    /**
     * Bounds the wait of the first in the queue behind a transaction that holds the connection: if the transaction itself
     * waits for that statement, because the statement lost its Context, this ends what would last for ever. A transaction
     * that works is given time.
     */
    private void watch(Exchange head) {
        Exchange holder = inFlight.get(0);
        if (!holder.holdsForOthers() || watched == head && reprieved != head) {
            return;
        }
        watched = head;
        reprieved = null;
        Pause before = holder.pause();
        watch.update(Schedulers.parallel()
                .schedule(
                        () -> overdue(head, holder, before), owner.longestHold().toNanos(), TimeUnit.NANOSECONDS));
    }

    /** The holder may be between two statements just now: only a pause that is still the same has lasted for the bound. */
    private void overdue(Exchange head, Exchange holder, @Nullable Pause before) {
        if (holder.isEnded()) {
            return;
        }
        Pause now = holder.pause();
        if (now == null || !now.equals(before)) {
            reprieved = head;
        } else {
            refuse(head, owner.heldError(head.sql(), holder.sql()));
        }
        run();
    }

    /** All older ones were told when the newest was admitted or came to wait. */
    private void drainNewest(@Nullable Exchange next) {
        if (!inFlight.isEmpty()) {
            Exchange newest = inFlight.get(inFlight.size() - 1);
            newest.holdsUp(next);
            newest.drain();
        }
    }

    private void send(Exchange exchange) {
        if (scheduler == null) {
            exchange.start();
            return;
        }
        try {
            scheduler.schedule(exchange::start);
        } catch (RuntimeException rejected) {
            exchange.refuse(rejected);
            exchange.markEnded();
            WIP.incrementAndGet(this);
        }
    }

    /** Runs something that belongs to an exchange in flight where the driver wants to be called. */
    void onConnection(Runnable task) {
        if (scheduler == null) {
            task.run();
        } else {
            scheduler.schedule(task);
        }
    }

    private void refuse(Exchange exchange) {
        refuse(exchange, owner.closedError());
    }

    private void refuse(Exchange exchange, RuntimeException error) {
        if (exchange.withdraw()) {
            leftTheQueue();
            exchange.refuse(error);
        }
    }

    // rows that were read for nobody yet -----------------------------------------------------------------------------

    /** Something that holds rows nobody has asked for, and must let go of them when the scope ends. */
    interface Parked {

        /** Lets go of them; whoever asks for them later gets an error. */
        void discard();

        /** Whether it holds all that there will be. */
        boolean isComplete();
    }

    void park(Parked rows) {
        synchronized (parked) {
            parked.add(rows);
        }
        if (closing != Closing.OPEN) {
            run();
        }
    }

    void unpark(Parked rows) {
        synchronized (parked) {
            parked.remove(rows);
        }
    }

    /** Throws away the oldest complete result that nobody has read; says whether there was one. */
    boolean evictParked() {
        Parked oldestComplete;
        synchronized (parked) {
            oldestComplete =
                    parked.stream().filter(Parked::isComplete).findFirst().orElse(null);
        }
        if (oldestComplete == null) {
            return false;
        }
        unpark(oldestComplete);
        oldestComplete.discard();
        return true;
    }

    private void discardParked() {
        List<Parked> all;
        synchronized (parked) {
            all = List.copyOf(parked);
            parked.clear();
        }
        all.forEach(Parked::discard);
    }

    // for those who look on ------------------------------------------------------------------------------------------

    private void show() {
        oldest = inFlight.isEmpty() ? null : inFlight.get(0);
        int before = flying;
        int now = inFlight.size();
        if (before == 0 && now > 0) {
            busySince = System.nanoTime();
        } else if (before > 0 && now == 0) {
            busyNanos += System.nanoTime() - busySince;
        }
        flying = now;
    }

    /** What waits behind an open result, in words. */
    String waitingSql(Exchange open) {
        String first = open.heldUpSql();
        if (first != null) {
            return first;
        }
        return closing == Closing.OPEN ? "the next statement" : "the end of the scope";
    }

    /** What stands still while nothing is being done with the connection, or {@code null} if something is. */
    @Nullable
    Pause pause() {
        Exchange head = oldest;
        if (head != null) {
            return head.pause();
        }
        return flying == 0 && queued == 0 ? new Pause(this, started, null) : null;
    }

    /** What keeps the connection busy, in words. */
    String runningSql() {
        Exchange running = oldest;
        return running == null ? "nothing" : running.sql();
    }

    @Nullable
    Exchange oldest() {
        return oldest;
    }

    /** Reads everything that is in flight to its end. Called in the gate's loop. */
    void drainAll() {
        inFlight.forEach(Exchange::drain);
    }

    /** The oldest one in flight. Called in the gate's loop. */
    Exchange oldestInFlight() {
        return inFlight.get(0);
    }

    int inFlight() {
        return flying;
    }

    int waitingCount() {
        return queued;
    }

    long started() {
        return started;
    }

    long busyNanos() {
        return flying > 0 ? busyNanos + System.nanoTime() - busySince : busyNanos;
    }
}
