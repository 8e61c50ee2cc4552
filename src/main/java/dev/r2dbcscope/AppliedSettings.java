package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * The session settings and timeouts of one session: found in the Context, set when it opens, set back when it exits.
 *
 * <p>A transaction sets them locally, so its end is theirs, whatever becomes of it. Others are set back by the exit. The
 * database takes all of them or none, so an error that it answers with leaves nothing behind; after any other end of the
 * request nobody knows, and the connection is condemned.
 */
final class AppliedSettings {

    private final Session session;
    private final @Nullable AppliedSettings outer;
    private Map<String, String> values = Map.of();
    private volatile @Nullable Map<String, Optional<String>> former;
    private volatile Duration statementTimeout = Duration.ZERO;
    private volatile Duration lockWaitTimeout = Duration.ZERO;

    AppliedSettings(Session session, @Nullable AppliedSettings outer) {
        this.session = session;
        this.outer = outer;
    }

    // in the Context -------------------------------------------------------------------------------------------------

    /** Finds the values; throws {@link SessionSettingException} if one cannot be found. */
    void resolve(ContextView context) {
        if (!session.isTransactional()
                && session.options().transactionPooling()
                && !areNone(
                        session.options().settings().isEmpty(),
                        session.options().lockWaitTimeout())) {
            throw TransactionPoolingException.session(
                    "What a plain scope sets on its connection, be it session settings or timeouts,",
                    "set it in a transaction, to which it is local",
                    session.label());
        }
        values = session.options().settings().resolve(context, session.label());
        if (outer != null && session.isSavepoint()) {
            outer.requireSameAs(values, session.label());
        }
    }

    /** Throws unless a scope that wants the given values has them if it joins this session, or is a savepoint in it. */
    void requireSameAs(Map<String, String> wanted, ScopeLabel label) {
        if (wanted.isEmpty()) {
            return;
        }
        List<String> different = wanted.entrySet().stream()
                .filter(setting -> !setting.getValue().equals(value(setting.getKey())))
                .map(Map.Entry::getKey)
                .toList();
        if (!different.isEmpty()) {
            throw new ScopePropagationException(
                    "The scope cannot join " + session.label()
                            + ", which runs under other values of its session settings "
                            + String.join(", ", different)
                            + "; give it the same, or a connection of its own (Propagation.REQUIRES_NEW)",
                    label);
        }
    }

    private @Nullable String value(String key) {
        String own = values.get(key);
        return own != null || outer == null ? own : outer.value(key);
    }

    // opening --------------------------------------------------------------------------------------------------------

    /** Begins the transaction with the settings local to it, in one round trip. */
    Mono<Void> begin(Connection connection, TransactionOptions transaction) {
        Duration lockWait = lockWait(transaction);
        Supplier<Publisher<Void>> begin = () -> {
            session.begun();
            return session.dialect().begin(connection, transaction);
        };
        if (areNone(lockWait)) {
            return Shield.lazily(begin);
        }
        Map<String, String> wanted = wanted(lockWait);
        return (wanted.isEmpty() ? Shield.lazily(begin) : begin(connection, begin, wanted))
                .then(unlessLost(() -> setTimeouts(connection, lockWait, transaction.lockWaitTimeout() != null)));
    }

    /**
     * The settings that a transaction can begin with as text, which are taken for made from now on; {@code null} if some of them
     * must be bound, or made by way of the SPI.
     */
    @Nullable
    Map<String, String> localTo(TransactionOptions transaction) {
        Duration lockWait = lockWait(transaction);
        if (areNone(lockWait)) {
            return Map.of();
        }
        if (!session.options().settings().mayBeInSql()
                || session.dialect().timeoutSettings(session.options().statementTimeout(), lockWait) == null) {
            return null;
        }
        noteTimeouts(lockWait);
        return wanted(lockWait);
    }

    private Duration lockWait(TransactionOptions transaction) {
        Duration own = transaction.lockWaitTimeout();
        return own == null ? session.options().lockWaitTimeout() : own;
    }

    private Mono<Void> begin(Connection connection, Supplier<Publisher<Void>> begin, Map<String, String> wanted) {
        return Mono.deferContextual(context -> {
            Publisher<?> setting = session.dialect().applySettings(connection, wanted, true);
            if (setting == null) {
                return unsupported();
            }
            AtomicBoolean begun = new AtomicBoolean();
            AtomicBoolean inTime = new AtomicBoolean();
            Mono<Void> beginning =
                    Shield.start(() -> Flux.from(begin.get()).doOnComplete(() -> begun.set(true)), context);
            Mono<Void> set =
                    Shield.start(() -> Flux.from(setting).doOnComplete(() -> inTime.set(begun.get())), context);
            return beginning
                    .onErrorResume(e -> set.onErrorComplete().then(Mono.error(e)))
                    .then(set.then(unlessLost(() -> inTime.get() ? Mono.empty() : setAgain(connection, wanted)))
                            .onErrorMap(e -> refused(e, wanted)));
        });
    }

    /** What was answered too late, when the connection was destroyed already, is followed by nothing. */
    private Mono<Void> unlessLost(Supplier<Mono<Void>> step) {
        return Mono.defer(() -> session.isLost() ? Mono.empty() : step.get());
    }

    /** Something between the scope and the driver held BEGIN up, so the settings may have come first, to no effect. */
    private Mono<Void> setAgain(Connection connection, Map<String, String> wanted) {
        return Shield.lazily(() -> session.dialect().applySettings(connection, wanted, true));
    }

    /** Sets them on the connection of a plain scope. */
    Mono<Void> enter(Connection connection) {
        Duration lockWait = session.options().lockWaitTimeout();
        if (areNone(lockWait)) {
            return Mono.empty();
        }
        Map<String, String> wanted = wanted(lockWait);
        return (wanted.isEmpty() ? Mono.<Void>empty() : enter(connection, wanted))
                .then(unlessLost(() -> setTimeouts(connection, lockWait, false)));
    }

    private Mono<Void> enter(Connection connection, Map<String, String> wanted) {
        return Mono.defer(() -> {
            Publisher<Map<String, Optional<String>>> setting =
                    session.dialect().applySettings(connection, wanted, false);
            if (setting == null) {
                return unsupported();
            }
            return Shield.lazily(() -> Flux.from(setting).doOnNext(before -> former = before))
                    .onErrorMap(e -> refused(e, wanted));
        });
    }

    private boolean areNone(Duration lockWait) {
        return areNone(values.isEmpty(), lockWait);
    }

    private boolean areNone(boolean noValues, Duration lockWait) {
        return noValues
                && lockWait.isZero()
                && session.options().statementTimeout().isZero();
    }

    private Map<String, String> wanted(Duration lockWait) {
        Map<String, String> timeouts =
                session.dialect().timeoutSettings(session.options().statementTimeout(), lockWait);
        if (timeouts == null || timeouts.isEmpty()) {
            return values;
        }
        Map<String, String> wanted = new LinkedHashMap<>(values);
        wanted.putAll(timeouts);
        return wanted;
    }

    private void noteTimeouts(Duration lockWait) {
        Duration statement = session.options().statementTimeout();
        statementTimeout = statement;
        lockWaitTimeout = lockWait;
        if (session.dialect().timeoutSettings(statement, lockWait) != null) {
            session.changes().timeoutsOfTheScope(statement, lockWait);
        }
    }

    /** Notes which timeouts there are now, and sets them by way of the SPI if they are not among the settings. */
    private Mono<Void> setTimeouts(Connection connection, Duration lockWait, boolean lockWaitIsTheTransactions) {
        return Mono.defer(() -> {
            Duration statement = session.options().statementTimeout();
            noteTimeouts(lockWait);
            SettingChanges changes = session.changes();
            if (session.dialect().timeoutSettings(statement, lockWait) != null) {
                return Mono.empty();
            }
            Mono<Void> set = Mono.empty();
            if (!statement.isZero()) {
                set = Shield.lazily(() -> {
                    changes.statementTimeout(statement);
                    return connection.setStatementTimeout(statement);
                });
            }
            if (lockWait.isZero() || lockWaitIsTheTransactions) {
                return set;
            }
            return set.then(Shield.lazily(() -> {
                changes.lockWaitTimeout(lockWait);
                return connection.setLockWaitTimeout(lockWait);
            }));
        });
    }

    private Mono<Void> unsupported() {
        return Mono.error(() -> SessionSettingException.unsupported(values.keySet(), session.label()));
    }

    /** The error of a statement that was to make the given settings. */
    Throwable refused(Throwable error, Map<String, String> wanted) {
        if (!(error instanceof R2dbcException answer) || answer.getSqlState() == null) {
            session.condemn();
            return error;
        }
        return session.dialect().endsConnection(answer)
                ? error
                : SessionSettingException.refused(wanted.keySet(), answer.getSqlState(), session.label(), error);
    }

    // exit -----------------------------------------------------------------------------------------------------------

    /** Whether there is nothing to set back. */
    boolean areLocal() {
        return former == null;
    }

    /** Sets back what was not local to a transaction. */
    Mono<Void> restore(Connection connection) {
        Map<String, Optional<String>> before = former;
        return before == null
                ? Mono.empty()
                : Shield.lazily(() -> session.dialect().restoreSettings(connection, before));
    }

    // meanwhile ------------------------------------------------------------------------------------------------------

    /** The error of a statement as its subscriber gets it: the driver's own, or one that says which timeout it exceeded. */
    Throwable shown(Throwable error, String sql, Duration took) {
        if (!(error instanceof R2dbcException answered)) {
            return error;
        }
        Duration statement =
                session.changes().isStatementTimeout(statementTimeout()) ? statementTimeout() : Duration.ZERO;
        Duration lockWait = session.changes().isLockWaitTimeout(lockWaitTimeout()) ? lockWaitTimeout() : Duration.ZERO;
        Dialect dialect = session.dialect();
        if (!lockWait.isZero() && dialect.isLockWaitTimeout(answered, took.compareTo(lockWait) >= 0)) {
            return ScopeTimeoutException.lockWait(
                    lockWait, sql, took, session.report().snapshot(), session.label(), error);
        }
        if (!statement.isZero() && dialect.isStatementTimeout(answered, took.compareTo(statement) >= 0)) {
            return ScopeTimeoutException.statement(
                    statement, sql, took, session.report().snapshot(), session.label(), error);
        }
        return error;
    }

    private Duration statementTimeout() {
        Duration own = statementTimeout;
        return own.isZero() && outer != null ? outer.statementTimeout() : own;
    }

    private Duration lockWaitTimeout() {
        Duration own = lockWaitTimeout;
        return own.isZero() && outer != null ? outer.lockWaitTimeout() : own;
    }
}
