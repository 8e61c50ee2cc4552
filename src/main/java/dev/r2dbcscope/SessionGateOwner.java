package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** A session as the gate of its connection sees it. */
final class SessionGateOwner implements GateOwner {

    private final Session session;

    SessionGateOwner(Session session) {
        this.session = session;
    }

    @Override
    public RuntimeException closedError() {
        RuntimeException unbegun = session.beginError();
        return unbegun == null ? session.closedError() : unbegun;
    }

    @Override
    public NestedReadOverflowException overflowError(String openSql, String waitingSql) {
        return new NestedReadOverflowException(
                openSql, waitingSql, session.options().maxBufferedRows(), session.label());
    }

    @Override
    public StatementQueueOverflowException tooManyError(String sql) {
        return new StatementQueueOverflowException(sql, session.options().maxStatementsWaiting(), session.label());
    }

    @Override
    public ScopeAcquisitionException heldError(String waitingSql, String holder) {
        return session.entry()
                .acquisitionError(
                        "\"" + waitingSql + "\" waited for longer than the acquire timeout of " + longestHold()
                                + " for the connection, which " + holder
                                + " holds; if the statement is meant to be part of that"
                                + " transaction, it has lost the Reactor Context on its way (a CompletableFuture, an inner"
                                + " subscribe()): use the connection that inTransaction hands out");
    }

    @Override
    public Duration longestHold() {
        return session.options().acquireTimeout();
    }

    @Override
    public boolean isLost() {
        return session.isLost();
    }

    @Override
    public Dialect dialect() {
        return session.dialect();
    }

    @Override
    public ScopeOptions options() {
        return session.options();
    }

    /** The driver's own status counts too: code may have begun a transaction by SQL. */
    @Override
    public boolean isInTransaction() {
        Connection connection = session.heldConnection();
        return session.isInTransaction() || connection != null && !connection.isAutoCommit();
    }

    @Override
    public boolean willRollBack() {
        return session.rollbackMark().isMarked();
    }

    @Override
    public @Nullable Mono<Void> cancelRequest() {
        Connection connection = session.heldConnection();
        Publisher<Void> request =
                connection == null ? null : session.dialect().cancelRunning(FactorySupply.physical(connection));
        Duration bound = session.options().releaseTimeout();
        return request == null
                ? null
                : Shield.bounded(
                        () -> request,
                        bound,
                        () -> releaseError(
                                "The database did not answer the request to cancel a statement within the release"
                                        + " timeout of " + bound,
                                null));
    }

    @Override
    public @Nullable Mono<Void> afterCancelledFetch() {
        Connection connection = session.heldConnection();
        Publisher<?> after =
                connection == null ? null : session.dialect().afterCancelledFetch(FactorySupply.physical(connection));
        return after == null ? null : Shield.lazily(() -> after).onErrorComplete();
    }

    @Override
    public void cancelRequested(String sql, long ran, long took, @Nullable Throwable error) {
        session.report().cancelRequested(sql, ran, took, error);
    }

    @Override
    public Throwable cancelFailed(Throwable error) {
        session.condemn();
        return error instanceof ScopeReleaseException
                ? error
                : releaseError(
                        "The request to cancel a statement failed, so it may still come to the database; the"
                                + " connection was destroyed",
                        error);
    }

    @Override
    public void condemn() {
        session.condemn();
    }

    private ScopeReleaseException releaseError(String problem, @Nullable Throwable cause) {
        return new ScopeReleaseException(problem, session.label(), cause);
    }

    @Override
    public void databaseFailed(Throwable error) {
        session.databaseFailed(error);
    }

    @Override
    public Throwable shown(Throwable error, String sql, long nanos) {
        RuntimeException unbegun = session.beginError();
        return unbegun != null ? unbegun : session.settings().shown(error, sql, Duration.ofNanos(nanos));
    }

    @Override
    public void statementEnded(String sql, long nanos, long rows, @Nullable Throwable error) {
        session.report().statementEnded(sql, nanos, rows, error);
    }
}
