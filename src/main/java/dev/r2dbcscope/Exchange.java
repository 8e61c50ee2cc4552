package dev.r2dbcscope;

import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import org.jspecify.annotations.Nullable;

/**
 * One request to the driver, from the moment it comes to the {@link Gate} until the server has answered all of it.
 *
 * <p>The gate calls {@link #start} once, on the connection's scheduler, or {@link #refuse} instead. An exchange that was
 * started is never cancelled: it tells the gate by {@link Gate#ended} when the driver is done with it.
 */
abstract class Exchange {

    private static final int WAITING = 0;
    private static final int ADMITTED = 1;
    private static final int WITHDRAWN = 2;
    private static final int ENDED = 3;

    private static final AtomicIntegerFieldUpdater<Exchange> PHASE =
            AtomicIntegerFieldUpdater.newUpdater(Exchange.class, "phase");

    private static final AtomicIntegerFieldUpdater<Exchange> UNANSWERED =
            AtomicIntegerFieldUpdater.newUpdater(Exchange.class, "unanswered");

    private volatile int phase;

    private volatile long startedAt;
    private volatile boolean cancelRequested;

    private @Nullable ScopeWork work;
    private volatile int unanswered;

    /** Text, not the exchange: each one that came later would stay reachable from the oldest that is open. */
    private volatile @Nullable String heldUpSql;

    /** Whether nothing else may be in flight while this is. */
    boolean isExclusive() {
        return false;
    }

    /** Whether the next in the queue has to wait for its end. Asked when there is room for the next otherwise. */
    boolean holdsBack(Exchange next) {
        return isExclusive();
    }

    /**
     * The next one is about to be sent behind it, unless it was taken back or this closes the gate. Called in the gate's loop, on
     * the oldest in flight.
     */
    void precedes(Exchange next) {
        // they do not concern each other
    }

    /** Whether it makes the connection ready for those behind it, ends soon, and is no statement of the scope. */
    boolean isOpening() {
        return false;
    }

    /** Whether it stands for a transaction whose statements pass another gate. */
    boolean holdsForOthers() {
        return false;
    }

    /** What is asked of the database, as SQL or in words. */
    abstract String sql();

    /** Sends it to the driver. */
    abstract void start();

    /** Tells it that it will not be sent. */
    abstract void refuse(RuntimeException error);

    /** Tells it that others wait behind it: it reads on to its end whatever its subscriber asks for. Idempotent. */
    abstract void drain();

    /** Tells it that the scope was abandoned: its subscriber gets the error, what still comes is thrown away. */
    abstract void abandon(RuntimeException error);

    /**
     * Whether nobody waits for anything of it any more, once it is in flight, and it may be cancelled by the database. That
     * does not change any more, except for moments at which the driver brings something new; the gate hears of it when it
     * becomes true again, by {@link Gate#unwanted}.
     */
    boolean isUnwanted() {
        return false;
    }

    /** How long it may go on when it is unwanted, before the database is asked to cancel it. */
    Duration cancelGrace(ScopeOptions options) {
        return options.cancelGrace();
    }

    /** The database is about to be asked to cancel it: its error will be no news to anybody. */
    final void cancelRequested() {
        cancelRequested = true;
    }

    /** It goes to the driver now. */
    final void starting() {
        startedAt = System.nanoTime();
    }

    /** How long ago it went to the driver; zero if it has not yet. */
    final long ran() {
        long since = startedAt;
        return since == 0 ? 0 : System.nanoTime() - since;
    }

    /** Takes notice of an error of the database; one that was asked for says nothing but whether the connection ends. */
    final void databaseFailed(GateOwner owner, Throwable error) {
        if (!cancelRequested
                || error instanceof R2dbcException known && owner.dialect().endsConnection(known)) {
            owner.databaseFailed(error);
        }
    }

    /** Takes notice of the next one after it, which waits for it to end, be it in the driver's queue or in the gate's. */
    final void holdsUp(@Nullable Exchange next) {
        if (next != null) {
            heldUpSql = next.sql();
        }
    }

    /** The SQL text of the one that waits for it, if one does. */
    final @Nullable String heldUpSql() {
        return heldUpSql;
    }

    /** What stands still if nobody lets it go on, once it is in flight; {@code null} if it does go on. */
    @Nullable
    Pause pause() {
        return null;
    }

    /** Belongs to the work of a scope, in which it counts already, until it gets its first answer. */
    final void countedBy(ScopeWork counting) {
        work = counting;
        unanswered = 1;
    }

    /** The database has begun to answer, or will not be asked. Whoever hears of the answer hears of it after this. */
    final void answered() {
        ScopeWork counting = work;
        if (unanswered == 1 && counting != null && UNANSWERED.compareAndSet(this, 1, 0)) {
            counting.answered();
        }
    }

    /** It has failed, and is about to end. */
    final void failedWork(Throwable error) {
        ScopeWork counting = work;
        if (counting != null && !cancelRequested) {
            counting.failed(error);
        }
    }

    /** What it does at the moment, once it is in flight. */
    ScopeState state() {
        return ScopeState.EXECUTING;
    }

    /** Takes it back before it was admitted; says whether that was in time. */
    final boolean withdraw() {
        boolean inTime = PHASE.compareAndSet(this, WAITING, WITHDRAWN);
        if (inTime) {
            answered();
        }
        return inTime;
    }

    final boolean admit() {
        return PHASE.compareAndSet(this, WAITING, ADMITTED);
    }

    final boolean isWithdrawn() {
        return phase == WITHDRAWN;
    }

    final void markEnded() {
        phase = ENDED;
        answered();
    }

    final boolean isEnded() {
        return phase == ENDED;
    }
}
