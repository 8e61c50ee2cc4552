package dev.r2dbcscope;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * How a scope behaves. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * @see ConnectionScopes#with(ScopeOptions)
 */
public final class ScopeOptions {

    private static final Duration FOR_EVER = Duration.ofDays(36_500);

    private static final ScopeOptions DEFAULTS = new ScopeOptions(new Draft());

    private final @Nullable String name;
    private final Duration acquireTimeout;
    private final Duration releaseTimeout;
    private final Duration hookTimeout;
    private final int maxBufferedRows;
    private final int maxStatementsInFlight;
    private final int maxStatementsWaiting;
    private final Duration leakThreshold;
    private final Duration maxHold;
    private final Duration maxIdle;
    private final Duration statementTimeout;
    private final Duration lockWaitTimeout;
    private final Duration cancelGrace;
    private final boolean holdableCursors;
    private final Duration pipelinedBegin;
    private final boolean transactionPooling;
    private final SessionSettings settings;
    private final List<ScopeListener> listeners;

    private ScopeOptions(Draft draft) {
        this.name = draft.name;
        this.acquireTimeout = draft.acquireTimeout;
        this.releaseTimeout = draft.releaseTimeout;
        this.hookTimeout = draft.hookTimeout;
        this.maxBufferedRows = draft.maxBufferedRows;
        this.maxStatementsInFlight = draft.maxStatementsInFlight;
        this.maxStatementsWaiting = draft.maxStatementsWaiting;
        this.leakThreshold = draft.leakThreshold;
        this.maxHold = draft.maxHold;
        this.maxIdle = draft.maxIdle;
        this.statementTimeout = draft.statementTimeout;
        this.lockWaitTimeout = draft.lockWaitTimeout;
        this.cancelGrace = draft.cancelGrace;
        this.holdableCursors = draft.holdableCursors;
        this.pipelinedBegin = draft.pipelinedBegin;
        this.transactionPooling = draft.transactionPooling;
        this.settings = draft.settings;
        this.listeners = draft.listeners;
    }

    /** The options while a copy is made; it starts as the defaults. */
    private static final class Draft {

        private @Nullable String name;
        private Duration acquireTimeout = Duration.ofSeconds(30);
        private Duration releaseTimeout = Duration.ofSeconds(5);
        private Duration hookTimeout = Duration.ofSeconds(30);
        private int maxBufferedRows = 10_000;
        private int maxStatementsInFlight = 64;
        private int maxStatementsWaiting = 100_000;
        private Duration leakThreshold = Duration.ZERO;
        private Duration maxHold = Duration.ZERO;
        private Duration maxIdle = Duration.ZERO;
        private Duration statementTimeout = Duration.ZERO;
        private Duration lockWaitTimeout = Duration.ZERO;
        private Duration cancelGrace = Duration.ofMillis(20);
        private boolean holdableCursors;
        private Duration pipelinedBegin = Duration.ofNanos(500_000);
        private boolean transactionPooling;
        private SessionSettings settings = SessionSettings.none();
        private List<ScopeListener> listeners = List.of();
    }

    private ScopeOptions with(Consumer<Draft> change) {
        Draft draft = new Draft();
        draft.name = name;
        draft.acquireTimeout = acquireTimeout;
        draft.releaseTimeout = releaseTimeout;
        draft.hookTimeout = hookTimeout;
        draft.maxBufferedRows = maxBufferedRows;
        draft.maxStatementsInFlight = maxStatementsInFlight;
        draft.maxStatementsWaiting = maxStatementsWaiting;
        draft.leakThreshold = leakThreshold;
        draft.maxHold = maxHold;
        draft.maxIdle = maxIdle;
        draft.statementTimeout = statementTimeout;
        draft.lockWaitTimeout = lockWaitTimeout;
        draft.cancelGrace = cancelGrace;
        draft.holdableCursors = holdableCursors;
        draft.pipelinedBegin = pipelinedBegin;
        draft.transactionPooling = transactionPooling;
        draft.settings = settings;
        draft.listeners = listeners;
        change.accept(draft);
        if (draft.holdableCursors && draft.transactionPooling) {
            throw new IllegalArgumentException(
                    "holdableCursors and transactionPooling exclude each other: a cursor that"
                            + " outlives its transaction needs a database session of its own");
        }
        return new ScopeOptions(draft);
    }

    /**
     * Returns the default options: named after the method that assembles the scope, an acquire timeout of 30 seconds, a
     * release timeout of 5 seconds, a hook timeout of 30 seconds, at most 10,000 buffered rows, 64 statements in flight and
     * 100,000 that wait, no leak detection, no time limits, a cancel grace of 20 milliseconds, no holdable cursors, no transaction pooling, no
     * session settings, no listener.
     *
     * @return the defaults
     */
    public static ScopeOptions defaults() {
        return DEFAULTS;
    }

    /**
     * Names the scope in errors, events and {@link ConnectionScopes#live()}. By default it is named after the class and
     * method that assembles it.
     *
     * @param name the name, not blank
     * @return a copy with that name
     * @throws IllegalArgumentException if the name is blank
     */
    public ScopeOptions withName(String name) {
        if (Objects.requireNonNull(name, "name").isBlank()) {
            throw new IllegalArgumentException("name must not be blank");
        }
        return with(draft -> draft.name = name);
    }

    /**
     * Bounds the wait for a connection until it is ready, which includes its BEGIN or SAVEPOINT and the session settings. When
     * it expires, the subscriber gets a {@link ScopeAcquisitionException}; a connection that arrives later is given back
     * unused. A transaction or savepoint on the connection of an outer scope waits for its turn within the same bound, and so
     * does the first statement that waits behind one which does nothing in the database.
     *
     * @param acquireTimeout the bound, positive; 30 seconds by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ScopeOptions withAcquireTimeout(Duration acquireTimeout) {
        return with(draft -> draft.acquireTimeout = positive(acquireTimeout, "acquireTimeout"));
    }

    /**
     * Bounds each step of the exit: awaiting the statements in flight, COMMIT or ROLLBACK, and giving the connection
     * back. When it expires, the physical connection is destroyed instead of returned.
     *
     * @param releaseTimeout the bound of one step, positive; 5 seconds by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ScopeOptions withReleaseTimeout(Duration releaseTimeout) {
        return with(draft -> draft.releaseTimeout = positive(releaseTimeout, "releaseTimeout"));
    }

    /**
     * Bounds how many rows of one scope are read ahead of their subscribers. Rows are read ahead only while another
     * statement waits behind an open result, because a connection serves its results strictly in order. Beyond the bound
     * the open result fails with {@link NestedReadOverflowException}.
     *
     * @param maxBufferedRows the bound, positive; 10,000 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ScopeOptions withMaxBufferedRows(int maxBufferedRows) {
        return with(draft -> draft.maxBufferedRows = positive(maxBufferedRows, "maxBufferedRows"));
    }

    /**
     * Bounds how many statements of one scope are with the driver at once. More of them wait in order, without an error.
     *
     * @param maxStatementsInFlight the bound, from 1 to 200 (r2dbc-postgresql refuses more than 256 requests at once);
     *     64 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is outside that range
     */
    public ScopeOptions withMaxStatementsInFlight(int maxStatementsInFlight) {
        if (positive(maxStatementsInFlight, "maxStatementsInFlight") > 200) {
            throw new IllegalArgumentException("maxStatementsInFlight must be at most 200: " + maxStatementsInFlight);
        }
        return with(draft -> draft.maxStatementsInFlight = maxStatementsInFlight);
    }

    /**
     * Bounds how many statements of one scope wait for their turn, besides those that are with the driver, because each of
     * them is kept in memory. One more fails with {@link StatementQueueOverflowException}; those that wait are not affected.
     * Statements whose subscribers have left do not count.
     *
     * @param maxStatementsWaiting the bound, positive; 100,000 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ScopeOptions withMaxStatementsWaiting(int maxStatementsWaiting) {
        return with(draft -> draft.maxStatementsWaiting = positive(maxStatementsWaiting, "maxStatementsWaiting"));
    }

    /**
     * Reports a scope that holds its connection for longer than this, once, with its origin; and reports it again when it
     * gave the connection back after all. The report is a log line at level WARN and a {@link ScopeEvent.LeakSuspected}.
     *
     * @param leakThreshold the threshold, or zero to switch the reports off, which is the default
     * @return a copy with that threshold
     * @throws IllegalArgumentException if it is negative
     */
    public ScopeOptions withLeakThreshold(Duration leakThreshold) {
        return with(draft -> draft.leakThreshold = notNegative(leakThreshold, "leakThreshold"));
    }

    /**
     * Bounds each hook that code inside the scope registered with {@link CurrentScope}. When it expires, the hook is
     * cancelled, the listeners hear of it, and the next one runs.
     *
     * @param hookTimeout the bound of one hook, positive; 30 seconds by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ScopeOptions withHookTimeout(Duration hookTimeout) {
        return with(draft -> draft.hookTimeout = positive(hookTimeout, "hookTimeout"));
    }

    /**
     * Bounds how long a scope holds its connection. When it expires, the pipeline is cancelled and fails with a {@link
     * ScopeTimeoutException}, and the scope exits as after any other error. Scopes that join another one are bound by
     * that one's limits.
     *
     * @param maxHold the bound, from the arrival of the connection on; zero, the default, for none
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is negative
     */
    public ScopeOptions withMaxHold(Duration maxHold) {
        return with(draft -> draft.maxHold = notNegative(maxHold, "maxHold"));
    }

    /**
     * Bounds how long a scope holds its connection without using it: nothing is in flight, because the pipeline works on
     * something else, or rows are ready and the subscriber does not ask for them. The scope is looked at eight times within
     * the bound, so a pause is noticed at most an eighth later than that. When it expires, the pipeline is cancelled and fails with a {@link ScopeTimeoutException}, and the scope exits as after any other error. Scopes that
     * join another one are bound by that one's limits.
     *
     * @param maxIdle the bound of one such pause; zero, the default, for none
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is negative
     */
    public ScopeOptions withMaxIdle(Duration maxIdle) {
        return with(draft -> draft.maxIdle = notNegative(maxIdle, "maxIdle"));
    }

    /**
     * Bounds how long the database works on one statement. It is set on the connection when the scope begins and taken
     * back at its exit; the database ends a statement that takes longer, which then fails with a {@link
     * ScopeTimeoutException}. Scopes that join another one, or are a savepoint in it, are bound by that one's.
     *
     * @param statementTimeout the bound, at least a millisecond; zero, the default, leaves it to the database
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is negative, or positive and shorter than a millisecond
     */
    public ScopeOptions withStatementTimeout(Duration statementTimeout) {
        return with(draft -> draft.statementTimeout = milliseconds(statementTimeout, "statementTimeout"));
    }

    /**
     * Bounds how long a statement waits for a lock. It is set on the connection when the scope begins and taken back at
     * its exit; a statement that waits longer fails with a {@link ScopeTimeoutException}. For a transaction, {@link
     * TransactionOptions#withLockWaitTimeout} comes first. Scopes that join another one, or are a savepoint in it, are
     * bound by that one's.
     *
     * @param lockWaitTimeout the bound, at least a millisecond; zero, the default, leaves it to the database
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is negative, or positive and shorter than a millisecond
     */
    public ScopeOptions withLockWaitTimeout(Duration lockWaitTimeout) {
        return with(draft -> draft.lockWaitTimeout = milliseconds(lockWaitTimeout, "lockWaitTimeout"));
    }

    /**
     * Says how long a statement that nobody waits for any more may go on, before the database is asked to cancel it: after
     * a cancel, an error or a time limit, or when its subscriber has seen enough. One that has sent thousands of rows to nobody
     * meanwhile is not given all of it. Only databases whose dialect can do it are asked (PostgreSQL); a statement in a
     * transaction that goes on is never cancelled, because that would abort the transaction.
     *
     * <p>Until the request is answered and the statement has ended, which is told to the listeners as {@link
     * ScopeEvent.CancelRequested}, no other statement is sent and the connection is not given back, so the request hits
     * nothing else. If it fails, or is not answered within the release timeout, the connection is destroyed, unless it is
     * certain that the request was never sent; then, and when the statement goes on in spite of it, it is repeated, at most
     * ten times a second.
     *
     * @param cancelGrace how long; zero to ask at once; 20 milliseconds by default. A very long one never asks, so that
     *     what a statement still sends is read and thrown away.
     * @return a copy with that grace
     * @throws IllegalArgumentException if it is negative
     */
    public ScopeOptions withCancelGrace(Duration cancelGrace) {
        return with(draft -> draft.cancelGrace = notNegative(cancelGrace, "cancelGrace"));
    }

    /**
     * Reads a query with a {@linkplain io.r2dbc.spi.Statement#fetchSize fetch size} through a cursor outside a
     * transaction, too. The database computes the whole result of such a query and stores it before it gives the first row
     * (PostgreSQL: {@code WITH HOLD}); the cursor is closed at its end, or else at the scope's exit. Without this, only a
     * query inside a transaction is read through a cursor, and outside the driver's own fetch size serves.
     *
     * @param holdableCursors whether to; {@code false} by default
     * @return a copy that does or does not
     * @throws IllegalArgumentException together with {@link #withTransactionPooling}: such a cursor needs a database session
     *     of its own
     */
    public ScopeOptions withHoldableCursors(boolean holdableCursors) {
        return with(draft -> draft.holdableCursors = holdableCursors);
    }

    /**
     * Sets from which round trip on the first statement of a transaction is sent right behind BEGIN, without waiting for the
     * answer: a transaction of k statements takes k + 1 round trips then, and k + 2 otherwise.
     *
     * <p>If BEGIN fails, which takes a cancel request or a timeout that hits just it, the statement does not take effect: a guard
     * goes between the two, which ends the connection then. That is one more statement for the database, of some 60 to 80 µs
     * on PostgreSQL 15, which is why it is not worth while on a network that is about as fast. The time is measured: it is the
     * shortest in which the last 16 to 128 BEGINs of the connection factory were answered, and not known before.
     *
     * <p>The pipeline begins when BEGIN is sent. If BEGIN fails, its statements fail with BEGIN's error, and the scope does when the
     * pipeline ends, whatever that has made of it.
     *
     * <p>Statements wait for the answer to BEGIN all the same where the dialect does not say how to send them before ({@link
     * Dialect#pipelinedBegin}), on a connection in a proxy, in a transaction inside another scope, with session settings whose
     * values are bound ({@link SessionSettings#withValuesInSql}), and when the first one is not a query or change of data, such
     * as {@code LOCK} or {@code COPY}, or is not a statement, such as a savepoint.
     *
     * @param roundTrip the least time in which BEGIN is answered, 500 µs by default; zero: always; {@code Duration.ofDays(1)},
     *     for instance: never
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is negative
     */
    public ScopeOptions withPipelinedBegin(Duration roundTrip) {
        return with(draft -> draft.pipelinedBegin = notNegative(roundTrip, "roundTrip"));
    }

    /**
     * Says that something between the driver and the database hands out the database's sessions for one transaction at a
     * time, such as PgBouncer with {@code pool_mode = transaction}. What needs the same session for longer than a transaction
     * is refused with {@link TransactionPoolingException} then, instead of acting on somebody else's session:
     *
     * <ul>
     *   <li>session settings, a statement timeout or a lock wait timeout of a plain scope; in a transaction they are local to
     *       it, and remain possible;
     *   <li>{@code setStatementTimeout}, {@code setLockWaitTimeout} and {@code setTransactionIsolationLevel} of the SPI's
     *       {@code Connection}, which outlive a transaction; {@link TransactionOptions} and these options have the same for
     *       one transaction;
     *   <li>locks and notifications of the database's session;
     *   <li>a driver that keeps prepared statements on the session under names of its own, which other clients' may have as
     *       well: the wrong one would run. With r2dbc-postgresql configure {@code preparedStatementCacheQueries(0)}. It is
     *       found out with one short statement for each physical connection.
     * </ul>
     *
     * <p>What SQL text does, such as a {@code SET} of one's own, is not looked at. All scopes of a connection factory should
     * have the same value here: one that joins another is as that one is.
     *
     * @param transactionPooling whether there is; {@code false} by default
     * @return a copy that knows it
     * @throws IllegalArgumentException together with {@link #withHoldableCursors}
     */
    public ScopeOptions withTransactionPooling(boolean transactionPooling) {
        return with(draft -> draft.transactionPooling = transactionPooling);
    }

    /**
     * Sets what the database keeps for each connection, such as a role, a search path or a tenant, for the length of the
     * scope. A scope that would join one that runs under other values fails with {@link ScopePropagationException}.
     *
     * @param settings the settings; none by default
     * @return a copy with those settings instead of the former ones
     */
    public ScopeOptions withSettings(SessionSettings settings) {
        Objects.requireNonNull(settings, "settings");
        return with(draft -> draft.settings = settings);
    }

    /**
     * Adds a listener. Listeners are told in the order in which they were added.
     *
     * @param listener the listener
     * @return a copy that has it too
     */
    public ScopeOptions withListener(ScopeListener listener) {
        Objects.requireNonNull(listener, "listener");
        List<ScopeListener> more = new ArrayList<>(listeners);
        more.add(listener);
        return with(draft -> draft.listeners = List.copyOf(more));
    }

    /**
     * Returns the name.
     *
     * @return the name, or {@code null} if scopes are named after where they are assembled
     */
    public @Nullable String name() {
        return name;
    }

    /**
     * Returns the bound of the wait for a connection.
     *
     * @return the acquire timeout
     */
    public Duration acquireTimeout() {
        return acquireTimeout;
    }

    /**
     * Returns the bound of each step of the exit.
     *
     * @return the release timeout
     */
    public Duration releaseTimeout() {
        return releaseTimeout;
    }

    /**
     * Returns the bound of the rows that are read ahead.
     *
     * @return the bound, in rows
     */
    public int maxBufferedRows() {
        return maxBufferedRows;
    }

    /**
     * Returns the bound of the statements in flight.
     *
     * @return the bound, in statements
     */
    public int maxStatementsInFlight() {
        return maxStatementsInFlight;
    }

    /**
     * Returns the bound of the statements that wait for their turn.
     *
     * @return the bound
     */
    public int maxStatementsWaiting() {
        return maxStatementsWaiting;
    }

    /**
     * Returns the leak threshold.
     *
     * @return the threshold; zero if leaks are not reported
     */
    public Duration leakThreshold() {
        return leakThreshold;
    }

    /**
     * Returns the bound of one hook.
     *
     * @return the hook timeout
     */
    public Duration hookTimeout() {
        return hookTimeout;
    }

    /**
     * Returns the bound of the time that a connection is held.
     *
     * @return the bound; zero if there is none
     */
    public Duration maxHold() {
        return maxHold;
    }

    /**
     * Returns the bound of the time that a connection is held without being used.
     *
     * @return the bound; zero if there is none
     */
    public Duration maxIdle() {
        return maxIdle;
    }

    /**
     * Returns the bound of one statement.
     *
     * @return the bound; zero if it is left to the database
     */
    public Duration statementTimeout() {
        return statementTimeout;
    }

    /**
     * Returns the bound of the wait for a lock.
     *
     * @return the bound; zero if it is left to the database
     */
    public Duration lockWaitTimeout() {
        return lockWaitTimeout;
    }

    /**
     * Returns how long a statement that nobody waits for may go on.
     *
     * @return the grace
     */
    public Duration cancelGrace() {
        return cancelGrace;
    }

    /**
     * Returns whether queries with a fetch size are read through a cursor outside a transaction, too.
     *
     * @return {@code true} if they are
     */
    public boolean holdableCursors() {
        return holdableCursors;
    }

    /**
     * Returns from which round trip on the first statement of a transaction is sent right behind BEGIN.
     *
     * @return the least time in which BEGIN is answered
     */
    public Duration pipelinedBegin() {
        return pipelinedBegin;
    }

    /**
     * Returns whether the database's sessions are handed out for one transaction at a time.
     *
     * @return {@code true} if they are
     */
    public boolean transactionPooling() {
        return transactionPooling;
    }

    /**
     * Returns the session settings.
     *
     * @return the settings
     */
    public SessionSettings settings() {
        return settings;
    }

    /**
     * Returns the listeners.
     *
     * @return the listeners, in the order in which they are told
     */
    public List<ScopeListener> listeners() {
        return listeners;
    }

    @Override
    public String toString() {
        return "ScopeOptions[name=" + name + ", acquireTimeout=" + acquireTimeout + ", releaseTimeout="
                + releaseTimeout + ", hookTimeout=" + hookTimeout + ", maxBufferedRows=" + maxBufferedRows
                + ", maxStatementsInFlight=" + maxStatementsInFlight + ", maxStatementsWaiting=" + maxStatementsWaiting
                + ", leakThreshold=" + leakThreshold + ", maxHold="
                + maxHold + ", maxIdle=" + maxIdle + ", statementTimeout=" + statementTimeout + ", lockWaitTimeout="
                + lockWaitTimeout + ", cancelGrace=" + cancelGrace + ", holdableCursors=" + holdableCursors
                + ", pipelinedBegin=" + pipelinedBegin
                + ", transactionPooling=" + transactionPooling + ", settings=" + settings + ", listeners="
                + listeners.size() + "]";
    }

    static Duration positive(Duration value, String parameter) {
        if (Objects.requireNonNull(value, parameter).isNegative() || value.isZero()) {
            throw new IllegalArgumentException(parameter + " must be positive: " + value);
        }
        return capped(value);
    }

    private static Duration notNegative(Duration value, String parameter) {
        if (Objects.requireNonNull(value, parameter).isNegative()) {
            throw new IllegalArgumentException(parameter + " must not be negative: " + value);
        }
        return capped(value);
    }

    private static Duration milliseconds(Duration value, String parameter) {
        if (!notNegative(value, parameter).isZero() && value.toMillis() == 0) {
            throw new IllegalArgumentException(parameter + " must be at least a millisecond: " + value);
        }
        return capped(value);
    }

    /** Whoever asks for more than a century means for ever; timers count nanoseconds in a long. */
    private static Duration capped(Duration value) {
        return value.compareTo(FOR_EVER) > 0 ? FOR_EVER : value;
    }

    static int positive(int value, String parameter) {
        if (value <= 0) {
            throw new IllegalArgumentException(parameter + " must be positive: " + value);
        }
        return value;
    }
}
