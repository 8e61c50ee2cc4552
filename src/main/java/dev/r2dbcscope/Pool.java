package dev.r2dbcscope;

import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Wrapped;
import java.util.List;
import java.util.OptionalInt;
import org.jspecify.annotations.Nullable;

/**
 * The pool behind a connection factory, if there is one and its capacity is known.
 *
 * <p>Two are equal if they are the same pool, whatever proxies it is seen through.
 */
final class Pool {

    private static final List<PoolCapacity> CAPACITIES = Services.load(PoolCapacity.class);

    private final ConnectionFactory factory;
    private final @Nullable PoolCapacity capacity;

    private Pool(ConnectionFactory factory, @Nullable PoolCapacity capacity) {
        this.factory = factory;
        this.capacity = capacity;
    }

    /** The outermost pool among a factory and the ones it wraps: the one that scopes take connections from. */
    static Pool of(ConnectionFactory outermost) {
        ConnectionFactory layer = outermost;
        while (true) {
            for (PoolCapacity candidate : CAPACITIES) {
                if (ask(candidate, layer).isPresent()) {
                    return new Pool(layer, candidate);
                }
            }
            if (!(layer instanceof Wrapped<?> wrapped && wrapped.unwrap() instanceof ConnectionFactory inner)) {
                return new Pool(outermost, null);
            }
            layer = inner;
        }
    }

    /** Whether it can run out of connections, as far as is known. */
    boolean isBounded() {
        return capacity != null;
    }

    /** The most connections it hands out at once; as many as there are numbers if that is not known. */
    int capacity() {
        return capacity == null ? Integer.MAX_VALUE : ask(capacity, factory).orElse(Integer.MAX_VALUE);
    }

    /** How many connections are out, if it knows. */
    OptionalInt inUse() {
        if (capacity == null) {
            return OptionalInt.empty();
        }
        try {
            return capacity.connectionsInUse(factory);
        } catch (RuntimeException e) {
            return OptionalInt.empty();
        }
    }

    /** One that fails does not know. */
    private static OptionalInt ask(PoolCapacity capacity, ConnectionFactory factory) {
        try {
            return capacity.mostConnections(factory);
        } catch (RuntimeException e) {
            return OptionalInt.empty();
        }
    }

    @Override
    public boolean equals(@Nullable Object other) {
        return other instanceof Pool pool && pool.factory == factory;
    }

    @Override
    public int hashCode() {
        return System.identityHashCode(factory);
    }
}
