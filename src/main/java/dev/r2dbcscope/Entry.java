package dev.r2dbcscope;

import dev.r2dbcscope.Session.Phase;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * The entry of a session: asks for the connection, waits for it, and makes it ready, which is one step that no cancel cuts
 * in two. Its counterpart is the {@link Exit}.
 *
 * <p>It ends in one of three ways: the session is OPEN; or it failed, and those who wait for the connection are told; or the
 * session was left meanwhile, and a connection that comes all the same is given back, after what was begun on it has ended.
 */
final class Entry {

    private final Session session;
    private final ScopeOptions options;
    private final Supply supply;
    private final SessionReport report;
    private final LiveScopes live;

    private final Completion prepared = new Completion();
    private final AtomicBoolean settled = new AtomicBoolean();
    private final Disposable.Swap acquireTimer = Disposables.swap();

    /** A timer of its own: each is armed and disposed of by whoever is in charge then, and neither replaces the other. */
    private final Disposable.Swap openingTimer = Disposables.swap();

    /** BEGIN was sent to a connection of the session's own, and the time for it is over: whoever finds both acts. */
    private volatile boolean begins;

    private volatile boolean overdue;
    private volatile boolean acquisitionOver;

    Entry(Session session) {
        this.session = session;
        this.options = session.options();
        this.supply = session.supply();
        this.report = session.report();
        this.live = session.root().live();
    }

    Session session() {
        return session;
    }

    // the wait for a connection --------------------------------------------------------------------------------------

    /** Asks for the connection; whoever calls it has moved the session to ACQUIRING. */
    void begin(ContextView context) {
        if (!session.isNested() && live.isFlooded()) {
            failed(acquisitionError("The connection factory still owes a connection to " + LiveScopes.MOST_ABANDONED
                    + " scopes whose subscribers have left (" + live.summary()
                    + "); let the pool bound its own waits, such as by maxAcquireTime of r2dbc-pool"));
            return;
        }
        if (!live.add(session)) {
            failed(live.refusal(session.label()));
            return;
        }
        if (!session.isAcquiring()) {
            live.remove(session);
            acquisitionOver();
            return;
        }
        report.waiting();
        waitAtMost(options.acquireTimeout().toNanos());
        supply.acquire(this, context);
        if (waitsBelowOthers() && session.isAcquiring()) {
            WaitGraph.INSTANCE.waits(session);
        }
    }

    /** Whether it waits for a connection that scopes around it may keep it from getting. */
    private boolean waitsBelowOthers() {
        return session.parent() != null && !session.isNested() && session.pool().isBounded();
    }

    private void waitsNoMore() {
        if (waitsBelowOthers()) {
            WaitGraph.INSTANCE.waitsNoMore(session);
        }
    }

    private void waitAtMost(long nanos) {
        Pause before = session.pauseAround();
        // it may have fired and armed the next one before it is stored: then that one is not to be disposed of
        acquireTimer.replace(Timers.after(nanos, () -> overdue(before, nanos)));
    }

    /** Whoever waits behind a sibling that holds the connection of an outer scope waits as long as that one works. */
    private void overdue(@Nullable Pause before, long nanos) {
        Pause now = session.pauseAround();
        if (session.waitsBehindASibling() && (now == null || !now.equals(before))) {
            waitAtMost(nanos);
        } else {
            acquireTimedOut();
        }
    }

    void acquireTimedOut() {
        if (!giveUpAcquiring()) {
            overdue = true;
            if (begins) {
                openingTimedOut();
            }
        } else {
            abandoned(acquisitionError("No connection within the acquire timeout of " + options.acquireTimeout() + " ("
                    + live.summary() + "); see ConnectionScopes.live() for who holds them, or raise"
                    + " ScopeOptions.withAcquireTimeout"));
        }
    }

    /** Ends the wait for a connection, says whether it did. {@link #deadlocked} or {@link #left} follows. */
    boolean giveUpAcquiring() {
        return session.move(Phase.ACQUIRING, Phase.ABANDONED);
    }

    /** No connection could ever have come. */
    void deadlocked(NestedAcquireDeadlockException error) {
        report.deadlockAverted(error);
        abandoned(error);
    }

    /** The pipeline has ended before the connection came. */
    void left() {
        abandoned(session.closedError());
    }

    /** Nobody waits for the connection any more, but it may still come. */
    private void abandoned(Throwable reason) {
        acquireTimer.dispose();
        waitsNoMore();
        live.abandon(session);
        if (acquisitionOver) {
            live.forget(session);
        }
        supply.abandon();
        refuse(reason);
    }

    /** No connection arrives any more. */
    void failed(Throwable error) {
        if (session.move(Phase.ACQUIRING, Phase.CLOSED)) {
            acquireTimer.dispose();
            waitsNoMore();
            refuse(error);
        } else {
            acquisitionOver();
        }
    }

    /** No connection comes any more, or the one that came too late was given back. */
    private void acquisitionOver() {
        acquisitionOver = true;
        live.forget(session);
    }

    // the connection is there ----------------------------------------------------------------------------------------

    /**
     * A connection arrived. The wait for BEGIN is timed from after BEGIN was sent, so that what follows a timeout finds the
     * connection and comes after it.
     */
    void received(Connection arrived, ContextView context) {
        try {
            session.connect(arrived);
        } catch (Throwable e) {
            giveBackUnused(arrived, context);
            failed(e);
            return;
        }
        if (!session.move(Phase.ACQUIRING, Phase.OPENING)) {
            session.disconnect();
            giveBackUnused(arrived, context);
            return;
        }
        waitsNoMore();
        Mono<Void> opening = Steps.run(this::reportOpening, () -> new Opening(session, arrived, context).run());
        if (opening == Completion.NOW) {
            try {
                prepared();
            } catch (Throwable e) {
                Operators.onErrorDropped(e, Context.of(context));
            }
        } else {
            opening.subscribe(null, this::notPrepared, this::prepared, Context.of(context));
        }
        if (!settled.get()) {
            timeOpening();
        }
        if (session.isBlocked()) {
            WaitGraph.INSTANCE.received(session);
        }
    }

    private Mono<Void> reportOpening() {
        report.opening();
        return Completion.NOW;
    }

    /**
     * The timer of the acquisition goes on. Whoever waited behind a sibling that worked may have waited for longer than the
     * bound, and still has to open: there the bound begins anew.
     */
    private void timeOpening() {
        if (session.isNested()) {
            openingTimer.update(Timers.after(options.acquireTimeout(), this::openingTimedOut));
            return;
        }
        begins = true;
        if (overdue) {
            openingTimedOut();
        }
    }

    /** Nobody waits for this connection any more. */
    private void giveBackUnused(Connection arrived, ContextView context) {
        Duration bound = options.releaseTimeout();
        supply.release(arrived)
                .timeout(bound, Schedulers.parallel())
                .onErrorResume(e -> {
                    report.releaseFailed(e);
                    return supply.destroy(arrived).timeout(bound, Schedulers.parallel());
                })
                .onErrorComplete()
                .subscribe(null, null, this::acquisitionOver, Context.of(context));
    }

    /** BEGIN is on its way, and statements may follow it; {@link #prepared} or {@link #notPrepared} comes all the same. */
    void mayBeFollowed() {
        if (session.move(Phase.OPENING, Phase.OPEN)) {
            session.opened();
        }
    }

    private void prepared() {
        if (settled.compareAndSet(false, true)) {
            disposeTimers();
            report.opened();
            boolean ours = session.move(Phase.OPENING, Phase.OPEN);
            prepared.complete();
            if (ours) {
                session.opened();
            }
        }
    }

    private void notPrepared(Throwable error) {
        if (settled.compareAndSet(false, true)) {
            disposeTimers();
            boolean ours = endsOpening();
            if (ours) {
                leaveUnopened(error);
            } else {
                session.neverOpened(error);
                report.openFailed(error);
            }
            prepared.complete();
        }
    }

    private void openingTimedOut() {
        if (settled.compareAndSet(false, true)) {
            ScopeAcquisitionException error =
                    acquisitionError("The connection was not ready within the acquire timeout of "
                            + options.acquireTimeout() + ": the database did not answer while the transaction began");
            boolean ours = session.move(Phase.OPENING, Phase.EXITING);
            if (!ours && session.phase() == Phase.OPEN) {
                session.notBegun(error);
                ours = session.move(Phase.OPEN, Phase.EXITING);
            }
            session.condemnUnopened();
            if (ours) {
                prepared.complete();
                leaveUnopened(error);
            } else {
                report.openFailed(error);
                prepared.complete();
            }
        }
    }

    /** Statements may have followed BEGIN already; says whether nobody else ends the session. */
    private boolean endsOpening() {
        return session.move(Phase.OPENING, Phase.EXITING) || session.move(Phase.OPEN, Phase.EXITING);
    }

    /**
     * The connection could not be made ready: gives it back, then tells those who wait for it. A pipeline whose statements may
     * have followed BEGIN waits for the exit alone, and is over when that is.
     */
    private void leaveUnopened(Throwable error) {
        boolean followed = session.beginError() != null;
        if (followed) {
            report.openFailed(error);
        }
        Runnable over = followed ? () -> session.refuse(error, told(error)) : () -> refuse(error);
        new Exit(session, ScopeOutcome.FAILED, false, error, Context.empty())
                .run()
                .subscribe(null, failure -> over.run(), over);
    }

    /** The scope for which it asks. */
    @Nullable
    Scope scope() {
        return session.owner();
    }

    /** Completes when what was begun on the connection has ended, well or not, so that the exit may begin. */
    Mono<Void> over() {
        Mono<Void> over = prepared.asMono();
        if (over == Completion.NOW) {
            disposeTimers();
            return over;
        }
        return over.then(Mono.fromRunnable(this::disposeTimers));
    }

    private void disposeTimers() {
        acquireTimer.dispose();
        openingTimer.dispose();
    }

    private void refuse(Throwable error) {
        live.remove(session);
        report.openFailed(error);
        session.refuse(error, told(error));
    }

    /** What those get who wait for the connection. */
    Throwable told(Throwable error) {
        return error instanceof ScopeException ? error : labelled(error);
    }

    /** The factory's own error, with a note under it that says which scope met it. */
    private Throwable labelled(Throwable error) {
        for (Throwable note : error.getSuppressed()) {
            if (note instanceof ScopeAcquisitionException known
                    && known.scopeOrigin().equals(session.label().origin())) {
                return error;
            }
        }
        error.addSuppressed(acquisitionError("The connection could not be opened"));
        return error;
    }

    ScopeAcquisitionException acquisitionError(String problem) {
        return new ScopeAcquisitionException(problem, session.label(), null);
    }
}
