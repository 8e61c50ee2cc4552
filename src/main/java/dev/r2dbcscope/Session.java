package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.AtomicReferenceFieldUpdater;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
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
final class Session implements GateOwner {

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
    private final SessionReport report;
    private final RowBudget budget;

    private final Sinks.One<Session> opened = Sinks.one();
    private final Sinks.Empty<Void> prepared = Sinks.empty();
    private final Sinks.Empty<Void> exited = Sinks.empty();
    private final AtomicBoolean settled = new AtomicBoolean();
    private final Disposable.Swap acquireTimer = Disposables.swap();

    /** A timer of its own: each is armed and disposed of by whoever is in charge then, and neither replaces the other. */
    private final Disposable.Swap openingTimer = Disposables.swap();

    private final AtomicReference<@Nullable ScopedConnection> userTransaction = new AtomicReference<>();

    private final SettingChanges changes;
    private final AppliedSettings settings;
    private final @Nullable TimeLimits limits;
    private final AbortReason abortReason = new AbortReason();

    private volatile Phase phase = Phase.NEW;
    private volatile long deadline;
    private volatile @Nullable Scope scope;
    private volatile @Nullable Connection connection;
    private volatile @Nullable Gate gate;
    private volatile Dialect dialect = PlainDialect.INSTANCE;
    private volatile boolean autoCommits = true;
    private volatile boolean acquisitionOver;
    private volatile boolean blocked;
    private volatile boolean begun;
    private volatile boolean condemned;
    private volatile boolean dying;
    private volatile boolean quiet;
    private volatile @Nullable Throwable openingError;
    private volatile @Nullable Throwable commitError;
    private final RollbackOnly rollbackOnly = new RollbackOnly();
    private final ScopeHooks hooks = new ScopeHooks(this);

    private Session(
            ScopeRoot root,
            ScopeOptions options,
            @Nullable TransactionOptions transaction,
            ScopeLabel label,
            Supply supply,
            @Nullable Session parent,
            @Nullable Session outer) {
        this.root = root;
        this.options = options;
        this.transaction = transaction;
        this.label = label;
        this.supply = supply;
        this.parent = parent;
        this.outer = outer;
        this.budget = new RowBudget(options.maxBufferedRows());
        this.changes = new SettingChanges(outer == null ? null : outer.changes);
        this.settings = new AppliedSettings(this, outer == null ? null : outer.settings);
        this.limits = TimeLimits.of(this, options);
        this.report = new SessionReport(this);
    }

    /** A session with a connection of its own; the parent is the scope around it, of whatever factory. */
    static Session ownConnection(ScopeSpec spec, @Nullable TransactionOptions transaction, @Nullable Session parent) {
        ScopeRoot root = spec.root();
        return new Session(root, spec.options(), transaction, spec.label(), root.supply(), parent, null);
    }

    /** A transaction, or a savepoint in one, on the connection of an outer session. */
    static Session within(Session outer, ScopeSpec spec, TransactionOptions transaction, @Nullable Session parent) {
        return new Session(
                spec.root(), spec.options(), transaction, spec.label(), new SectionSupply(outer), parent, outer);
    }

    void ownedBy(Scope owner) {
        this.scope = owner;
    }

    // opening --------------------------------------------------------------------------------------------------------

    /** Emits this session when it has its connection; the first subscriber makes it get one. */
    Mono<Session> open(ContextView context) {
        return Mono.defer(() -> {
            if (PHASE.compareAndSet(this, Phase.NEW, Phase.ACQUIRING)) {
                acquire(context);
            }
            return opened.asMono();
        });
    }

    private void acquire(ContextView context) {
        if (!root.live().add(this)) {
            failed(root.live().refusal(label));
            return;
        }
        if (phase != Phase.ACQUIRING) {
            root.live().remove(this);
            acquisitionOver();
            return;
        }
        report.waiting();
        deadline = System.nanoTime() + options.acquireTimeout().toNanos();
        acquireTimer.update(timer(this::acquireTimedOut));
        supply.acquire(this, context);
        if (waitsBelowOthers() && phase == Phase.ACQUIRING) {
            WaitGraph.INSTANCE.waits(this);
        }
    }

    /** Whether it waits for a connection that scopes around it may keep it from getting. */
    private boolean waitsBelowOthers() {
        return parent != null && outer == null && root.pool().isBounded();
    }

    /** Ends the wait for a connection, says whether it did. {@link #deadlocked} follows. */
    boolean giveUpAcquiring() {
        return PHASE.compareAndSet(this, Phase.ACQUIRING, Phase.ABANDONED);
    }

    /** No connection could ever have come. */
    void deadlocked(NestedAcquireDeadlockException error) {
        acquireTimer.dispose();
        report.deadlockAverted(error);
        abandoned(error);
    }

    private Disposable timer(Runnable expired) {
        return Schedulers.parallel().schedule(expired, Math.max(0, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
    }

    void acquireTimedOut() {
        Duration bound = options.acquireTimeout();
        if (PHASE.compareAndSet(this, Phase.ACQUIRING, Phase.ABANDONED)) {
            abandoned(acquisitionError(
                    "No connection within the acquire timeout of " + bound + " ("
                            + root.live().summary()
                            + "); see ConnectionScopes.live() for who holds them, or raise"
                            + " ScopeOptions.withAcquireTimeout",
                    null));
        }
    }

    private void disposeTimers() {
        acquireTimer.dispose();
        openingTimer.dispose();
    }

    private void openingTimedOut() {
        if (settled.compareAndSet(false, true)) {
            boolean ours = PHASE.compareAndSet(this, Phase.OPENING, Phase.EXITING);
            condemned = true;
            prepared.tryEmitEmpty();
            if (ours) {
                leaveUnopened(acquisitionError(
                        "The connection was not ready within the acquire timeout of " + options.acquireTimeout()
                                + ": the database did not answer while the transaction began",
                        null));
            }
        }
    }

    /**
     * A connection arrived. The wait for BEGIN is timed from after BEGIN was sent, so that what follows a timeout finds the
     * connection and comes after it.
     */
    void received(Connection arrived, ContextView context) {
        try {
            dialect = root.dialect(FactorySupply.physical(arrived));
            gate = new Gate(this, FactorySupply.scheduler(arrived), options.maxStatementsInFlight(), budget);
        } catch (Throwable e) {
            giveBackUnused(arrived, context);
            failed(e);
            return;
        }
        connection = arrived;
        autoCommits = outer == null || outer.autoCommits;
        if (!PHASE.compareAndSet(this, Phase.ACQUIRING, Phase.OPENING)) {
            connection = null;
            giveBackUnused(arrived, context);
            return;
        }
        waitsNoMore();
        Mono.fromRunnable(report::opening)
                .then(new Opening(this, arrived).run())
                .subscribe(null, this::notPrepared, this::prepared, Context.of(context));
        if (!settled.get()) {
            openingTimer.update(timer(this::openingTimedOut));
        }
        if (blocked) {
            WaitGraph.INSTANCE.received(this);
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

    private void prepared() {
        if (settled.compareAndSet(false, true)) {
            disposeTimers();
            report.opened();
            boolean ours = PHASE.compareAndSet(this, Phase.OPENING, Phase.OPEN);
            prepared.tryEmitEmpty();
            if (ours) {
                if (limits != null) {
                    limits.arm(report.held());
                }
                tellOpened();
            }
        }
    }

    /** Nobody else would hear of a fatal error that those who waited for the connection throw. */
    private void tellOpened() {
        try {
            opened.tryEmitValue(this);
        } catch (Throwable e) {
            Scope owner = scope;
            if (owner == null) {
                throw e;
            }
            owner.subscriberThrew(e);
        }
    }

    private void notPrepared(Throwable error) {
        if (settled.compareAndSet(false, true)) {
            disposeTimers();
            boolean ours = PHASE.compareAndSet(this, Phase.OPENING, Phase.EXITING);
            if (ours) {
                leaveUnopened(error);
            } else {
                report.openFailed(error);
            }
            prepared.tryEmitEmpty();
        }
    }

    /** The connection could not be made ready: gives it back, then tells those who wait for it. */
    private void leaveUnopened(Throwable error) {
        new Exit(this, ScopeOutcome.FAILED, false, error)
                .run()
                .subscribe(null, failure -> refuseOpening(error), () -> refuseOpening(error));
    }

    /** No connection arrives any more. */
    void failed(Throwable error) {
        if (PHASE.compareAndSet(this, Phase.ACQUIRING, Phase.CLOSED)) {
            acquireTimer.dispose();
            waitsNoMore();
            refuseOpening(error);
        } else {
            acquisitionOver();
        }
    }

    /** No connection comes any more, or the one that came too late was given back. */
    private void acquisitionOver() {
        acquisitionOver = true;
        root.live().forget(this);
    }

    /** Nobody waits for the connection any more, but it may still come. */
    private void abandoned(Throwable reason) {
        waitsNoMore();
        root.live().abandon(this);
        if (acquisitionOver) {
            root.live().forget(this);
        }
        supply.abandon();
        refuseOpening(reason);
    }

    private void waitsNoMore() {
        if (waitsBelowOthers()) {
            WaitGraph.INSTANCE.waitsNoMore(this);
        }
    }

    private void refuseOpening(Throwable error) {
        root.live().remove(this);
        report.openFailed(error);
        openingError = error;
        opened.tryEmitError(error instanceof ScopeException ? error : labelled(error));
        exited.tryEmitEmpty();
    }

    /** The factory's own error, with a note under it that says which scope met it. */
    private Throwable labelled(Throwable error) {
        for (Throwable note : error.getSuppressed()) {
            if (note instanceof ScopeAcquisitionException known
                    && known.scopeOrigin().equals(label.origin())) {
                return error;
            }
        }
        error.addSuppressed(acquisitionError("The connection could not be opened", null));
        return error;
    }

    ScopeAcquisitionException acquisitionError(String problem, @Nullable Throwable cause) {
        return new ScopeAcquisitionException(problem, label, cause);
    }

    // ending ---------------------------------------------------------------------------------------------------------

    /** Ends the session. Completes when the connection was given back; fails if a COMMIT failed. */
    Mono<Void> exit(ScopeOutcome outcome, @Nullable Throwable error, ContextView context) {
        while (true) {
            Phase now = phase;
            switch (now) {
                case NEW -> {
                    if (PHASE.compareAndSet(this, now, Phase.CLOSED)) {
                        opened.tryEmitError(closedError());
                        exited.tryEmitEmpty();
                        return endWithoutExit(neverOpened(commits(outcome)), context)
                                .then(refuseIfDoomed(outcome));
                    }
                }
                case ACQUIRING -> {
                    if (PHASE.compareAndSet(this, now, Phase.ABANDONED)) {
                        acquireTimer.dispose();
                        abandoned(closedError());
                        return endWithoutExit(neverOpened(false), context);
                    }
                }
                case OPENING, OPEN -> {
                    if (PHASE.compareAndSet(this, now, Phase.EXITING)) {
                        if (now == Phase.OPENING) {
                            opened.tryEmitError(closedError());
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

    /** Whether a connection was needed makes no difference to whoever relies on a joined scope's failure being noticed. */
    private Mono<Void> refuseIfDoomed(ScopeOutcome outcome) {
        return Mono.defer(() -> {
            Throwable doomed = outcome == ScopeOutcome.COMPLETED ? rollbackOnly.error() : null;
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
        return Shield.start(
                () -> prepared.asMono().then(Mono.defer(() -> {
                    disposeTimers();
                    Mono<Void> end = hooks.after(new Exit(this, outcome, commits, error).run());
                    return outcome == ScopeOutcome.CANCELLED ? end.onErrorResume(e -> toldToNobody(e, context)) : end;
                })),
                context);
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
        connection = null;
        phase = Phase.CLOSED;
        root.live().remove(this);
        report.released(outcome, how, error != null ? error : commitError, destroyed);
        exited.tryEmitEmpty();
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
        hooks.decide(how, isSavepoint() && outer != null ? outer.hooks : null);
    }

    /** The hooks of a session that ended without an exit, or whose exit came before the end of its pipeline. */
    private Mono<Void> endWithoutExit(TransactionOutcome how, ContextView context) {
        decided(how);
        return Shield.start(() -> hooks.after(exited.asMono()), context);
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

    /** Whether one of the sessions around it uses the same connection factory. */
    boolean isInsideItsRoot() {
        for (Session around = parent; around != null; around = around.parent) {
            if (around.root == root) {
                return true;
            }
        }
        return false;
    }

    /** Whether it is a savepoint in the transaction of an outer session. */
    boolean isSavepoint() {
        return outer != null && outer.isTransactional();
    }

    /** The name of the savepoint, unique within its transaction. */
    String savepoint() {
        return "scope_" + report.id();
    }

    /** Whether a transaction with these options can be part of this one. */
    void requireCompatible(TransactionOptions inner, ScopeLabel innerLabel) {
        Session begins = this;
        while (begins.isSavepoint() && begins.outer != null) {
            begins = begins.outer;
        }
        TransactionOptions begun = begins.transaction;
        if (begun == null) {
            return;
        }
        IsolationLevel isolation = inner.isolation();
        if (isolation != null && !isolation.equals(begun.isolation())) {
            IsolationLevel other = begun.isolation();
            throw new ScopePropagationException(
                    "It asks for the isolation level " + isolation.asSql() + " inside a transaction that began with "
                            + (other == null ? "the database's own level" : other.asSql()) + ", that of "
                            + begins.label + ": begin that one with the level too, or choose REQUIRES_NEW",
                    innerLabel);
        }
        if (Boolean.FALSE.equals(inner.readOnly()) && Boolean.TRUE.equals(begun.readOnly())) {
            throw new ScopePropagationException(
                    "It asks for a transaction that writes inside a read-only one, that of " + begins.label
                            + ": begin that one without read-only, or choose REQUIRES_NEW",
                    innerLabel);
        }
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

    @Override
    public ScopeClosedException closedError() {
        if (condemned && !isExiting()) {
            return new ScopeClosedException(
                    "The scope's connection can no longer be used: a transaction inside the scope could not be ended,"
                            + " and the connection will be destroyed",
                    label);
        }
        Scope owner = scope;
        return owner == null ? new ScopeClosedException("The scope has ended", label) : owner.closedError();
    }

    @Override
    public NestedReadOverflowException overflowError(String openSql, String waitingSql) {
        return new NestedReadOverflowException(openSql, waitingSql, options.maxBufferedRows(), label);
    }

    @Override
    public ScopeAcquisitionException heldError(String waitingSql, String holder) {
        return acquisitionError(
                "\"" + waitingSql + "\" waited for longer than the acquire timeout of " + options.acquireTimeout()
                        + " for the connection, which " + holder
                        + " holds; if the statement is meant to be part of that"
                        + " transaction, it has lost the Reactor Context on its way (a CompletableFuture, an inner"
                        + " subscribe()): use the connection that inTransaction hands out",
                null);
    }

    @Override
    public Duration longestHold() {
        return options.acquireTimeout();
    }

    @Override
    public Dialect dialect() {
        return dialect;
    }

    @Override
    public void databaseFailed(Throwable error) {
        abortReason.failed(error);
        if (outer != null) {
            outer.databaseFailed(error);
        } else if (error instanceof R2dbcException known && dialect.endsConnection(known)) {
            dying = true;
        }
    }

    @Override
    public Throwable shown(Throwable error, String sql, long nanos) {
        return settings.shown(error, sql, Duration.ofNanos(nanos));
    }

    @Override
    public void statementEnded(String sql, long nanos, long rows, @Nullable Throwable error) {
        report.statementEnded(sql, nanos, rows, error);
    }
}
