package dev.r2dbcscope;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * One scope: what its code finds in the Reactor Context, what its handles ask whether they may still be used, and what
 * the operators end.
 *
 * <p>A scope either owns its {@link Session}, and ends it, or has joined the session of an outer scope.
 */
final class Scope {

    private final Session session;
    private final ScopeLabel label;
    private final boolean owner;
    private final boolean transactional;
    private final ContextView context;
    private final AtomicReference<@Nullable Ending> ending = new AtomicReference<>();

    private final @Nullable Scope enclosing;
    private final ScopeWork work;
    private final Bridges bridges = new Bridges();

    private TransactionOptions endings = TransactionOptions.defaults();
    private volatile boolean keptOnCancel;
    private volatile @Nullable Throwable overdue;
    private volatile Consumer<Throwable> pipeline = error -> {};
    private volatile Consumer<Throwable> limited = error -> {};

    private record Ending(ScopeOutcome outcome, @Nullable Throwable error, long nanos) {}

    private Scope(Session session, ScopeLabel label, boolean owner, boolean transactional, ContextView context) {
        this.session = session;
        this.label = label;
        this.owner = owner;
        this.transactional = transactional;
        this.context = context;
        this.enclosing = session.root().current(context);
        Scope around = around();
        this.work = new ScopeWork(this, around == null ? null : around.work);
    }

    static Scope owning(Session session, ContextView context) {
        Scope scope = new Scope(session, session.label(), true, session.isTransactional(), context);
        session.ownedBy(scope);
        session.settings().resolve(context);
        return scope;
    }

    static Scope joining(Session session, ScopeLabel label, boolean transactional, ContextView context) {
        return new Scope(session, label, false, transactional, context);
    }

    /** Takes note of what it does when it is cancelled. */
    Scope endingAs(TransactionOptions options) {
        endings = options;
        return this;
    }

    /** The scope around it that uses the same connection, if there is one. */
    private @Nullable Scope around() {
        return enclosing != null && session.isWithin(enclosing.session) ? enclosing : null;
    }

    /** This scope, or the nearest one around it that has not ended; {@code null} if all have. */
    @Nullable
    Scope nearestOpen() {
        Scope level = this;
        while (level != null && level.closedErrorIfEnded() != null) {
            level = level.enclosing;
        }
        return level;
    }

    ScopeWork work() {
        return work;
    }

    Session session() {
        return session;
    }

    ScopeLabel label() {
        return label;
    }

    Dialect dialect() {
        return session.dialect();
    }

    /** What to call to fail the pipeline from outside. */
    void failsBy(Consumer<Throwable> fail) {
        pipeline = fail;
    }

    /**
     * A subscriber inside the scope threw from a signal, as Reactor's operators do with a fatal error. The operator may be
     * left in a state in which it signals nothing any more, so the error ends the pipeline by itself.
     */
    void subscriberThrew(Throwable fatal) {
        pipeline.accept(fatal);
    }

    /** Whether it may be ended for having held its connection for too long. */
    boolean hasTimeLimits() {
        return owner && TimeLimits.areIn(session.options());
    }

    /** What to call when a time limit of the scope is over. */
    void expiresBy(Consumer<Throwable> expire) {
        limited = expire;
    }

    /** A time limit is over: ends the pipeline with the error, from another thread than the pipeline's own. */
    void expire(ScopeTimeoutException error) {
        limited.accept(error);
    }

    // the three endings, as usingWhen wants them ---------------------------------------------------------------------

    Mono<Void> complete() {
        return end(ScopeOutcome.COMPLETED, null);
    }

    Mono<Void> fail(Throwable error) {
        return end(ScopeOutcome.FAILED, error);
    }

    Mono<Void> cancel() {
        return end(ScopeOutcome.CANCELLED, null);
    }

    /** The error with which the exit itself ended a completed pipeline, if it did. */
    @Nullable
    Throwable endingError() {
        Throwable late = overdue;
        return late != null || !owner ? late : session.commitError();
    }

    /**
     * The subscriber is about to cancel the pipeline, by which statements that wait are taken back: so whether to commit is
     * decided before.
     */
    void cancelling() {
        if (transactional && endings.onCancel() == OnCancel.COMMIT && work.closeIfAnswered()) {
            keptOnCancel = true;
        }
    }

    /** Whether it commits although it was cancelled. */
    boolean isKeptOnCancel() {
        return keptOnCancel;
    }

    /** Whether a cancel is to be kept from the pipeline. */
    boolean completesWithoutSubscriber() {
        return endings.onCancel() == OnCancel.COMPLETE && transactional && owner && !session.isNested();
    }

    Duration completionTimeout() {
        return endings.completionTimeout();
    }

    ScopeTimeoutException detachedTooLongError() {
        return completionTimeoutError("The pipeline went on after its subscriber had cancelled, and had");
    }

    private Mono<Void> end(ScopeOutcome outcome, @Nullable Throwable error) {
        pipeline = late -> Operators.onErrorDropped(late, Context.of(context));
        limited = ignored -> {};
        boolean kept = outcome == ScopeOutcome.CANCELLED && keptOnCancel;
        if (!owner && transactional && outcome != ScopeOutcome.COMPLETED && !kept) {
            session.rollbackOnly(
                    "the joined " + label + (outcome == ScopeOutcome.FAILED ? " failed" : " was cancelled"), error);
        }
        return bridges.sealIfIdle() ? ended(outcome, error) : awaitBridges(outcome, error);
    }

    private Mono<Void> ended(ScopeOutcome outcome, @Nullable Throwable error) {
        ending.compareAndSet(null, new Ending(outcome, error, System.nanoTime()));
        return owner ? session.exit(outcome, error, context) : Mono.empty();
    }

    // code that cannot be cancelled ----------------------------------------------------------------------------------

    /** Keeps this scope and those around it on the same connection from ending; says whether that was in time. */
    boolean hold(BridgedCode code) {
        if (!work.begin()) {
            return false;
        }
        for (Scope level = this; level != null; level = level.around()) {
            if (!level.bridges.enter(code)) {
                leave(code);
                work.answered();
                return false;
            }
        }
        return true;
    }

    /** Lets them end, unless they were let go before. */
    void letGo(BridgedCode code) {
        if (leave(code)) {
            work.answered();
        }
    }

    /** This scope first, so that its ending is under way before the one around it looks. */
    private boolean leave(BridgedCode code) {
        boolean news = bridges.leave(code);
        for (Scope level = around(); level != null; level = level.around()) {
            level.bridges.leave(code);
        }
        return news;
    }

    private Mono<Void> awaitBridges(ScopeOutcome outcome, @Nullable Throwable error) {
        return Shield.start(
                () -> bridges.ended()
                        .thenReturn(true)
                        .timeout(completionTimeout(), Mono.just(false), Schedulers.parallel())
                        .flatMap(inTime -> inTime ? ended(outcome, error) : endedTooLate(outcome, error)),
                context);
    }

    private Mono<Void> endedTooLate(ScopeOutcome outcome, @Nullable Throwable error) {
        ScopeTimeoutException late =
                completionTimeoutError("The pipeline has ended, and code that it started by ScopeBridge had");
        if (!owner && transactional) {
            session.rollbackOnly("the joined " + label + " could not end", late);
        }
        bridges.seal().forEach(BridgedCode::giveUp);
        if (outcome != ScopeOutcome.COMPLETED) {
            return ended(outcome, error);
        }
        overdue = late;
        return ended(ScopeOutcome.FAILED, late).then(Mono.error(late));
    }

    private ScopeTimeoutException completionTimeoutError(String what) {
        return ScopeTimeoutException.completion(
                completionTimeout(), what, session.report().snapshot(), label);
    }

    /** Lets the transaction be rolled back; says whether that was in time. */
    boolean requestRollback() {
        requireOpen();
        return owner
                ? session.rollbackMark().request()
                : session.rollbackOnly("the joined " + label + " asked for it", null);
    }

    // what the handles ask -------------------------------------------------------------------------------------------

    /** The session for a statement that is subscribed to in the given context: that of the innermost transaction. */
    Session sessionFor(ContextView subscriber) {
        return scopeFor(subscriber).session;
    }

    /** The innermost scope of the given context that uses this one's connection, as it is or in a transaction inside. */
    Scope scopeFor(ContextView subscriber) {
        Scope inside = session.root().current(subscriber);
        while (inside != null && !inside.session.isWithin(session)) {
            inside = inside.enclosing;
        }
        return inside == null ? this : inside;
    }

    void requireOpen() {
        RuntimeException error = closedErrorIfEnded();
        if (error != null) {
            throw error;
        }
    }

    /**
     * The same for a call that leads to the database; the listeners hear of one that comes too late. There is no telling who
     * calls, and a pipeline that was cut off may be about to take its next step: that is no offence.
     */
    void requireOpenFor(String call) {
        ScopeClosedException error = closedErrorIfEnded();
        if (error != null) {
            Ending how = lastEnding();
            if (how != null && how.outcome == ScopeOutcome.COMPLETED) {
                session.report().usedAfterEnd(call, error);
            }
            throw error;
        }
    }

    /** The error for somebody who subscribes to something that leads to the database, if he comes too late. */
    @Nullable
    ScopeClosedException refusal(String call, ContextView subscriber) {
        ScopeClosedException error = closedErrorIfEnded();
        if (error != null && lastEnding() != null && !isAround(subscriber)) {
            session.report().usedAfterEnd(call, error);
        }
        return error;
    }

    /** How it ended, or the scope whose session it has joined; {@code null} if it only has no connection. */
    private @Nullable Ending lastEnding() {
        Ending how = ending.get();
        Scope holder = session.owner();
        return how != null || holder == null ? how : holder.ending.get();
    }

    /** Whether the given Context is that of a part of its pipeline. */
    private boolean isAround(ContextView subscriber) {
        Scope inside = session.root().current(subscriber);
        while (inside != null && inside != this) {
            inside = inside.enclosing;
        }
        return inside == this;
    }

    @Nullable
    ScopeClosedException closedErrorIfEnded() {
        return ending.get() == null && !session.isExiting() ? null : closedError();
    }

    /** Whether its pipeline goes on, although its connection could not be opened. */
    boolean isUnopened() {
        return ending.get() == null && session.openingError() != null;
    }

    /** Results and rows of statements that were admitted in time stay readable until the connection is given back. */
    void requireReadable() {
        RuntimeException error = unreadableError();
        if (error != null) {
            throw error;
        }
    }

    @Nullable
    RuntimeException unreadableError() {
        return session.isReadable() ? null : closedError();
    }

    ScopeClosedException closedError() {
        Ending how = ending.get();
        Throwable unopened = session.openingError();
        if (how == null && unopened != null) {
            return new ScopeClosedException(
                    "The scope has no connection, because it could not be opened; see the cause", label, unopened);
        }
        String problem = "The scope has ended";
        if (how != null) {
            problem += " (" + how.outcome.name().toLowerCase(java.util.Locale.ROOT)
                    + (how.error == null ? "" : " with " + how.error.getClass().getName()) + ", "
                    + (System.nanoTime() - how.nanos) / 1_000_000 + " ms ago)";
        }
        return new ScopeClosedException(
                problem + "; its connection, statements, results and rows can be used only by work that its pipeline"
                        + " waits for: return that work from the scope's function, or chain it upstream of the operator",
                label);
    }
}
