package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.Dialect;
import io.netty.util.ReferenceCounted;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.TransactionDefinition;
import java.time.Duration;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * PostgreSQL by r2dbc-postgresql. Found by {@link java.util.ServiceLoader}; nobody needs to call it.
 *
 * <p>Stateless and thread-safe.
 */
public final class PostgresqlDialect implements Dialect {

    /** For {@link java.util.ServiceLoader}. Fails to link if r2dbc-postgresql is not there, which disables the dialect. */
    public PostgresqlDialect() {
        PostgresqlConnection.class.getName();
    }

    @Override
    public boolean supports(Connection connection) {
        return connection instanceof PostgresqlConnection;
    }

    /** The driver ignores the lock wait timeout of a definition, so it is set with {@code SET LOCAL lock_timeout}. */
    @Override
    public Publisher<Void> begin(Connection connection, TransactionDefinition definition) {
        Mono<Void> begin = Mono.from(connection.beginTransaction(definition));
        Duration lockWait = definition.getAttribute(TransactionDefinition.LOCK_WAIT_TIMEOUT);
        if (lockWait == null) {
            return begin;
        }
        String setting = "SET LOCAL lock_timeout = " + Math.min(lockWait.toMillis(), Integer.MAX_VALUE);
        return begin.then(execute(connection, setting));
    }

    /** The driver skips it silently when a statement has failed, so that there would be nothing to roll back to. */
    @Override
    public Publisher<Void> createSavepoint(Connection connection, String name) {
        return execute(connection, "SAVEPOINT " + name);
    }

    /** The driver skips it silently when a statement has failed, which would make the failure look like a success. */
    @Override
    public Publisher<Void> releaseSavepoint(Connection connection, String name) {
        return execute(connection, "RELEASE SAVEPOINT " + name);
    }

    @Override
    public Publisher<Void> resetTimeouts(Connection connection) {
        return execute(connection, "RESET statement_timeout; RESET lock_timeout");
    }

    private static Mono<Void> execute(Connection connection, String sql) {
        return Flux.defer(() -> Flux.from(connection.createStatement(sql).execute()))
                .flatMap(Result::getRowsUpdated)
                .then();
    }

    /** Rows are views of the driver's pooled network buffers, which are counted. */
    @Override
    public @Nullable Runnable retain(Result.Segment segment) {
        if (segment instanceof ReferenceCounted counted) {
            counted.retain();
            return counted::release;
        }
        return null;
    }
}
