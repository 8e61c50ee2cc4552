package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.util.context.ContextView;

/**
 * A connection that takes turns with others on one connection of a driver, such as those of the test kit's {@code
 * RollbackSandbox}: what the engine asks of it instead of the driver.
 *
 * <p>To scopes it is a connection like others; but what goes beyond the R2DBC SPI must not go to the driver directly, where it
 * would meet the statements of those others.
 */
public interface SharedConnection extends Connection {

    /**
     * The connection that is shared, as its factory delivered it.
     *
     * @return the connection; nothing is sent on it other than by {@link #alone}
     */
    Connection shared();

    /**
     * Uses the shared connection alone, in the order in which this is subscribed to among the statements of this connection.
     *
     * @param what what is done, for errors
     * @param work called when the turn has come
     * @param <T> what it answers
     * @return the work's answer; its subscriber must not cancel it
     */
    <T> Publisher<T> alone(String what, Supplier<? extends Publisher<? extends T>> work);

    /**
     * Asks the database to cancel what the shared connection runs for this connection, and only that.
     *
     * @param dialect the dialect of the shared connection
     * @return as {@link Dialect#cancelRunning}
     */
    @Nullable
    Publisher<Void> cancelRunning(Dialect dialect);

    /**
     * Sets session settings, so that those that are local to a transaction of this connection end with it, and the others are
     * not seen by other connections.
     *
     * @param dialect the dialect of the shared connection
     * @param settings the values by key
     * @param local whether they end with the transaction that has just begun
     * @return as {@link Dialect#applySettings}
     */
    @Nullable
    Publisher<Map<String, Optional<String>>> applySettings(
            Dialect dialect, Map<String, String> settings, boolean local);

    /**
     * Whether a scope around a pipeline holds this connection, so that it waits for what the pipeline does.
     *
     * @param context the Context of the pipeline
     * @return {@code true} if one does, as far as the Context tells
     */
    default boolean isHeldAround(ContextView context) {
        Scope innermost = ScopeRoot.innermost(context);
        for (Session around = innermost == null ? null : innermost.session();
                around != null;
                around = around.parent()) {
            Connection held = around.heldConnection();
            if (held != null && in(held) == this) {
                return true;
            }
        }
        return false;
    }

    /**
     * Finds such a connection under what others have wrapped around it.
     *
     * @param connection a connection
     * @return the shared one, or {@code null} if the connection is none
     */
    static @Nullable SharedConnection in(Connection connection) {
        return FactorySupply.physical(connection) instanceof SharedConnection shared ? shared : null;
    }
}
