package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.PipelinedBegin;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.TransactionDefinition;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * BEGIN as text without parameters, which the driver sends at once and does not wait for before it sends the next.
 *
 * <p>The server runs one message after the other, whatever became of the one before. BEGIN itself fails only when a request to
 * cancel, a timeout or the like hits it, and what is behind it would commit by itself then. So the transaction carries a mark
 * of its own, a setting that ends with it, and the guard ends the server's process where the mark is missing: a process gets a
 * signal that it sends itself before it reads its next message. If the guard is hit instead, the transaction is aborted, and
 * admits nothing behind. Only if both are hit, each by a request of its own, is the statement behind on its own.
 */
final class TransactionStart implements PipelinedBegin {

    static final TransactionStart INSTANCE = new TransactionStart();

    private static final String MARK = "SET LOCAL r2dbc_scope.begun TO 'on'";

    /**
     * Whoever has logged in may end his own process, and whom the session acts as may not: so that is taken back before. Operators
     * are called by their full names, as functions are.
     */
    private static final String GUARD = "SELECT CASE WHEN pg_catalog.concat("
            + "pg_catalog.set_config('session_authorization', NULL, true), pg_catalog.set_config('role', 'none', true))"
            + " IS NOT NULL THEN pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()) END"
            + " WHERE COALESCE(pg_catalog.current_setting('r2dbc_scope.begun', true), '') OPERATOR(pg_catalog.<>) 'on'";

    /** An unknown one would be an error of syntax, upon which the server runs nothing of the message. */
    private static final Set<IsolationLevel> KNOWN = Set.of(
            IsolationLevel.READ_UNCOMMITTED,
            IsolationLevel.READ_COMMITTED,
            IsolationLevel.REPEATABLE_READ,
            IsolationLevel.SERIALIZABLE);

    /** Each of these takes a snapshot itself, so it makes no difference that the guard has. */
    private static final Set<String> FOLLOWERS =
            Set.of("select", "insert", "update", "delete", "with", "values", "merge", "table");

    private TransactionStart() {}

    @Override
    public Publisher<Boolean> isAvailable(Connection connection) {
        return executed(connection, "BEGIN; " + MARK + "; " + GUARD + "; ROLLBACK")
                .then(Mono.just(true))
                .onErrorResume(R2dbcException.class, e -> leave(connection, e));
    }

    /**
     * Another database that speaks the protocol may not know the functions, or the role may not call them. Any other error says
     * nothing of that.
     */
    private static Mono<Boolean> leave(Connection connection, R2dbcException error) {
        String state = error.getSqlState();
        if (state == null || new PostgresqlDialect().endsConnection(error)) {
            return Mono.error(error);
        }
        boolean isUnable = state.startsWith("42") || state.startsWith("0A");
        return Mono.from(connection.rollbackTransaction()).then(isUnable ? Mono.just(false) : Mono.empty());
    }

    @Override
    public @Nullable Publisher<?> begin(
            Connection connection, TransactionDefinition definition, Map<String, String> settings) {
        IsolationLevel isolation = definition.getAttribute(TransactionDefinition.ISOLATION_LEVEL);
        if (isolation != null && !KNOWN.contains(isolation)) {
            return null;
        }
        StringBuilder sql = new StringBuilder("BEGIN");
        if (isolation != null) {
            sql.append(" ISOLATION LEVEL ").append(isolation.asSql());
        }
        Boolean readOnly = definition.getAttribute(TransactionDefinition.READ_ONLY);
        if (readOnly != null) {
            sql.append(readOnly ? " READ ONLY" : " READ WRITE");
        }
        sql.append("; ").append(MARK);
        if (!settings.isEmpty()) {
            String set = SettingStatement.literal(settings);
            if (set == null) {
                return null;
            }
            sql.append("; ").append(set);
        }
        return executed(connection, sql.toString());
    }

    @Override
    public boolean mayFollow(String sql) {
        SqlTokens tokens = new SqlTokens(sql);
        String first = tokens.next();
        while ("(".equals(first)) {
            first = tokens.next();
        }
        return first != null && FOLLOWERS.contains(first.toLowerCase(Locale.ROOT));
    }

    @Override
    public Publisher<Void> guard(Connection connection) {
        return executed(connection, GUARD).then();
    }

    /**
     * Never by fetch size, which the factory may have a default of: a message of several statements has none.
     *
     * <p>Emits once for each statement that was executed; fails at the end, when the driver knows what became of the transaction.
     */
    private static Flux<Long> executed(Connection connection, String sql) {
        return Flux.defer(() ->
                        Flux.from(connection.createStatement(sql).fetchSize(0).execute()))
                .concatMapDelayError(
                        result -> Flux.from(result.getRowsUpdated()).last(0L));
    }
}
