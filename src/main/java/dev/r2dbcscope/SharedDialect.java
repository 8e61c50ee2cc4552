package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/** The dialect of a {@link SharedConnection}: that of the connection it shares, except for what would pass it by. */
final class SharedDialect implements Dialect {

    private final Dialect dialect;

    SharedDialect(Dialect dialect) {
        this.dialect = dialect;
    }

    private static SharedConnection shared(Connection connection) {
        SharedConnection shared = SharedConnection.in(connection);
        if (shared == null) {
            throw new IllegalArgumentException("Not a shared connection: " + connection);
        }
        return shared;
    }

    @Override
    public boolean supports(Connection connection) {
        return SharedConnection.in(connection) != null;
    }

    @Override
    public Publisher<Void> createSavepoint(Connection connection, String name) {
        return dialect.createSavepoint(connection, name);
    }

    @Override
    public Publisher<Void> releaseSavepoint(Connection connection, String name) {
        return dialect.releaseSavepoint(connection, name);
    }

    @Override
    public @Nullable Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
        return shared(connection).applySettings(dialect, settings, local);
    }

    @Override
    public Publisher<Void> restoreSettings(Connection connection, Map<String, Optional<String>> former) {
        return dialect.restoreSettings(connection, former);
    }

    @Override
    public @Nullable Map<String, String> timeoutSettings(Duration statementTimeout, Duration lockWaitTimeout) {
        return dialect.timeoutSettings(statementTimeout, lockWaitTimeout);
    }

    @Override
    public boolean isStatementTimeout(R2dbcException error, boolean tookLonger) {
        return dialect.isStatementTimeout(error, tookLonger);
    }

    @Override
    public boolean isLockWaitTimeout(R2dbcException error, boolean tookLonger) {
        return dialect.isLockWaitTimeout(error, tookLonger);
    }

    @Override
    public @Nullable Publisher<Void> resetTimeouts(Connection connection) {
        return dialect.resetTimeouts(connection);
    }

    @Override
    public @Nullable Cursors cursors() {
        return dialect.cursors();
    }

    @Override
    public @Nullable Publisher<Boolean> keepsPreparedStatements(Connection connection) {
        return dialect.keepsPreparedStatements(connection);
    }

    @Override
    public boolean isError(Result.Message message) {
        return dialect.isError(message);
    }

    @Override
    public boolean endsConnection(R2dbcException error) {
        return dialect.endsConnection(error);
    }

    @Override
    public @Nullable Publisher<Void> cancelRunning(Connection connection) {
        return shared(connection).cancelRunning(dialect);
    }

    /** Whoever shares the connection reads what its own subscriber has left. */
    @Override
    public @Nullable Publisher<?> afterCancelledFetch(Connection connection) {
        return null;
    }

    /** Its segments are those of a scope, which have been taken from the driver already. */
    @Override
    public @Nullable Runnable retain(Result.Segment segment) {
        return segment instanceof ScopedResult.ScopedRowSegment scoped ? scoped.retain() : null;
    }
}
