package dev.r2dbcscope.benchmarks;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/** A connection without a database. Says that it wants to be called on the calling thread, so that no hop is measured. */
final class NoopConnection implements Connection, Wrapped<Object> {

    private boolean autoCommit = true;

    @Override
    public Object unwrap() {
        return "nothing";
    }

    @Override
    public <E> E unwrap(Class<E> targetClass) {
        return targetClass == Scheduler.class ? targetClass.cast(Schedulers.immediate()) : null;
    }

    @Override
    public Mono<Void> beginTransaction() {
        return Mono.fromRunnable(() -> autoCommit = false);
    }

    @Override
    public Mono<Void> beginTransaction(TransactionDefinition definition) {
        return beginTransaction();
    }

    @Override
    public Mono<Void> commitTransaction() {
        return Mono.fromRunnable(() -> autoCommit = true);
    }

    @Override
    public Mono<Void> rollbackTransaction() {
        return commitTransaction();
    }

    @Override
    public Mono<Void> close() {
        return Mono.empty();
    }

    /** The SQL ends with how many rows it answers: {@code "select 1000"}. */
    @Override
    public Statement createStatement(String sql) {
        return new NoopStatement(Integer.parseInt(sql.substring(sql.lastIndexOf(' ') + 1)));
    }

    @Override
    public boolean isAutoCommit() {
        return autoCommit;
    }

    @Override
    public Mono<Void> setAutoCommit(boolean value) {
        return Mono.fromRunnable(() -> autoCommit = value);
    }

    @Override
    public Mono<Boolean> validate(ValidationDepth depth) {
        return Mono.just(true);
    }

    @Override
    public Batch createBatch() {
        throw new UnsupportedOperationException();
    }

    @Override
    public Mono<Void> createSavepoint(String name) {
        return Mono.empty();
    }

    @Override
    public Mono<Void> releaseSavepoint(String name) {
        return Mono.empty();
    }

    @Override
    public Mono<Void> rollbackTransactionToSavepoint(String name) {
        return Mono.empty();
    }

    @Override
    public ConnectionMetadata getMetadata() {
        throw new UnsupportedOperationException();
    }

    @Override
    public IsolationLevel getTransactionIsolationLevel() {
        return IsolationLevel.READ_COMMITTED;
    }

    @Override
    public Mono<Void> setTransactionIsolationLevel(IsolationLevel isolationLevel) {
        return Mono.empty();
    }

    @Override
    public Mono<Void> setLockWaitTimeout(Duration timeout) {
        return Mono.empty();
    }

    @Override
    public Mono<Void> setStatementTimeout(Duration timeout) {
        return Mono.empty();
    }
}
