package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Wrapped;
import org.jspecify.annotations.Nullable;

/** Looks into a connection that wraps another one. */
final class Wrapping {

    private Wrapping() {}

    /**
     * The first of a wrapper, what it wraps, and what that wraps in its turn, that is of a type. The default of the SPI asks
     * only connections that wrap another one in their turn.
     */
    static <E> @Nullable E find(Wrapped<Connection> wrapper, Class<E> type) {
        if (type.isInstance(wrapper)) {
            return type.cast(wrapper);
        }
        Connection inner = wrapper.unwrap();
        if (type.isInstance(inner)) {
            return type.cast(inner);
        }
        return inner instanceof Wrapped<?> wrapped ? wrapped.unwrap(type) : null;
    }
}
