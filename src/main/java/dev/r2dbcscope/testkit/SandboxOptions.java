package dev.r2dbcscope.testkit;

import java.time.Duration;
import java.util.Objects;

/** How a {@link RollbackSandbox} behaves. Immutable and thread-safe; every {@code with} method returns a copy. */
public final class SandboxOptions {

    private static final SandboxOptions DEFAULTS =
            new SandboxOptions(Duration.ofSeconds(10), Duration.ofSeconds(5), false, false, false);

    private final Duration waitLimit;
    private final Duration closeGrace;
    private final boolean nesting;
    private final boolean deferredConstraints;
    private final boolean realOutside;

    private SandboxOptions(
            Duration waitLimit,
            Duration closeGrace,
            boolean nesting,
            boolean deferredConstraints,
            boolean realOutside) {
        this.waitLimit = waitLimit;
        this.closeGrace = closeGrace;
        this.nesting = nesting;
        this.deferredConstraints = deferredConstraints;
        this.realOutside = realOutside;
    }

    /**
     * Returns the default options: a wait limit of 10 seconds, a close grace of 5 seconds, no nesting, deferred constraints
     * left deferred, and no connections outside a test.
     *
     * @return the defaults
     */
    public static SandboxOptions defaults() {
        return DEFAULTS;
    }

    /**
     * Bounds how long a connection waits for one whose transaction is open and does nothing: then it fails with {@link
     * SandboxBusyException}, or is {@linkplain #withNesting nested}. Who waits for a transaction that works is not bounded.
     *
     * @param waitLimit the bound, positive; 10 seconds by default
     * @return a copy with this bound
     */
    public SandboxOptions withWaitLimit(Duration waitLimit) {
        return new SandboxOptions(
                positive(waitLimit, "waitLimit"), closeGrace, nesting, deferredConstraints, realOutside);
    }

    /**
     * Bounds how long {@link RollbackSandbox#rollback} waits for connections that are still open, such as those of a request
     * whose client has gone, before it takes them for leaks.
     *
     * @param closeGrace the bound, zero or positive; 5 seconds by default
     * @return a copy with this bound
     */
    public SandboxOptions withCloseGrace(Duration closeGrace) {
        if (Objects.requireNonNull(closeGrace, "closeGrace").isNegative()) {
            throw new IllegalArgumentException("closeGrace must not be negative, but is " + closeGrace);
        }
        return new SandboxOptions(waitLimit, closeGrace, nesting, deferredConstraints, realOutside);
    }

    /**
     * Chooses what becomes of a connection that waits for one whose transaction is open, and cannot get its turn: by default it
     * fails, with nesting its work is done inside that transaction. It is nested at once where scopes of {@link
     * dev.r2dbcscope.ConnectionScopes} tell by the Reactor Context that the other one waits for it, as with {@link
     * dev.r2dbcscope.Propagation#REQUIRES_NEW}; any other only after the {@linkplain #withWaitLimit wait limit}.
     *
     * <p>What is nested is undone if the transaction around it rolls back, unlike that of a database; and by default it is not
     * nested, because two requests that only happen to be at work at the same time must not depend on each other.
     *
     * @param nesting whether to; {@code false} by default
     * @return a copy with this choice
     */
    public SandboxOptions withNesting(boolean nesting) {
        return new SandboxOptions(waitLimit, closeGrace, nesting, deferredConstraints, realOutside);
    }

    /**
     * Checks deferred constraints when a transaction of the application commits. By default they are never checked, because the
     * transaction of the test never commits. Needs a database with {@code SET CONSTRAINTS}.
     *
     * @param deferredConstraints whether to; {@code false} by default
     * @return a copy with this choice
     */
    public SandboxOptions withDeferredConstraintsChecked(boolean deferredConstraints) {
        return new SandboxOptions(waitLimit, closeGrace, nesting, deferredConstraints, realOutside);
    }

    /**
     * Hands out connections of the real factory while no test runs, for an application that reads from its database when it
     * starts. What is written by them stays. By default the factory fails then.
     *
     * @param realOutside whether to; {@code false} by default
     * @return a copy with this choice
     */
    public SandboxOptions withRealConnectionsOutside(boolean realOutside) {
        return new SandboxOptions(waitLimit, closeGrace, nesting, deferredConstraints, realOutside);
    }

    /**
     * How long a connection waits for one whose transaction is open and does nothing.
     *
     * @return the bound
     */
    public Duration waitLimit() {
        return waitLimit;
    }

    /**
     * How long a rollback waits for connections that are still open.
     *
     * @return the bound
     */
    public Duration closeGrace() {
        return closeGrace;
    }

    /**
     * Whether a connection that cannot get its turn is nested.
     *
     * @return the choice
     */
    public boolean nesting() {
        return nesting;
    }

    /**
     * Whether deferred constraints are checked when a transaction of the application commits.
     *
     * @return the choice
     */
    public boolean deferredConstraintsChecked() {
        return deferredConstraints;
    }

    /**
     * Whether real connections are handed out while no test runs.
     *
     * @return the choice
     */
    public boolean realConnectionsOutside() {
        return realOutside;
    }

    private static Duration positive(Duration value, String name) {
        if (Objects.requireNonNull(value, name).isNegative() || value.isZero()) {
            throw new IllegalArgumentException(name + " must be positive, but is " + value);
        }
        return value;
    }

    @Override
    public String toString() {
        return "SandboxOptions[waitLimit=" + waitLimit + ", closeGrace=" + closeGrace + ", nesting=" + nesting
                + ", deferredConstraintsChecked=" + deferredConstraints + ", realConnectionsOutside=" + realOutside
                + "]";
    }
}
