package dev.r2dbcscope.pool;

import dev.r2dbcscope.PoolCapacity;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.PoolMetrics;
import io.r2dbc.spi.ConnectionFactory;
import java.util.OptionalInt;

/**
 * The maximum size of an r2dbc-pool. Found by {@link java.util.ServiceLoader}; nobody needs to call it.
 *
 * <p>Stateless and thread-safe.
 */
public final class ConnectionPoolCapacity implements PoolCapacity {

    /** For {@link java.util.ServiceLoader}. Fails to link if r2dbc-pool is not there, which disables it. */
    public ConnectionPoolCapacity() {
        ConnectionPool.class.getName();
    }

    @Override
    public OptionalInt mostConnections(ConnectionFactory factory) {
        if (!(factory instanceof ConnectionPool pool)) {
            return OptionalInt.empty();
        }
        int maximum = pool.getMetrics().map(PoolMetrics::getMaxAllocatedSize).orElse(Integer.MAX_VALUE);
        return maximum == Integer.MAX_VALUE ? OptionalInt.empty() : OptionalInt.of(maximum);
    }

    @Override
    public OptionalInt connectionsInUse(ConnectionFactory factory) {
        return factory instanceof ConnectionPool pool
                ? pool.getMetrics()
                        .map(metrics -> OptionalInt.of(metrics.acquiredSize()))
                        .orElse(OptionalInt.empty())
                : OptionalInt.empty();
    }
}
