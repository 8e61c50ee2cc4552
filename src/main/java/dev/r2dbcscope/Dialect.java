package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcTimeoutException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.TransactionDefinition;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/**
 * The one seam through which what a database can do beyond the R2DBC SPI reaches the scopes.
 *
 * <p>Dialects are found with {@link java.util.ServiceLoader}; the first one that {@link #supports} a connection serves
 * it. Without one, a scope uses the SPI alone. Implementations are thread-safe and stateless.
 */
public interface Dialect {

    /**
     * Whether this dialect serves the connection.
     *
     * @param connection a physical connection, unwrapped from pools and proxies
     * @return {@code true} if it does
     */
    boolean supports(Connection connection);

    /**
     * Finds the dialect that serves a connection.
     *
     * @param connection a connection of any kind, whatever is wrapped around it
     * @return the dialect, or one that knows the R2DBC SPI alone
     */
    static Dialect of(Connection connection) {
        return ScopeRoot.dialect(FactorySupply.physical(Objects.requireNonNull(connection, "connection")));
    }

    /**
     * Begins a transaction. The connection is idle when this is called, and nothing else is sent meanwhile.
     *
     * @param connection the connection as the factory delivered it
     * @param definition isolation level, access mode and lock wait timeout; each may be absent
     * @return completes when the transaction is open
     */
    default Publisher<Void> begin(Connection connection, TransactionDefinition definition) {
        return connection.beginTransaction(definition);
    }

    /**
     * How the database begins a transaction with its first statement right behind BEGIN.
     *
     * @param connection a physical connection, unwrapped from pools and proxies
     * @return how it does, or {@code null} if the first statement always waits for the answer to BEGIN
     */
    default @Nullable PipelinedBegin pipelinedBegin(Connection connection) {
        return null;
    }

    /**
     * Sets a savepoint. It must fail in a transaction in which a statement has failed, on databases that admit nothing
     * more then.
     *
     * @param connection the connection as the factory delivered it, in a transaction, on which nothing is in flight
     * @param name the savepoint's name: letters, digits and underscores
     * @return completes when the savepoint was set
     */
    default Publisher<Void> createSavepoint(Connection connection, String name) {
        return connection.createSavepoint(name);
    }

    /**
     * Releases a savepoint. It must fail if a statement failed since the savepoint was set, on databases that admit
     * nothing more until it is rolled back to.
     *
     * @param connection the connection as the factory delivered it, on which nothing is in flight
     * @param name the savepoint's name: letters, digits and underscores
     * @return completes when the savepoint was released
     */
    default Publisher<Void> releaseSavepoint(Connection connection, String name) {
        return connection.releaseSavepoint(name);
    }

    /**
     * Sets session settings, all or none of them.
     *
     * <p>In a transaction they are local to it, and this is subscribed to right behind {@link #begin}, without waiting for its
     * answer; a driver that cannot send both at once must queue the second. If the transaction then did not begin, they must
     * not have an effect. Settings whose change takes away the privileges for others, such as a role, are set last.
     *
     * @param connection the connection as the factory delivered it
     * @param settings the values by key
     * @param local whether they end with the transaction that has just begun
     * @return emits the former values by key, an empty one where there was none, when they are set; or {@code null} if this
     *     database knows no session settings
     */
    default @Nullable Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
        return null;
    }

    /**
     * Sets session settings back that were not local to a transaction. The connection is idle and outside a transaction.
     * Settings whose change gives back the privileges for others are set first.
     *
     * @param connection the connection as the factory delivered it
     * @param former what {@link #applySettings} emitted
     * @return completes when they are
     */
    default Publisher<Void> restoreSettings(Connection connection, Map<String, Optional<String>> former) {
        throw new UnsupportedOperationException("A dialect that sets session settings must set them back");
    }

    /**
     * Says what a statement does to its transaction or its session, as far as its text tells.
     *
     * @param sql the statement, or several of them
     * @return the effect, of several the first in the order of {@link SqlEffect}; {@link SqlEffect#DATA} if that is not known
     */
    default SqlEffect effectOf(String sql) {
        return SqlEffect.DATA;
    }

    /**
     * Keeps the savepoint that was set last from changing anything until it is released or rolled back to.
     *
     * @param connection the connection as the factory delivered it, on which nothing is in flight
     * @return completes when that is so, or {@code null} if this database cannot do it
     */
    default @Nullable Publisher<Void> makeReadOnly(Connection connection) {
        return null;
    }

    /**
     * Expresses time limits as session settings, to be set together with the others.
     *
     * @param statementTimeout how long a statement may take, or zero
     * @param lockWaitTimeout how long a statement may wait for a lock, or zero
     * @return the settings, or {@code null} if the limits are to be set by way of the SPI
     */
    default @Nullable Map<String, String> timeoutSettings(Duration statementTimeout, Duration lockWaitTimeout) {
        return null;
    }

    /**
     * Whether an error says that a statement took longer than the statement timeout.
     *
     * @param error an error of the database
     * @param tookLonger whether the statement has indeed taken at least that long, which tells it from one that was cancelled
     * @return {@code true} if it does
     */
    default boolean isStatementTimeout(R2dbcException error, boolean tookLonger) {
        return tookLonger && error instanceof R2dbcTimeoutException;
    }

    /**
     * Whether an error says that a statement waited for a lock for longer than the lock wait timeout.
     *
     * @param error an error of the database
     * @param tookLonger whether the statement has indeed taken at least that long
     * @return {@code true} if it does
     */
    default boolean isLockWaitTimeout(R2dbcException error, boolean tookLonger) {
        return tookLonger && error instanceof R2dbcTimeoutException;
    }

    /**
     * Sets the statement timeout and the lock wait timeout of a connection back to what they were when it was opened, after
     * code inside a scope changed them by way of the SPI. The connection is idle and outside a transaction.
     *
     * @param connection the connection as the factory delivered it
     * @return completes when they are, or {@code null} if that is not possible: the connection is destroyed then
     */
    default @Nullable Publisher<Void> resetTimeouts(Connection connection) {
        return null;
    }

    /**
     * How the database reads a query through a server-side cursor, for statements with a fetch size.
     *
     * @return how it does, or {@code null} if the driver's own fetch size serves everywhere
     */
    default @Nullable Cursors cursors() {
        return null;
    }

    /**
     * Finds out whether the driver keeps prepared statements on the database's session under names, which it must not where
     * the database's sessions are handed out for one transaction at a time. The connection is idle and outside a transaction;
     * it is asked once.
     *
     * @param connection the connection as the factory delivered it
     * @return emits {@code true} if it does, or {@code null} if that cannot be found out
     */
    default @Nullable Publisher<Boolean> keepsPreparedStatements(Connection connection) {
        return null;
    }

    /**
     * Whether a message in a result is an error, and not a notice that says something of a statement that goes on.
     *
     * @param message a message as the driver delivered it
     * @return {@code true} unless its SQLSTATE says success (00), warning (01) or no data (02); dialects that know more of a
     *     message say it
     */
    default boolean isError(Result.Message message) {
        String state = message.sqlState();
        return state == null || !(state.startsWith("00") || state.startsWith("01") || state.startsWith("02"));
    }

    /**
     * Whether an error says that the database ends the connection, or that it is lost already. The connection may look
     * alive until its socket closes, but it is not given to anybody else, and a COMMIT that fails like this has an unknown
     * outcome.
     *
     * @param error an error as the driver signalled it
     * @return {@code true} for SQLSTATE class 08, which is the connection's by the SQL standard; dialects add their own
     */
    default boolean endsConnection(R2dbcException error) {
        String sqlState = error.getSqlState();
        return sqlState != null && sqlState.startsWith("08");
    }

    /**
     * Asks the database to cancel what the connection runs. It is called when nobody wants the answer any more, while the
     * connection is busy; nothing else is sent on it before the returned publisher has ended.
     *
     * @param connection a physical connection, unwrapped from pools and proxies
     * @return completes when the database has taken notice of the request, so that no later statement can be hit by it,
     *     whether or not there was anything to cancel; fails if that is not known, upon which the connection is destroyed.
     *     It is subscribed to at most once, never cancelled, and bounded by the release timeout. Or {@code null} if this
     *     database cannot be asked.
     */
    default @Nullable Publisher<Void> cancelRunning(Connection connection) {
        return null;
    }

    /**
     * Lets a result be left in the middle that the driver reads by {@link io.r2dbc.spi.Statement#fetchSize}, outside a
     * transaction. The subscription to it, of which at least one row was read, is cancelled first, upon which the driver must
     * bring the exchange to a good end by itself; drivers signal nothing after a cancel, so this says when that is.
     *
     * @param connection a physical connection, unwrapped from pools and proxies
     * @return ends, well or not, when the database has answered everything that was sent before; or {@code null} if the driver
     *     does not stop fetching when it is cancelled, or not cleanly: the result is then read to its end
     */
    default @Nullable Publisher<?> afterCancelledFetch(Connection connection) {
        return null;
    }

    /**
     * Keeps a segment valid beyond the call in which the driver delivered it.
     *
     * @param segment a segment as the driver delivered it
     * @return what to run when the segment is no longer needed, or {@code null} if the driver cannot keep it
     */
    default @Nullable Runnable retain(Result.Segment segment) {
        return null;
    }
}
