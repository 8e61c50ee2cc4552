package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.TransactionDefinition;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/**
 * How a transaction begins when its first statement is sent right behind BEGIN, without waiting for the answer, which saves a
 * round trip. What {@link Dialect#pipelinedBegin} returns.
 *
 * <p>Whatever becomes of BEGIN, the statement behind it must not take effect outside the transaction. So a guard goes between
 * them, which the database runs after BEGIN and before the statement: if there is no transaction then, it ends the connection,
 * and with it everything that was sent behind.
 *
 * <p>Implementations are thread-safe and stateless.
 */
public interface PipelinedBegin {

    /**
     * Whether what is sent by way of a wrapper around the driver's connection comes to the driver in the order in which it was
     * sent. A proxy may hold BEGIN up and let the statement pass.
     *
     * @param wrapper a connection in which the factory delivered the driver's own, such as that of a pool
     * @return {@code true} if it does, of which only the connections of r2dbc-pool are sure
     */
    default boolean isInOrder(Connection wrapper) {
        return wrapper.getClass().getPackageName().equals("io.r2dbc.pool");
    }

    /**
     * Finds out whether the database understands {@link #begin} and {@link #guard}. Asked once for each connection factory, and
     * again as long as that is not known. The connection is idle and outside a transaction, and must be so afterwards.
     *
     * @param connection the connection as the factory delivered it
     * @return emits whether it does, or nothing if that could not be found out; fails if the connection is lost, upon which the
     *     scope fails
     */
    Publisher<Boolean> isAvailable(Connection connection);

    /**
     * Begins a transaction and makes the settings local to it, by what the driver sends at once and without waiting for
     * answers in between.
     *
     * <p>If it fails after the transaction has begun, the transaction must be one that admits no statement any more.
     *
     * @param connection the connection as the factory delivered it; it is idle
     * @param definition isolation level, access mode and lock wait timeout; each may be absent
     * @param settings the values by key, those of the time limits among them; may be empty
     * @return emits an element, whatever it is, when the transaction is open, and completes when all settings are made; or
     *     {@code null} if that cannot be expressed, and {@link Dialect#begin} is to be used
     */
    @Nullable
    Publisher<?> begin(Connection connection, TransactionDefinition definition, Map<String, String> settings);

    /**
     * Whether a statement may be sent behind BEGIN and the guard. It must not matter to it what the guard does in the
     * transaction, such as taking its snapshot. If this throws, the statement waits.
     *
     * @param sql the statement's text, or that of several
     * @return {@code true} if it may; it waits for the answer to BEGIN otherwise
     */
    boolean mayFollow(String sql);

    /**
     * Ends the connection unless {@link #begin}, which was sent before, has opened a transaction.
     *
     * @param connection the connection as the factory delivered it, on which BEGIN was sent
     * @return completes when there is a transaction
     */
    Publisher<Void> guard(Connection connection);
}
