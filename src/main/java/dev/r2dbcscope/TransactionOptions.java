package dev.r2dbcscope;

import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Option;
import io.r2dbc.spi.TransactionDefinition;
import java.time.Duration;
import java.util.Objects;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * How a transaction begins and ends. Immutable and thread-safe: every {@code with} method returns a copy. An isolation level,
 * access mode or lock wait timeout that is not set is left to the database.
 *
 * @see ConnectionScopes#transactions(TransactionOptions)
 */
public final class TransactionOptions implements TransactionDefinition {

    private static final TransactionOptions DEFAULTS = new TransactionOptions(new Draft());

    private final Propagation propagation;
    private final @Nullable IsolationLevel isolation;
    private final @Nullable Boolean readOnly;
    private final @Nullable Duration lockWaitTimeout;
    private final OnCancel onCancel;
    private final Duration completionTimeout;
    private final int emitAfterCommit;
    private final @Nullable RetryPolicy retry;

    private TransactionOptions(Draft draft) {
        this.propagation = draft.propagation;
        this.isolation = draft.isolation;
        this.readOnly = draft.readOnly;
        this.lockWaitTimeout = draft.lockWaitTimeout;
        this.onCancel = draft.onCancel;
        this.completionTimeout = draft.completionTimeout;
        this.emitAfterCommit = draft.emitAfterCommit;
        this.retry = draft.retry;
    }

    /** The options while a copy is made; it starts as the defaults. */
    private static final class Draft {

        private Propagation propagation = Propagation.REQUIRED;
        private @Nullable IsolationLevel isolation;
        private @Nullable Boolean readOnly;
        private @Nullable Duration lockWaitTimeout;
        private OnCancel onCancel = OnCancel.ROLLBACK;
        private Duration completionTimeout = Duration.ofSeconds(30);
        private int emitAfterCommit;
        private @Nullable RetryPolicy retry;
    }

    private TransactionOptions with(Consumer<Draft> change) {
        Draft draft = new Draft();
        draft.propagation = propagation;
        draft.isolation = isolation;
        draft.readOnly = readOnly;
        draft.lockWaitTimeout = lockWaitTimeout;
        draft.onCancel = onCancel;
        draft.completionTimeout = completionTimeout;
        draft.emitAfterCommit = emitAfterCommit;
        draft.retry = retry;
        change.accept(draft);
        return new TransactionOptions(draft);
    }

    /**
     * Returns the default options: propagation {@link Propagation#REQUIRED}; isolation level, access mode and lock wait
     * timeout are those of the database; {@link OnCancel#ROLLBACK}; a {@code Flux} emits its elements as they come; no
     * retry.
     *
     * @return the defaults
     */
    public static TransactionOptions defaults() {
        return DEFAULTS;
    }

    /**
     * Sets what a transaction does inside another scope, and without one.
     *
     * @param propagation the mode, {@link Propagation#REQUIRED} by default
     * @return a copy with that mode
     */
    public TransactionOptions withPropagation(Propagation propagation) {
        Objects.requireNonNull(propagation, "propagation");
        return with(draft -> draft.propagation = propagation);
    }

    /**
     * Sets the isolation level.
     *
     * @param isolation the level
     * @return a copy with that level
     */
    public TransactionOptions withIsolation(IsolationLevel isolation) {
        Objects.requireNonNull(isolation, "isolation");
        return with(draft -> draft.isolation = isolation);
    }

    /**
     * Sets the access mode.
     *
     * @param readOnly {@code true} for a transaction in which the database refuses writes
     * @return a copy with that mode
     */
    public TransactionOptions withReadOnly(boolean readOnly) {
        return with(draft -> draft.readOnly = readOnly);
    }

    /**
     * Bounds how long a statement of the transaction waits for a lock; one that waits longer fails with a {@link
     * ScopeTimeoutException}. On PostgreSQL {@code lock_timeout} is set locally to the transaction, together with its BEGIN;
     * other databases get the bound with the transaction definition. It counts for the scope that begins the transaction:
     * those that join it, or are a savepoint in it, are bound by that one's.
     *
     * @param lockWaitTimeout the bound, positive, effective to the millisecond
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative, or shorter than a millisecond
     */
    public TransactionOptions withLockWaitTimeout(Duration lockWaitTimeout) {
        if (ScopeOptions.positive(lockWaitTimeout, "lockWaitTimeout").toMillis() == 0) {
            throw new IllegalArgumentException("lockWaitTimeout must be at least a millisecond: " + lockWaitTimeout);
        }
        return with(draft -> draft.lockWaitTimeout = lockWaitTimeout);
    }

    /**
     * Sets what a cancelled transaction does.
     *
     * @param onCancel the choice, {@link OnCancel#ROLLBACK} by default
     * @return a copy with that choice
     */
    public TransactionOptions withOnCancel(OnCancel onCancel) {
        Objects.requireNonNull(onCancel, "onCancel");
        return with(draft -> draft.onCancel = onCancel);
    }

    /**
     * Bounds how long a pipeline goes on after its subscriber cancelled, under {@link OnCancel#COMPLETE}, and how long the end
     * of a scope waits for code that cannot be cancelled, see {@link ScopeBridge}, for which it counts in plain scopes too.
     * When it expires, the transaction rolls back.
     *
     * @param completionTimeout the bound, positive; 30 seconds by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public TransactionOptions withCompletionTimeout(Duration completionTimeout) {
        return with(draft -> draft.completionTimeout = ScopeOptions.positive(completionTimeout, "completionTimeout"));
    }

    /**
     * Lets a {@code Flux} hold its elements back until the COMMIT has succeeded. If there are more elements than the
     * bound, it fails with a {@link HeldBackOverflowException} and rolls back. A {@code Mono} always emits after the
     * COMMIT.
     *
     * <p>The pipeline runs to its end whatever the subscriber asks for; at most one element more than the bound is
     * requested from it. When the connection was released, the elements are emitted as they are asked for, so {@code
     * take(n)} and {@code next()} downstream do not roll back. Elements that are never emitted, because of a rollback, a
     * failed COMMIT or a cancel, go to the discard hook one by one. Inside another transaction, which it joins or in
     * which it is a savepoint, such a {@code Flux} emits when the inner scope has ended, before the outer COMMIT.
     *
     * @param max the most elements that are held in memory, positive
     * @return a copy that emits after the COMMIT
     * @throws IllegalArgumentException if it is zero or negative
     */
    public TransactionOptions withEmitAfterCommit(int max) {
        return with(draft -> draft.emitAfterCommit = ScopeOptions.positive(max, "max"));
    }

    /**
     * Retries the transaction as the policy says. Only the scope that begins the transaction retries, never one that joins
     * it or is a savepoint within it. A {@code Flux} can be retried only if it emits after the COMMIT, see {@link
     * #withEmitAfterCommit(int)}; otherwise assembling it fails with an {@link IllegalArgumentException}.
     *
     * @param retry the policy; by default nothing is retried
     * @return a copy with that policy
     */
    public TransactionOptions withRetry(RetryPolicy retry) {
        Objects.requireNonNull(retry, "retry");
        return with(draft -> draft.retry = retry);
    }

    /**
     * Returns the propagation mode.
     *
     * @return the mode
     */
    public Propagation propagation() {
        return propagation;
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

    /**
     * Returns what a cancelled transaction does.
     *
     * @return the choice
     */
    public OnCancel onCancel() {
        return onCancel;
    }

    /**
     * Returns the bound of what goes on after a cancel.
     *
     * @return the completion timeout
     */
    public Duration completionTimeout() {
        return completionTimeout;
    }

    /**
     * Returns how many elements a {@code Flux} holds back until the COMMIT.
     *
     * @return the bound, in elements; zero if they are emitted as they come
     */
    public int emitAfterCommit() {
        return emitAfterCommit;
    }

    /**
     * Returns the retry policy.
     *
     * @return the policy, or {@code null} if nothing is retried
     */
    public @Nullable RetryPolicy retry() {
        return retry;
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

    /** Fails unless a scope with these options can be part of the transaction that the given session began. */
    void requirePartOf(Session beginner, ScopeLabel label) {
        TransactionOptions begun = beginner.transaction();
        if (begun == null) {
            return;
        }
        if (isolation != null && !isolation.equals(begun.isolation)) {
            IsolationLevel other = begun.isolation;
            throw new ScopePropagationException(
                    "It asks for the isolation level " + isolation.asSql() + " inside a transaction that began with "
                            + (other == null ? "the database's own level" : other.asSql()) + ", that of "
                            + beginner.label() + ": begin that one with the level too, or choose REQUIRES_NEW",
                    label);
        }
        if (Boolean.FALSE.equals(readOnly) && Boolean.TRUE.equals(begun.readOnly)) {
            throw new ScopePropagationException(
                    "It asks for a transaction that writes inside a read-only one, that of " + beginner.label()
                            + ": begin that one without read-only, or choose REQUIRES_NEW",
                    label);
        }
    }

    @Override
    public String toString() {
        return "TransactionOptions[propagation=" + propagation + ", isolation=" + isolation + ", readOnly=" + readOnly
                + ", lockWaitTimeout=" + lockWaitTimeout + ", onCancel=" + onCancel + ", completionTimeout="
                + completionTimeout + ", emitAfterCommit=" + emitAfterCommit + ", retry=" + retry + "]";
    }
}
