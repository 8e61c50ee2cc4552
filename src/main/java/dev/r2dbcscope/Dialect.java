package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.TransactionDefinition;
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
     * Keeps a segment valid beyond the call in which the driver delivered it.
     *
     * @param segment a segment as the driver delivered it
     * @return what to run when the segment is no longer needed, or {@code null} if the driver cannot keep it
     */
    default @Nullable Runnable retain(Result.Segment segment) {
        return null;
    }
}
