package dev.r2dbcscope;

import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Option;
import io.r2dbc.spi.TransactionDefinition;
import java.time.Duration;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * How a transaction begins. Immutable and thread-safe: every {@code with} method returns a copy. What is not set is left
 * to the database.
 *
 * @see ConnectionScopes#transactions(TransactionOptions)
 */
public final class TransactionOptions implements TransactionDefinition {

    private static final TransactionOptions DEFAULTS = new TransactionOptions(null, null, null);

    private final @Nullable IsolationLevel isolation;
    private final @Nullable Boolean readOnly;
    private final @Nullable Duration lockWaitTimeout;

    private TransactionOptions(
            @Nullable IsolationLevel isolation, @Nullable Boolean readOnly, @Nullable Duration lockWaitTimeout) {
        this.isolation = isolation;
        this.readOnly = readOnly;
        this.lockWaitTimeout = lockWaitTimeout;
    }

    /**
     * Returns the default options: isolation level, access mode and lock wait timeout are those of the database.
     *
     * @return the defaults
     */
    public static TransactionOptions defaults() {
        return DEFAULTS;
    }

    /**
     * Sets the isolation level.
     *
     * @param isolation the level
     * @return a copy with that level
     */
    public TransactionOptions withIsolation(IsolationLevel isolation) {
        return new TransactionOptions(Objects.requireNonNull(isolation, "isolation"), readOnly, lockWaitTimeout);
    }

    /**
     * Sets the access mode.
     *
     * @param readOnly {@code true} for a transaction in which the database refuses writes
     * @return a copy with that mode
     */
    public TransactionOptions withReadOnly(boolean readOnly) {
        return new TransactionOptions(isolation, readOnly, lockWaitTimeout);
    }

    /**
     * Bounds how long a statement of the transaction waits for a lock. On PostgreSQL it is set with {@code SET LOCAL
     * lock_timeout}, so it ends with the transaction; other databases get it with the transaction definition.
     *
     * @param lockWaitTimeout the bound, positive, effective to the millisecond
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative, or shorter than a millisecond
     */
    public TransactionOptions withLockWaitTimeout(Duration lockWaitTimeout) {
        if (ScopeOptions.positive(lockWaitTimeout, "lockWaitTimeout").toMillis() == 0) {
            throw new IllegalArgumentException("lockWaitTimeout must be at least a millisecond: " + lockWaitTimeout);
        }
        return new TransactionOptions(isolation, readOnly, lockWaitTimeout);
    }

    /**
     * Returns the isolation level.
     *
     * @return the level, or {@code null} for the database's own
     */
    public @Nullable IsolationLevel isolation() {
        return isolation;
    }

    /**
     * Returns the access mode.
     *
     * @return whether the transaction is read-only, or {@code null} for the database's own mode
     */
    public @Nullable Boolean readOnly() {
        return readOnly;
    }

    /**
     * Returns the bound of the wait for a lock.
     *
     * @return the bound, or {@code null} for the database's own
     */
    public @Nullable Duration lockWaitTimeout() {
        return lockWaitTimeout;
    }

    /** Shows the options to a driver under the constants of {@link TransactionDefinition}. */
    @Override
    public <T> @Nullable T getAttribute(Option<T> option) {
        if (option.equals(ISOLATION_LEVEL)) {
            return option.cast(isolation);
        }
        if (option.equals(READ_ONLY)) {
            return option.cast(readOnly);
        }
        return option.equals(LOCK_WAIT_TIMEOUT) ? option.cast(lockWaitTimeout) : null;
    }

    @Override
    public String toString() {
        return "TransactionOptions[isolation=" + isolation + ", readOnly=" + readOnly + ", lockWaitTimeout="
                + lockWaitTimeout + "]";
    }
}
