package dev.r2dbcscope;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * How a scope behaves. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * @see ConnectionScopes#with(ScopeOptions)
 */
public final class ScopeOptions {

    private static final Duration FOR_EVER = Duration.ofDays(36_500);

    private static final ScopeOptions DEFAULTS =
            new ScopeOptions(null, Duration.ofSeconds(30), Duration.ofSeconds(5), 10_000, 64, Duration.ZERO, List.of());

    private final @Nullable String name;
    private final Duration acquireTimeout;
    private final Duration releaseTimeout;
    private final int maxBufferedRows;
    private final int maxStatementsInFlight;
    private final Duration leakThreshold;
    private final List<ScopeListener> listeners;

    private ScopeOptions(
            @Nullable String name,
            Duration acquireTimeout,
            Duration releaseTimeout,
            int maxBufferedRows,
            int maxStatementsInFlight,
            Duration leakThreshold,
            List<ScopeListener> listeners) {
        this.name = name;
        this.acquireTimeout = acquireTimeout;
        this.releaseTimeout = releaseTimeout;
        this.maxBufferedRows = maxBufferedRows;
        this.maxStatementsInFlight = maxStatementsInFlight;
        this.leakThreshold = leakThreshold;
        this.listeners = listeners;
    }

    /**
     * Returns the default options: named after the method that assembles the scope, an acquire timeout of 30 seconds, a
     * release timeout of 5 seconds, at most 10,000 buffered rows and 64 statements in flight, no leak detection, no
     * listener.
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
        return new ScopeOptions(
                name, acquireTimeout, releaseTimeout, maxBufferedRows, maxStatementsInFlight, leakThreshold, listeners);
    }

    /**
     * Bounds the wait for a connection. When it expires, the subscriber gets a {@link ScopeAcquisitionException}; a
     * connection that arrives later is given back unused.
     *
     * @param acquireTimeout the bound, positive; 30 seconds by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public ScopeOptions withAcquireTimeout(Duration acquireTimeout) {
        return new ScopeOptions(
                name,
                positive(acquireTimeout, "acquireTimeout"),
                releaseTimeout,
                maxBufferedRows,
                maxStatementsInFlight,
                leakThreshold,
                listeners);
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
        return new ScopeOptions(
                name,
                acquireTimeout,
                positive(releaseTimeout, "releaseTimeout"),
                maxBufferedRows,
                maxStatementsInFlight,
                leakThreshold,
                listeners);
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
        return new ScopeOptions(
                name,
                acquireTimeout,
                releaseTimeout,
                positive(maxBufferedRows, "maxBufferedRows"),
                maxStatementsInFlight,
                leakThreshold,
                listeners);
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
        return new ScopeOptions(
                name, acquireTimeout, releaseTimeout, maxBufferedRows, maxStatementsInFlight, leakThreshold, listeners);
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
        if (Objects.requireNonNull(leakThreshold, "leakThreshold").isNegative()) {
            throw new IllegalArgumentException("leakThreshold must not be negative: " + leakThreshold);
        }
        return new ScopeOptions(
                name,
                acquireTimeout,
                releaseTimeout,
                maxBufferedRows,
                maxStatementsInFlight,
                capped(leakThreshold),
                listeners);
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
        return new ScopeOptions(
                name,
                acquireTimeout,
                releaseTimeout,
                maxBufferedRows,
                maxStatementsInFlight,
                leakThreshold,
                List.copyOf(more));
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
     * Returns the leak threshold.
     *
     * @return the threshold; zero if leaks are not reported
     */
    public Duration leakThreshold() {
        return leakThreshold;
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
                + releaseTimeout + ", maxBufferedRows=" + maxBufferedRows + ", maxStatementsInFlight="
                + maxStatementsInFlight + ", leakThreshold=" + leakThreshold + ", listeners=" + listeners.size()
                + "]";
    }

    static Duration positive(Duration value, String parameter) {
        if (Objects.requireNonNull(value, parameter).isNegative() || value.isZero()) {
            throw new IllegalArgumentException(parameter + " must be positive: " + value);
        }
        return capped(value);
    }

    /** Whoever asks for more than a century means for ever; timers count nanoseconds in a long. */
    private static Duration capped(Duration value) {
        return value.compareTo(FOR_EVER) > 0 ? FOR_EVER : value;
    }

    private static int positive(int value, String parameter) {
        if (value <= 0) {
            throw new IllegalArgumentException(parameter + " must be positive: " + value);
        }
        return value;
    }
}
