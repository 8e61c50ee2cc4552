package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.Cursors;
import dev.r2dbcscope.Dialect;
import dev.r2dbcscope.PipelinedBegin;
import dev.r2dbcscope.SqlEffect;
import io.netty.util.ReferenceCounted;
import io.r2dbc.postgresql.api.ErrorDetails;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.postgresql.api.PostgresqlException;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
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

    private static final Set<String> NOTICES = Set.of("WARNING", "NOTICE", "INFO", "LOG", "DEBUG");

    /** For {@link java.util.ServiceLoader}. Fails to link if r2dbc-postgresql is not there, which disables the dialect. */
    public PostgresqlDialect() {
        PostgresqlConnection.class.getName();
    }

    @Override
    public boolean supports(Connection connection) {
        return connection instanceof PostgresqlConnection;
    }

    @Override
    public PipelinedBegin pipelinedBegin(Connection connection) {
        return TransactionStart.INSTANCE;
    }

    /** One statement; the driver sends it behind BEGIN without waiting for the answer to that. */
    @Override
    public Publisher<Map<String, Optional<String>>> applySettings(
            Connection connection, Map<String, String> settings, boolean local) {
        return SettingStatement.apply(connection, settings, local);
    }

    @Override
    public Publisher<Void> restoreSettings(Connection connection, Map<String, Optional<String>> former) {
        return SettingStatement.restore(connection, former);
    }

    @Override
    public SqlEffect effectOf(String sql) {
        return SqlEffects.of(sql);
    }

    /** The server goes back to the access mode of what is around a savepoint when that ends, whichever way. */
    @Override
    public Publisher<Void> makeReadOnly(Connection connection) {
        return execute(connection, "SET TRANSACTION READ ONLY");
    }

    @Override
    public Publisher<Boolean> keepsPreparedStatements(Connection connection) {
        return PreparedStatementProbe.run(connection);
    }

    /** The driver ignores the lock wait timeout of a transaction definition, and knows no timeouts local to a transaction. */
    @Override
    public Map<String, String> timeoutSettings(Duration statementTimeout, Duration lockWaitTimeout) {
        Map<String, String> settings = new LinkedHashMap<>();
        if (!statementTimeout.isZero()) {
            settings.put("statement_timeout", milliseconds(statementTimeout));
        }
        if (!lockWaitTimeout.isZero()) {
            settings.put("lock_timeout", milliseconds(lockWaitTimeout));
        }
        return settings;
    }

    private static String milliseconds(Duration timeout) {
        return Long.toString(Math.min(timeout.toMillis(), Integer.MAX_VALUE));
    }

    /** 57014 is {@code query_canceled}, for whatever reason; the message that says it is translated. */
    @Override
    public boolean isStatementTimeout(R2dbcException error, boolean tookLonger) {
        return tookLonger && "57014".equals(error.getSqlState());
    }

    /**
     * 55P03 is {@code lock_not_available}. NOWAIT gives it as well, but from where it looked for the lock and not from where
     * the server serves its timers.
     */
    @Override
    public boolean isLockWaitTimeout(R2dbcException error, boolean tookLonger) {
        if (!tookLonger || !"55P03".equals(error.getSqlState())) {
            return false;
        }
        return !(error instanceof PostgresqlException known)
                || known.getErrorDetails()
                        .getRoutine()
                        .map("ProcessInterrupts"::equals)
                        .orElse(true);
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

    @Override
    public Cursors cursors() {
        return PostgresqlCursors.INSTANCE;
    }

    /** The severity decides, not the SQLSTATE: {@code CREATE TABLE IF NOT EXISTS} gives notice of 42P07, as its error has it. */
    @Override
    public boolean isError(Result.Message message) {
        return Dialect.super.isError(message)
                && !(message.exception() instanceof PostgresqlException told
                        && NOTICES.contains(severity(told.getErrorDetails())));
    }

    /** Servers before 9.6 tell it in their own language only. */
    private static String severity(ErrorDetails details) {
        String english = details.getSeverityNonLocalized();
        return english != null ? english : details.getSeverityLocalized();
    }

    /**
     * The severity decides, not the SQLSTATE: the server closes the connection after FATAL and PANIC, be it for a shutdown
     * (57P01), an idle transaction (25P03) or a conflict with recovery (40001); code may raise each of these states itself.
     */
    @Override
    public boolean endsConnection(R2dbcException error) {
        return Dialect.super.endsConnection(error)
                || error instanceof PostgresqlException told && endsConnection(told.getErrorDetails());
    }

    private static boolean endsConnection(ErrorDetails details) {
        String severity = details.getSeverityNonLocalized();
        return "FATAL".equals(severity) || "PANIC".equals(severity);
    }

    private static Mono<Void> execute(Connection connection, String sql) {
        return Flux.defer(() -> Flux.from(connection.createStatement(sql).execute()))
                .flatMap(Result::getRowsUpdated)
                .then();
    }

    /**
     * By a connection of its own, as the protocol wants it. The server closes that one after it has sent the signal to the
     * process of the other, which looks for the signal before it begins with its next statement.
     */
    @Override
    public Publisher<Void> cancelRunning(Connection connection) {
        return ((PostgresqlConnection) connection).cancelRequest();
    }

    /** The driver closes the portal instead of fetching from it again; conversations are answered in order. */
    @Override
    public Publisher<?> afterCancelledFetch(Connection connection) {
        return connection.validate(ValidationDepth.REMOTE);
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
