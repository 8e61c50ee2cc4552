package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
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

    private volatile Consumer<Throwable> pipeline = error -> {};
    private volatile Consumer<Throwable> limited = error -> {};

    private record Ending(ScopeOutcome outcome, @Nullable Throwable error, long nanos) {}

    private Scope(Session session, ScopeLabel label, boolean owner, boolean transactional, ContextView context) {
        this.session = session;
        this.label = label;
        this.owner = owner;
        this.transactional = transactional;
        this.context = context;
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
        return owner ? session.commitError() : null;
    }

    private Mono<Void> end(ScopeOutcome outcome, @Nullable Throwable error) {
        ending.compareAndSet(null, new Ending(outcome, error, System.nanoTime()));
        pipeline = ignored -> {};
        limited = ignored -> {};
        if (owner) {
            return session.exit(outcome, error, context);
        }
        if (transactional && outcome != ScopeOutcome.COMPLETED) {
            session.rollbackOnly(
                    "the joined " + label + (outcome == ScopeOutcome.FAILED ? " failed" : " was cancelled"), error);
        }
        return Mono.empty();
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
        Scope innermost = session.root().current(subscriber);
        Session inside = innermost == null ? null : innermost.session;
        while (inside != null && !inside.isWithin(session)) {
            inside = inside.parent();
        }
        return inside == null ? session : inside;
    }

    void requireOpen() {
        RuntimeException error = closedErrorIfEnded();
        if (error != null) {
            throw error;
        }
    }

    @Nullable
    RuntimeException closedErrorIfEnded() {
        return ending.get() == null && !session.isExiting() ? null : closedError();
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
