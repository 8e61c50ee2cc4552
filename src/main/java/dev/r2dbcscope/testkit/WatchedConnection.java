package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * A connection that tells what is done with it, and is otherwise the one that it wraps. A scope knows by itself what runs on
 * its connection, so it gets the driver's own statements.
 */
final class WatchedConnection implements Connection, Wrapped<Connection> {

    private final Connection delegate;
    private final HeldConnection held;

    WatchedConnection(Connection delegate, HeldConnection held) {
        this.delegate = delegate;
        this.held = held;
    }

    @Override
    public Publisher<Void> close() {
        held.closeCalled();
        Publisher<Void> close = delegate.close();
        return Mono.<Void>fromDirect(close)
                .doOnSubscribe(subscription -> held.closing())
                .doOnTerminate(held::closed)
                .doOnCancel(held::closed);
    }

    @Override
    public Statement createStatement(String sql) {
        held.used(sql);
        Statement statement = delegate.createStatement(sql);
        return held.scope() == null ? new ForwardingStatement(statement, sql, this::executed) : statement;
    }

    @Override
    public Batch createBatch() {
        held.used("a batch");
        Batch batch = delegate.createBatch();
        return held.scope() == null ? new ForwardingBatch(batch, this::executed) : batch;
    }

    /** What is executed counts as in flight until the driver has ended it. */
    private Publisher<? extends Result> executed(String sql, Publisher<? extends Result> driver) {
        return Flux.defer(() -> {
            held.used(sql);
            HeldConnection.Work work = held.began(sql);
            return Flux.<Result>from(driver)
                    .doOnTerminate(() -> held.ended(work))
                    .doOnCancel(() -> held.ended(work));
        });
    }

    @Override
    public Publisher<Void> beginTransaction() {
        held.used("BEGIN");
        return delegate.beginTransaction();
    }

    @Override
    public Publisher<Void> beginTransaction(TransactionDefinition definition) {
        held.used("BEGIN");
        return delegate.beginTransaction(definition);
    }

    @Override
    public Publisher<Void> commitTransaction() {
        held.used("COMMIT");
        return delegate.commitTransaction();
    }

    @Override
    public Publisher<Void> rollbackTransaction() {
        held.used("ROLLBACK");
        return delegate.rollbackTransaction();
    }

    @Override
    public Publisher<Void> createSavepoint(String name) {
        held.used("SAVEPOINT");
        return delegate.createSavepoint(name);
    }

    @Override
    public Publisher<Void> releaseSavepoint(String name) {
        held.used("RELEASE SAVEPOINT");
        return delegate.releaseSavepoint(name);
    }

    @Override
    public Publisher<Void> rollbackTransactionToSavepoint(String name) {
        held.used("ROLLBACK TO SAVEPOINT");
        return delegate.rollbackTransactionToSavepoint(name);
    }

    @Override
    public Publisher<Void> setAutoCommit(boolean autoCommit) {
        held.used("setting auto-commit");
        return delegate.setAutoCommit(autoCommit);
    }

    @Override
    public Publisher<Void> setTransactionIsolationLevel(IsolationLevel isolationLevel) {
        held.used("setting the isolation level");
        return delegate.setTransactionIsolationLevel(isolationLevel);
    }

    @Override
    public Publisher<Void> setLockWaitTimeout(Duration timeout) {
        held.used("setting the lock wait timeout");
        return delegate.setLockWaitTimeout(timeout);
    }

    @Override
    public Publisher<Void> setStatementTimeout(Duration timeout) {
        held.used("setting the statement timeout");
        return delegate.setStatementTimeout(timeout);
    }

    /** May be asked of a closed connection. */
    @Override
    public Publisher<Boolean> validate(ValidationDepth depth) {
        return delegate.validate(depth);
    }

    @Override
    public boolean isAutoCommit() {
        return delegate.isAutoCommit();
    }

    @Override
    public ConnectionMetadata getMetadata() {
        return delegate.getMetadata();
    }

    @Override
    public IsolationLevel getTransactionIsolationLevel() {
        return delegate.getTransactionIsolationLevel();
    }

    @Override
    public Connection unwrap() {
        return delegate;
    }

    @Override
    public <E> @Nullable E unwrap(Class<E> targetClass) {
        return Wrapping.find(this, targetClass);
    }

    @Override
    public String toString() {
        return "WatchedConnection[" + delegate + "]";
    }
}
