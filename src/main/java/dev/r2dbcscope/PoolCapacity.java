package dev.r2dbcscope;

import io.r2dbc.spi.ConnectionFactory;
import java.util.Objects;
import java.util.OptionalInt;

/**
 * The seam through which scopes learn how many connections a pool has. With that number a scope that could never get a
 * connection fails at once, see {@link NestedAcquireDeadlockException}; without it, it waits for its acquire timeout.
 *
 * <p>Implementations are found with {@link java.util.ServiceLoader}, and are thread-safe and stateless. A factory that
 * wraps another one is asked for first, then what it wraps.
 */
@FunctionalInterface
public interface PoolCapacity {

    /**
     * Tells the most connections that a factory hands out at once. Called when scopes are made for the factory, and
     * again whenever a scope within a scope waits for one of its connections, so that a pool may change its size; must
     * return at once and open nothing.
     *
     * @param factory a connection factory, of any kind
     * @return the number, or empty if there is no bound, or the factory is not of the kind that this knows
     */
    OptionalInt mostConnections(ConnectionFactory factory);

    /**
     * Tells how many connections a factory has handed out and not got back. Must return at once and open nothing.
     *
     * @param factory a connection factory, of any kind
     * @return the number, or empty if it is not known, which is the default
     */
    default OptionalInt connectionsInUse(ConnectionFactory factory) {
        return OptionalInt.empty();
    }

    /**
     * Tells how many connections the outermost bounded pool among a factory and those that it wraps has handed out and not
     * got back, as the pool itself sees it.
     *
     * @param factory a connection factory, of any kind
     * @return the number, or empty if there is no pool that is known
     */
    static OptionalInt inUse(ConnectionFactory factory) {
        return Pool.of(Objects.requireNonNull(factory, "factory")).inUse();
    }
}
