package dev.r2dbcscope.postgresql;

import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Wrapped;
import org.jspecify.annotations.Nullable;

/** The driver's own connection under pools and proxies. */
final class Unwrapped {

    private Unwrapped() {}

    /** Throws if it is another database's. */
    static PostgresqlConnection postgresql(Connection connection) {
        PostgresqlConnection driver = connection instanceof PostgresqlConnection itself ? itself : inside(connection);
        if (driver == null) {
            throw new UnsupportedOperationException(
                    "This needs r2dbc-postgresql, but the connection is another driver's: "
                            + connection.getClass().getName());
        }
        return driver;
    }

    private static @Nullable PostgresqlConnection inside(Connection connection) {
        return connection instanceof Wrapped<?> wrapped ? wrapped.unwrap(PostgresqlConnection.class) : null;
    }
}
