package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.AtomicReferenceFieldUpdater;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * The connection of one scope, from the wish for it until it was given back.
 *
 * <p>One atomic {@link Phase} decides who owns the connection:
 *
 * <pre>
 *   NEW ──open──▶ ACQUIRING ──received──▶ OPENING ──prepared──▶ OPEN
 *    │                │ │                    │                    │
 *   exit       exit or │ failed      exit or failed              exit
 *    ▼          timeout ▼                    ▼                    ▼
 *  CLOSED    ABANDONED  CLOSED            EXITING ──────────▶ CLOSED
 * </pre>
 *
 * <p>A connection that arrives at an abandoned session is given back at once. A session that is left while it opens
 * finishes the opening first and then exits: BEGIN is never cut in two. Whoever moves the phase to EXITING runs the
 * {@link Exit}, once.
 */
final class Session {

    private static final AtomicReferenceFieldUpdater<Session, Phase> PHASE =
            AtomicReferenceFieldUpdater.newUpdater(Session.class, Phase.class, "phase");

    enum Phase {
        NEW,
        ACQUIRING,
        ABANDONED,
        OPENING,
        OPEN,
        EXITING,
        CLOSED
    }

    private final ScopeRoot root;
    private final ScopeOptions options;
    private final @Nullable TransactionOptions transaction;
    private final ScopeLabel label;
    private final Supply supply;
    private final @Nullable Session parent;
    private final @Nullable Session outer;
    private final boolean belongsToALiveOne;
    private final SessionReport report;
    private final Entry entry;
    private final RowBudget budget;

    private final Completion opened = new Completion();
    private final Completion exited = new Completion();
    private final AtomicReference<@Nullable ScopedConnection> userTransaction = new AtomicReference<>();

    private final SettingChanges changes;
    private final AppliedSettings settings;
    private final EndSteps endSteps = new EndSteps();
    private final CursorNames cursorNames;
    private final AtomicInteger transactions = new AtomicInteger();
    private volatile boolean kept;
    private final @Nullable TimeLimits limits;
    private final AbortReason abortReason = new AbortReason();

    private volatile Phase phase = Phase.NEW;
    private volatile @Nullable Scope scope;
    private volatile @Nullable Connection connection;
    private volatile @Nullable Gate gate;
    private volatile Dialect dialect = PlainDialect.INSTANCE;
    private volatile boolean autoCommits = true;
    private volatile boolean blocked;
    private volatile boolean begun;
    private volatile boolean condemned;
    private volatile boolean lost;
    private volatile boolean dying;
    private volatile boolean spent;
    private volatile boolean quiet;
    private volatile @Nullable Throwable openingError;
    private volatile @Nullable RuntimeException beginError;
    private volatile @Nullable Throwable commitError;
    private final RollbackOnly rollbackOnly = new RollbackOnly();
    private final ScopeHooks hooks = new ScopeHooks(this);

    private Session(
            ScopeSpec spec,
            @Nullable TransactionOptions transaction,
            Supply supply,
            @Nullable Session parent,
            @Nullable Session outer,
            boolean belongsToALiveOne) {
        this.root = spec.root();
        this.options = spec.options();
        this.transaction = transaction;
        this.label = spec.label();
        this.belongsToALiveOne = belongsToALiveOne;
        this.supply = supply;
        this.parent = parent;
        this.outer = outer;
        this.budget = new RowBudget(options.maxBufferedRows());
        this.changes = new SettingChanges(outer == null ? null : outer.changes);
        this.settings = new AppliedSettings(this, outer == null ? null : outer.settings);
        this.cursorNames = outer == null ? new CursorNames() : outer.cursorNames;
        this.limits = TimeLimits.of(this, options);
        this.report = new SessionReport(this);
        this.entry = new Entry(this);
    }

    /** A session with a connection of its own; the parent is the scope around it, of whatever factory. */
    static Session ownConnection(
            ScopeSpec spec,
            @Nullable TransactionOptions transaction,
            @Nullable Session parent,
            boolean belongsToALiveOne) {
        return new Session(spec, transaction, spec.root().supply(), parent, null, belongsToALiveOne);
    }

    /** A transaction, or a savepoint in one, on the connection of an outer session. */
    static Session within(Session outer, ScopeSpec spec, TransactionOptions transaction, @Nullable Session parent) {
        return new Session(spec, transaction, new SectionSupply(outer), parent, outer, true);
    }

    void ownedBy(Scope owner) {
        this.scope = owner;
    }

    /** The scope that ends it. */
    @Nullable
    Scope owner() {
        return scope;
    }

    // opening, which is the work of the entry ------------------------------------------------------------------------

    Entry entry() {
        return entry;
    }

    /** Emits this session when it has its connection; the first subscriber makes it get one. */
    Mono<Session> open(ContextView context) {
        return Mono.defer(() -> opening(context).thenReturn(this));
    }

    /** Gets the connection, if that has not begun. Completes when it is there. */
    Mono<Void> opening(ContextView context) {
        if (PHASE.compareAndSet(this, Phase.NEW, Phase.ACQUIRING)) {
            try {
                entry.begin(context);
            } catch (Throwable e) {
                entry.failed(e);
            }
        }
        RuntimeException unbegun = beginError;
        return unbegun == null ? opened.asMono() : Mono.error(unbegun);
    }

    /** The connection is there, and is to be made ready. */
    void connect(Connection arrived) {
        dialect = ScopeRoot.dialect(FactorySupply.physical(arrived));
        gate = new Gate(
                new SessionGateOwner(this), FactorySupply.scheduler(arrived), options.maxStatementsInFlight(), budget);
        connection = arrived;
        autoCommits = outer == null || outer.autoCommits;
    }

    /** The connection came too late. */
    void disconnect() {
        connection = null;
    }

    /** The connection is ready. */
    void opened() {
        if (limits != null) {
            limits.arm(report.held());
        }
        try {
            opened.complete();
        } catch (Throwable e) { // of those who waited for the connection; nobody else would hear of it
            Scope owner = scope;
            if (owner == null) {
                throw e;
            }
            owner.subscriberThrew(e);
        }
    }

    /** There is no connection, and there will be none. */
    void refuse(Throwable reason, Throwable told) {
        openingError = reason;
        opened.fail(told);
        exited.complete();
    }

    /** The connection could not be made ready, and the pipeline has ended already. */
    void neverOpened(Throwable reason) {
        openingError = reason;
    }

    /** BEGIN failed, and statements may be behind it, or come until the exit begins: they get its error. */
    void notBegun(Throwable reason) {
        Throwable told = entry.told(reason);
        beginError = told instanceof RuntimeException known
                ? known
                : new ScopeAcquisitionException("The transaction could not begin", label, told);
        openingError = reason;
    }

    /** What statements get that may have been sent behind a BEGIN that failed. */
    @Nullable
    RuntimeException beginError() {
        return beginError;
    }

    /** Moves on, unless somebody else was faster. */
    boolean move(Phase from, Phase to) {
        return PHASE.compareAndSet(this, from, to);
    }

    // ending ---------------------------------------------------------------------------------------------------------

    /** Ends the session. Completes when the connection was given back; fails if a COMMIT failed. */
    Mono<Void> exit(ScopeOutcome outcome, @Nullable Throwable error, ContextView context) {
        while (true) {
            Phase now = phase;
            switch (now) {
                case NEW -> {
                    if (PHASE.compareAndSet(this, now, Phase.CLOSED)) {
                        opened.fail(closedError());
                        exited.complete();
                        return endWithoutExit(neverOpened(commits(outcome)), context)
                                .then(refuseIfDoomed(outcome));
                    }
                }
                case ACQUIRING -> {
                    if (PHASE.compareAndSet(this, now, Phase.ABANDONED)) {
                        TransactionOutcome how = neverOpened(outcome == ScopeOutcome.COMPLETED);
                        decided(how); // before it is no longer live, so that a shutdown waits for its hooks
                        entry.left();
                        return endWithoutExit(how, context).then(refuseIfDoomed(outcome));
                    }
                }
                case OPENING, OPEN -> {
                    if (PHASE.compareAndSet(this, now, Phase.EXITING)) {
                        if (now == Phase.OPENING) {
                            opened.fail(closedError());
                        }
                        boolean commits = commits(outcome) && (now == Phase.OPEN || outcome == ScopeOutcome.COMPLETED);
                        return leave(outcome, commits, error, context);
                    }
                }
                default -> {
                    return endWithoutExit(neverOpened(false), context).then(refuseIfDoomed(outcome));
                }
            }
        }
    }

    /**
     * Whether a connection was needed makes no difference to whoever relies on a joined scope's failure being noticed. Nor may
     * what was done behind a BEGIN that failed look as if it were committed.
     */
    private Mono<Void> refuseIfDoomed(ScopeOutcome outcome) {
        return Mono.defer(() -> {
            Throwable unbegun = beginError;
            Throwable failure = unbegun == null ? rollbackOnly.error() : unbegun;
            Throwable doomed = outcome == ScopeOutcome.COMPLETED ? failure : null;
            if (doomed == null) {
                return Mono.empty();
            }
            commitError = doomed;
            return Mono.error(doomed);
        });
    }

    /** The session has held its connection for too long: fails the pipeline, which ends the session. */
    void expire(ScopeTimeoutException error) {
        Scope owner = scope;
        if (owner != null && phase == Phase.OPEN) {
            owner.expire(error);
        }
    }

    private boolean commits(ScopeOutcome outcome) {
        Scope owner = scope;
        return outcome == ScopeOutcome.COMPLETED
                || outcome == ScopeOutcome.CANCELLED && owner != null && owner.isKeptOnCancel();
    }

    private Mono<Void> leave(ScopeOutcome outcome, boolean commits, @Nullable Throwable error, ContextView context) {
        if (limits != null) {
            limits.dispose();
        }
        Context after = root.afterTheEnd(context);
        return Shield.start(
                () -> Steps.run(entry::over, () -> {
                    Mono<Void> end = hooks.after(
                            openingError == null
                                    ? new Exit(this, outcome, commits, error, after).run()
                                    : leaveNeverOpened(outcome, after));
                    return outcome == ScopeOutcome.CANCELLED && end != Completion.NOW
                            ? end.onErrorResume(e -> toldToNobody(e, context))
                            : end;
                }),
                after);
    }

    /** The pipeline did not wait for its connection, which could not be made ready: there is nothing to commit. */
    private Mono<Void> leaveNeverOpened(ScopeOutcome outcome, ContextView context) {
        return new Exit(this, ScopeOutcome.FAILED, false, openingError, context)
                .run()
                .then(refuseIfDoomed(outcome));
    }

    private static Mono<Void> toldToNobody(Throwable error, ContextView context) {
        Operators.onErrorDropped(error, Context.of(context));
        return Mono.empty();
    }

    /** The last step of the exit. */
    void closed(
            ScopeOutcome outcome,
            TransactionOutcome how,
            @Nullable Throwable error,
            @Nullable Throwable commitError,
            boolean destroyed) {
        this.commitError = commitError;
        if (limits != null) {
            limits.dispose(); // it may have ended by itself, because it could not begin
        }
        connection = null;
        endSteps.forget();
        phase = Phase.CLOSED;
        root.live().remove(this);
        report.released(outcome, how, error != null ? error : commitError, destroyed);
        exited.complete();
    }

    /** Nothing is in flight any more, and no row can be read. */
    void quiet() {
        quiet = true;
    }

    /**
     * The connection is in an unknown state, because a transaction inside this session could not be ended: nothing more
     * is sent on it, and it will be destroyed.
     */
    void condemn() {
        condemned = true;
        gate().closeAbruptly();
    }

    /** It is not known whether the transaction has begun: the exit will destroy the connection. */
    void condemnUnopened() {
        condemned = true;
    }

    /** The exit has given up: nothing more is sent on the connection, not even by those inside who still use it. */
    void lost() {
        lost = true;
    }

    /** Whether the connection will be destroyed, or was, because this session or one around it could not be ended. */
    boolean isLost() {
        return condemned || lost || outer != null && outer.isLost();
    }

    /** The connection is not to be returned when it is given back, but to be destroyed. */
    void spend() {
        spent = true;
        if (outer != null) {
            outer.spend();
        }
    }

    boolean isSpent() {
        return spent && outer == null;
    }

    /** A transaction was begun, or may have been. */
    void begun() {
        begun = true;
    }

    boolean hasBegun() {
        return begun;
    }

    /** Dooms the transaction, if there is one; says whether that was in time. */
    boolean rollbackOnly(String reason, @Nullable Throwable cause) {
        return transaction != null
                && rollbackOnly.doom(new ScopeRolledBackException(
                        "The transaction was rolled back because " + reason
                                + "; let that failure reach the outer scope, or catch it inside the inner one",
                        label,
                        cause));
    }

    /** What is to run after the exit. */
    ScopeHooks hooks() {
        return hooks;
    }

    /** The exit has decided what became of the transaction, and has not given the connection back yet. */
    void decided(TransactionOutcome how) {
        kept = how == TransactionOutcome.COMMITTED;
        hooks.decide(how, isSavepoint() && outer != null ? outer.hooks : null);
    }

    /** The hooks of a session that ended without an exit, or whose exit came before the end of its pipeline. */
    private Mono<Void> endWithoutExit(TransactionOutcome how, ContextView context) {
        decided(how);
        return Shield.start(() -> hooks.after(exited.asMono()), root.afterTheEnd(context));
    }

    private TransactionOutcome neverOpened(boolean committed) {
        if (transaction == null) {
            return TransactionOutcome.NONE;
        }
        return committed && rollbackOnly.settle() ? TransactionOutcome.COMMITTED : TransactionOutcome.ROLLED_BACK;
    }

    // what others ask ------------------------------------------------------------------------------------------------

    ScopeRoot root() {
        return root;
    }

    ScopeOptions options() {
        return options;
    }

    ScopeLabel label() {
        return label;
    }

    Supply supply() {
        return supply;
    }

    SessionReport report() {
        return report;
    }

    @Nullable
    TransactionOptions transaction() {
        return transaction;
    }

    boolean isTransactional() {
        return transaction != null;
    }

    RollbackOnly rollbackMark() {
        return rollbackOnly;
    }

    /** Completes when the connection was given back. */
    Mono<Void> released() {
        return exited.asMono();
    }

    /** Why it has no connection, if it asked for one in vain. */
    @Nullable
    Throwable openingError() {
        return openingError;
    }

    @Nullable
    Throwable commitError() {
        return commitError;
    }

    AbortReason abortReason() {
        return abortReason;
    }

    boolean isCondemned() {
        return condemned;
    }

    /** Whether the database said that it ends the connection, which may look alive until its socket closes. */
    boolean isDying() {
        return dying;
    }

    boolean isExiting() {
        Phase now = phase;
        return now == Phase.EXITING || now == Phase.CLOSED || now == Phase.ABANDONED;
    }

    /** The gate, unless the connection is still to come or to be made ready. */
    @Nullable
    Gate gateIfOpen() {
        Phase now = phase;
        return now == Phase.OPEN || now == Phase.EXITING || now == Phase.CLOSED ? gate : null;
    }

    boolean isReadable() {
        return !quiet;
    }

    Phase phase() {
        return phase;
    }

    SettingChanges changes() {
        return changes;
    }

    AppliedSettings settings() {
        return settings;
    }

    EndSteps endSteps() {
        return endSteps;
    }

    CursorNames cursorNames() {
        return cursorNames;
    }

    /** How often a transaction was begun or ended through its handles. */
    int transactions() {
        return transactions.get();
    }

    /** A transaction is begun or ended through a handle just now: nothing else is in flight. */
    void transactionChanges() {
        transactions.incrementAndGet();
    }

    /** Whether its statements belong to a transaction: its own, or one that was begun through its handles. */
    boolean isInTransaction() {
        return isTransactional() || userTransaction.get() != null;
    }

    /** What stands still while nothing is being done with the connection, or {@code null} if something is. */
    @Nullable
    Pause pause() {
        Gate current = gate;
        return phase == Phase.OPEN && current != null ? current.pause() : null;
    }

    /** The session of the scope around this one, of whatever connection factory; {@code null} for an outermost one. */
    @Nullable
    Session parent() {
        return parent;
    }

    /** Whether a shutdown waits for it instead of refusing it, because it belongs to a scope that lives. */
    boolean belongsToALiveOne() {
        return belongsToALiveOne;
    }

    /** Whether it is a savepoint in the transaction of an outer session. */
    boolean isSavepoint() {
        return outer != null && outer.isTransactional();
    }

    /** Whether it is over and what was done in it was kept. */
    boolean isKept() {
        return kept;
    }

    /** The session whose transaction it is a savepoint in; {@code null} if it is none. */
    @Nullable
    Session aroundSavepoint() {
        return isSavepoint() ? outer : null;
    }

    /** The name of the savepoint, unique within its transaction. */
    String savepoint() {
        return "scope_" + report.id();
    }

    /** The session that began the transaction which this one is a part of. */
    Session beginner() {
        Session beginner = this;
        while (beginner.isSavepoint() && beginner.outer != null) {
            beginner = beginner.outer;
        }
        return beginner;
    }

    /** The pool from which it gets a connection of its own. */
    Pool pool() {
        return root.pool();
    }

    /** Whether it has asked for a connection and still waits for it. */
    boolean isAcquiring() {
        return phase == Phase.ACQUIRING;
    }

    /** Whether it has got its connection, and has not begun to give it back. */
    boolean isHolding() {
        Phase now = phase;
        return now == Phase.OPENING || now == Phase.OPEN;
    }

    /** A session inside this one waits for a connection of its own, or has done so. */
    void markBlocked() {
        blocked = true;
    }

    boolean isBlocked() {
        return blocked;
    }

    /** Whether a sibling's transaction or savepoint holds the connection for which it waits in an outer session. */
    boolean waitsBehindASibling() {
        Gate around = outer == null ? null : outer.gateIfOpen();
        Exchange holder = around == null ? null : around.oldest();
        return holder != null && holder.holdsForOthers();
    }

    /** What stands still while nothing is being done with the connection for which it waits in an outer session. */
    @Nullable
    Pause pauseAround() {
        return outer == null ? null : outer.pause();
    }

    /** Whether it uses the connection of an outer session. */
    boolean isNested() {
        return outer != null;
    }

    /** Whether the connection of an outer session is in a transaction that no scope has begun. */
    boolean isInForeignTransaction(Connection connection) {
        return outer != null && !isSavepoint() && outer.autoCommits() && !connection.isAutoCommit();
    }

    /** Whether this is the given session or a transaction inside it. */
    boolean isWithin(Session other) {
        for (Session session = this; session != null; session = session.outer) {
            if (session == other) {
                return true;
            }
        }
        return false;
    }

    Gate gate() {
        Gate current = gate;
        if (current == null) {
            throw closedError();
        }
        return current;
    }

    @Nullable
    Gate gateIfAny() {
        return gate;
    }

    RowBudget budget() {
        return budget;
    }

    Connection connection() {
        Connection current = connection;
        if (current == null) {
            throw closedError();
        }
        return current;
    }

    /** The connection, as long as it was not given back: whoever holds a scope's subscription must not hold that, too. */
    @Nullable
    Connection heldConnection() {
        return connection;
    }

    /** Whether the connections of this factory are in auto-commit mode when they are idle. */
    boolean autoCommits() {
        return autoCommits;
    }

    void autoCommits(boolean value) {
        autoCommits = value;
    }

    /** The handle through which user code began a transaction of its own on the connection of a plain scope. */
    AtomicReference<@Nullable ScopedConnection> userTransaction() {
        return userTransaction;
    }

    ScopeClosedException closedError() {
        if (condemned && !isExiting()) {
            return new ScopeClosedException(
                    "The scope's connection can no longer be used: a transaction inside the scope could not be ended,"
                            + " and the connection will be destroyed",
                    label);
        }
        if (isLost() && !isExiting()) {
            return new ScopeClosedException(
                    "The scope's connection can no longer be used: the scope around did not wait for this one any longer"
                            + " than its release timeout, and destroyed the connection; let its pipeline wait for this one",
                    label);
        }
        Scope owner = scope;
        return owner == null ? new ScopeClosedException("The scope has ended", label) : owner.closedError();
    }

    Dialect dialect() {
        return dialect;
    }

    /** Takes notice of an error of the database, for itself and for those whose connection it is. */
    void databaseFailed(Throwable error) {
        abortReason.failed(error);
        if (outer != null) {
            outer.databaseFailed(error);
        } else if (error instanceof R2dbcException known && dialect.endsConnection(known)) {
            dying = true;
        }
    }
}
