package dev.r2dbcscope;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.Objects;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * The connection as a scope hands it out.
 *
 * <p>Everything passes the scope's gate. {@link #close} is left to the scope. Inside a transactional scope the
 * transaction is the scope's: beginning joins it, committing leaves it to the scope, rolling back marks it. After the
 * scope's end every method fails with {@link ScopeClosedException}.
 */
final class ScopedConnection implements Connection, Wrapped<Connection> {

    private final Scope scope;
    private final Session session;
    private final Connection delegate;

    ScopedConnection(Scope scope) {
        this.scope = scope;
        this.session = scope.session();
        this.delegate = session.connection();
    }

    /** The scope's connection under whatever else somebody wrapped around it, if this is one. */
    static @Nullable ScopedConnection in(Connection connection) {
        if (connection instanceof ScopedConnection scoped) {
            return scoped;
        }
        return connection instanceof Wrapped<?> wrapped ? wrapped.unwrap(ScopedConnection.class) : null;
    }

    Scope scope() {
        return scope;
    }

    // statements -----------------------------------------------------------------------------------------------------

    @Override
    public Statement createStatement(String sql) {
        scope.requireOpenFor(sql);
        return new ScopedStatement(scope, delegate.createStatement(sql), sql);
    }

    @Override
    public Batch createBatch() {
        scope.requireOpenFor("a batch");
        return new ScopedBatch(scope, delegate.createBatch());
    }

    // transactions ---------------------------------------------------------------------------------------------------

    @Override
    public Publisher<Void> beginTransaction() {
        return begin(delegate::beginTransaction);
    }

    @Override
    public Publisher<Void> beginTransaction(TransactionDefinition definition) {
        return begin(() -> {
            session.changes().beginning(delegate);
            return delegate.beginTransaction(definition);
        });
    }

    private Mono<Void> begin(Supplier<Publisher<Void>> driver) {
        return Mono.deferContextual(context -> {
            requireOpen("BEGIN", context);
            if (session.isTransactional()) {
                return Mono.empty();
            }
            return through("BEGIN", () -> claimTransaction() ? changing(driver) : Mono.error(transactionIsTaken()))
                    .doOnError(e -> forgetTransaction());
        });
    }

    /** When the turn has come: nothing else is in flight. */
    private boolean claimTransaction() {
        ScopedConnection other = session.userTransaction().compareAndExchange(null, this);
        return other == null || other == this;
    }

    private IllegalStateException transactionIsTaken() {
        return new IllegalStateException("Another part of the scope has begun a transaction on the same connection; use"
                + " ConnectionScopes.inTransaction, which lets them take turns [" + scope.label() + "]");
    }

    @Override
    public Publisher<Void> commitTransaction() {
        return Mono.deferContextual(context -> {
            requireOpen("COMMIT", context);
            return session.isTransactional()
                    ? Mono.empty()
                    : through("COMMIT", () -> changing(delegate::commitTransaction))
                            .doOnTerminate(this::forgetTransaction);
        });
    }

    @Override
    public Publisher<Void> rollbackTransaction() {
        return Mono.deferContextual(context -> {
            requireOpen("ROLLBACK", context);
            if (session.isTransactional()) {
                session.rollbackOnly("code inside the scope called rollbackTransaction()", null);
                return Mono.empty();
            }
            return through("ROLLBACK", () -> changing(delegate::rollbackTransaction))
                    .doOnTerminate(this::forgetTransaction);
        });
    }

    private Publisher<Void> changing(Supplier<Publisher<Void>> transaction) {
        session.transactionChanges();
        return transaction.get();
    }

    private void forgetTransaction() {
        session.userTransaction().compareAndSet(this, null);
    }

    @Override
    public Publisher<Void> createSavepoint(String name) {
        return savepoint("SAVEPOINT", name, () -> delegate.createSavepoint(name));
    }

    @Override
    public Publisher<Void> releaseSavepoint(String name) {
        return savepoint("RELEASE SAVEPOINT", name, () -> delegate.releaseSavepoint(name));
    }

    @Override
    public Publisher<Void> rollbackTransactionToSavepoint(String name) {
        return savepoint("ROLLBACK TO SAVEPOINT", name, () -> delegate.rollbackTransactionToSavepoint(name));
    }

    private Mono<Void> savepoint(String words, String name, Supplier<? extends Publisher<Void>> driver) {
        SavepointNames.require(name);
        return through(words, driver);
    }

    @Override
    public boolean isAutoCommit() {
        scope.requireOpen();
        return !session.isTransactional() && delegate.isAutoCommit();
    }

    @Override
    public Publisher<Void> setAutoCommit(boolean autoCommit) {
        if (!session.isTransactional()) {
            return through("setting auto-commit", () -> delegate.setAutoCommit(autoCommit));
        }
        return autoCommit
                ? Mono.error(() -> new IllegalStateException(
                        "Auto-commit cannot be switched on inside a transactional scope: the scope commits when its"
                                + " pipeline completes [" + scope.label() + "]"))
                : Mono.empty();
    }

    // the rest -------------------------------------------------------------------------------------------------------

    /** Leaves the connection to the scope, but not a transaction that was begun through this handle. */
    @Override
    public Publisher<Void> close() {
        return Mono.defer(() -> session.userTransaction().get() == this && scope.closedErrorIfEnded() == null
                ? Mono.from(rollbackTransaction())
                : Mono.empty());
    }

    @Override
    public ConnectionMetadata getMetadata() {
        scope.requireOpen();
        return delegate.getMetadata();
    }

    @Override
    public IsolationLevel getTransactionIsolationLevel() {
        scope.requireOpen();
        return session.changes().isolationNow(delegate);
    }

    @Override
    public Publisher<Void> setTransactionIsolationLevel(IsolationLevel isolationLevel) {
        return set("setting the isolation level", "TransactionOptions.withIsolation", () -> {
            session.changes().isolation(delegate);
            return delegate.setTransactionIsolationLevel(isolationLevel);
        });
    }

    @Override
    public Publisher<Void> setLockWaitTimeout(Duration timeout) {
        return set(
                "setting the lock wait timeout",
                "TransactionOptions.withLockWaitTimeout or ScopeOptions.withLockWaitTimeout",
                () -> {
                    session.changes().lockWaitTimeout(timeout);
                    return delegate.setLockWaitTimeout(timeout);
                });
    }

    @Override
    public Publisher<Void> setStatementTimeout(Duration timeout) {
        return set("setting the statement timeout", "ScopeOptions.withStatementTimeout", () -> {
            session.changes().statementTimeout(timeout);
            return delegate.setStatementTimeout(timeout);
        });
    }

    /** Answers {@code false} after the scope's end: the SPI lets a validation emit no errors. */
    @Override
    public Publisher<Boolean> validate(ValidationDepth depth) {
        Objects.requireNonNull(depth, "depth");
        return Mono.defer(() -> {
                    scope.requireOpen();
                    return depth == ValidationDepth.LOCAL
                            ? Mono.<Boolean>from(delegate.validate(depth))
                            : ControlExchange.<Boolean>through(
                                    scope, "validating the connection", () -> delegate.validate(depth));
                })
                .onErrorReturn(ScopeClosedException.class, false);
    }

    /** The connection as the factory delivered it: what is done with it passes by the gate. */
    @Override
    public Connection unwrap() {
        scope.requireOpen();
        return delegate;
    }

    /** The default of the SPI asks only connections that wrap another one in their turn. */
    @Override
    public <E> @Nullable E unwrap(Class<E> targetClass) {
        Connection unwrapped = unwrap();
        if (targetClass.isInstance(this)) {
            return targetClass.cast(this);
        }
        if (targetClass.isInstance(unwrapped)) {
            return targetClass.cast(unwrapped);
        }
        return unwrapped instanceof Wrapped<?> wrapped ? wrapped.unwrap(targetClass) : null;
    }

    @Override
    public String toString() {
        return "ScopedConnection[" + scope.label() + ", " + delegate + "]";
    }

    /** The SPI's setters outlive the transaction, and are taken back after it. */
    private Mono<Void> set(String words, String instead, Supplier<? extends Publisher<Void>> driver) {
        return Mono.defer(() -> session.options().transactionPooling() && scope.closedErrorIfEnded() == null
                ? Mono.error(TransactionPoolingException.session(
                        words, "use " + instead + ", which is local to a transaction", scope.label()))
                : through(words, driver));
    }

    private void requireOpen(String call, ContextView subscriber) {
        ScopeClosedException closed = scope.refusal(call, subscriber);
        if (closed != null) {
            throw closed;
        }
    }

    private Mono<Void> through(String words, Supplier<? extends Publisher<Void>> driver) {
        return ControlExchange.through(scope, words, driver);
    }
}
