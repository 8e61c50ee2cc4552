package dev.r2dbcscope.issues;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Wrapped;

/** The connection inside a pool's. */
final class Physical {

    private Physical() {}

    static Connection of(Connection connection) {
        return connection instanceof Wrapped<?> wrapped && wrapped.unwrap() instanceof Connection inner
                ? of(inner)
                : connection;
    }
}
