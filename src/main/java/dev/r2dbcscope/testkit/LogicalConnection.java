package dev.r2dbcscope.testkit;

import dev.r2dbcscope.Dialect;
import dev.r2dbcscope.DriverTurn;
import dev.r2dbcscope.ScopeAcquisitionException;
import dev.r2dbcscope.ScopeClosedException;
import dev.r2dbcscope.SharedConnection;
import dev.r2dbcscope.SqlEffect;
import dev.r2dbcscope.StatementGuard;
import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * A connection of a {@link RollbackSandbox}, as the application sees it.
 *
 * <p>Each statement goes to the {@link Place} where the connection was when it was subscribed to. Transactions end what was
 * begun before them in the order of subscription, as with a driver, which sends one thing after the other.
 */
final class LogicalConnection implements SharedConnection, Wrapped<Connection> {

    private final SandboxRun run;
    private final Connection handle;
    private final int number;
    private final String origin;
    private final LogicalTransactions transactions;
    private final AtomicBoolean closed = new AtomicBoolean();
    private volatile @Nullable IsolationLevel isolation;

    LogicalConnection(SandboxRun run, Connection handle, int number, String origin) {
        this.run = run;
        this.handle = handle;
        this.number = number;
        this.origin = origin;
        this.transactions = new LogicalTransactions(run, this);
    }

    String origin() {
        return origin;
    }

    String describe() {
        return "connection #" + number + " created by " + origin;
    }

    // statements -----------------------------------------------------------------------------------------------------

    @Override
    public Statement createStatement(String sql) {
        return new ForwardingStatement(usable().createStatement(sql), sql, this::executed);
    }

    @Override
    public Batch createBatch() {
        return new ForwardingBatch(usable().createBatch(), this::executed);
    }

    /** Executes a statement in its turn. */
    private Flux<Result> executed(String sql, Publisher<? extends Result> statement) {
        return Flux.deferContextual(application -> {
            requireOpen();
            SqlEffect effect = run.dialect().effectOf(sql);
            refuse(effect, sql);
            if (effect == SqlEffect.SESSION) {
                transactions.pin();
            }
            return transactions.in(
                    application,
                    (place, context) -> Flux.<Result>from(statement)
                            .contextWrite(own -> StatementGuard.write(
                                    own.putAll(context), new RunningStatement(run, this, !place.isTransaction()))));
        });
    }

    private void refuse(SqlEffect effect, String sql) {
        String problem = switch (effect) {
            case TRANSACTION ->
                "would end the transaction of the test, or change it; begin and end transactions with the methods"
                        + " of the connection, or whatever calls them";
            case LISTEN -> "would hear nothing, because notifications are sent when a transaction commits";
            case SAVEPOINT ->
                transactions.isAutoCommit() ? "needs a transaction, and this connection is not in one" : null;
            case SESSION, DATA -> null;
        };
        if (problem != null) {
            throw new SandboxUnsupportedException(
                    "In a rollback sandbox, \"" + sql + "\" " + problem + " [" + describe() + "]");
        }
    }

    // transactions ---------------------------------------------------------------------------------------------------

    @Override
    public Mono<Void> beginTransaction() {
        return open(application -> transactions.begin(application, null));
    }

    @Override
    public Mono<Void> beginTransaction(TransactionDefinition definition) {
        Objects.requireNonNull(definition, "definition");
        return open(application -> transactions.begin(application, definition));
    }

    @Override
    public Mono<Void> commitTransaction() {
        return open(application -> transactions.commit());
    }

    @Override
    public Mono<Void> rollbackTransaction() {
        return open(application -> transactions.rollback());
    }

    @Override
    public Mono<Void> createSavepoint(String name) {
        Objects.requireNonNull(name, "name");
        return open(application -> transactions
                .begin(application, null)
                .then(Mono.defer(
                        () -> transactions.control(application, connection -> connection.createSavepoint(name)))));
    }

    /** Like drivers, does nothing outside a transaction. */
    @Override
    public Mono<Void> releaseSavepoint(String name) {
        Objects.requireNonNull(name, "name");
        return inTransaction(connection -> connection.releaseSavepoint(name));
    }

    /** Like drivers, does nothing outside a transaction. */
    @Override
    public Mono<Void> rollbackTransactionToSavepoint(String name) {
        Objects.requireNonNull(name, "name");
        return inTransaction(connection -> connection.rollbackTransactionToSavepoint(name));
    }

    private Mono<Void> inTransaction(Function<? super Connection, ? extends Publisher<Void>> request) {
        return open(
                application -> transactions.isAutoCommit() ? Mono.empty() : transactions.control(application, request));
    }

    @Override
    public boolean isAutoCommit() {
        return transactions.isAutoCommit();
    }

    @Override
    public Mono<Void> setAutoCommit(boolean autoCommit) {
        return open(application -> {
            if (autoCommit == transactions.isAutoCommit()) {
                return Mono.empty();
            }
            return autoCommit ? transactions.commit() : transactions.begin(application, null);
        });
    }

    @Override
    public IsolationLevel getTransactionIsolationLevel() {
        IsolationLevel ofTransaction = transactions.isolation();
        IsolationLevel own = isolation;
        if (ofTransaction != null) {
            return ofTransaction;
        }
        return own != null ? own : usable().getTransactionIsolationLevel();
    }

    /** Transactions of a sandbox run one after the other, which is what the strictest level promises. */
    @Override
    public Mono<Void> setTransactionIsolationLevel(IsolationLevel isolationLevel) {
        Objects.requireNonNull(isolationLevel, "isolationLevel");
        return open(application -> Mono.fromRunnable(() -> isolation = isolationLevel));
    }

    // the rest -------------------------------------------------------------------------------------------------------

    @Override
    public Mono<Void> setLockWaitTimeout(Duration timeout) {
        Objects.requireNonNull(timeout, "timeout");
        return session(connection -> connection.setLockWaitTimeout(timeout));
    }

    @Override
    public Mono<Void> setStatementTimeout(Duration timeout) {
        Objects.requireNonNull(timeout, "timeout");
        return session(connection -> connection.setStatementTimeout(timeout));
    }

    private Mono<Void> session(Function<? super Connection, ? extends Publisher<Void>> request) {
        return open(application -> {
            transactions.pin();
            return transactions.control(application, request);
        });
    }

    @Override
    public ConnectionMetadata getMetadata() {
        return usable().getMetadata();
    }

    @Override
    public Mono<Boolean> validate(ValidationDepth depth) {
        Objects.requireNonNull(depth, "depth");
        return Mono.deferContextual(application -> {
                    if (closed.get()) {
                        return Mono.just(false);
                    }
                    return depth == ValidationDepth.LOCAL
                            ? Mono.<Boolean>from(handle.validate(depth))
                            : transactions.<Boolean>control(application, connection -> connection.validate(depth));
                })
                .onErrorReturn(false);
    }

    /** Rolls back what is open. What still runs is cancelled: nobody can read it any more. */
    @Override
    public Mono<Void> close() {
        return Mono.defer(() -> {
            if (closed.compareAndSet(false, true)) {
                return transactions.close().doOnTerminate(() -> run.closed(this));
            }
            return Mono.empty();
        });
    }

    /** Where its statements go now. */
    Place place() {
        return transactions.current();
    }

    /** The real connection: what is done with it passes by the sandbox. */
    @Override
    public Connection unwrap() {
        return run.real();
    }

    @Override
    public <E> @Nullable E unwrap(Class<E> targetClass) {
        return Wrapping.find(this, targetClass);
    }

    // what scopes ask ------------------------------------------------------------------------------------------------

    @Override
    public Connection shared() {
        return run.real();
    }

    @Override
    public <T> Mono<T> alone(String what, Supplier<? extends Publisher<? extends T>> work) {
        return Mono.deferContextual(application -> {
            requireOpen();
            return transactions.inMono(
                    application,
                    (place, context) -> DriverTurn.<T>take(
                                    handle,
                                    what,
                                    turn -> new RunningStatement(run, this, !place.isTransaction()).<T>around(work))
                            .contextWrite(own -> own.putAll(context)));
        });
    }

    @Override
    public @Nullable Publisher<Void> cancelRunning(Dialect dialect) {
        return run.cancelRunning(this, dialect);
    }

    @Override
    public @Nullable Publisher<Map<String, Optional<String>>> applySettings(
            Dialect dialect, Map<String, String> settings, boolean local) {
        Publisher<Map<String, Optional<String>>> applied = dialect.applySettings(this, settings, false);
        if (applied == null) {
            return null;
        }
        return Flux.defer(() -> {
            if (local) {
                return Flux.from(applied)
                        .doOnNext(former -> transactions.atCommit(() -> dialect.restoreSettings(run.real(), former)));
            }
            transactions.pin();
            return Flux.from(applied);
        });
    }

    // misuse ---------------------------------------------------------------------------------------------------------

    private Mono<Void> open(Function<ContextView, Mono<Void>> request) {
        return Mono.deferContextual(application -> {
            requireOpen();
            return request.apply(application);
        });
    }

    private Connection usable() {
        requireOpen();
        return handle;
    }

    private void requireOpen() {
        if (closed.get()) {
            throw new IllegalStateException("The connection is closed [" + describe() + "]");
        }
    }

    /** An error of the sandbox's own scopes in the words of the sandbox. */
    Throwable told(Throwable error) {
        if (error instanceof ScopeAcquisitionException) {
            return run.busy(this, error);
        }
        if (error instanceof ScopeClosedException && !(error.getCause() instanceof SandboxException)) {
            return new SandboxClosedException(
                    closed.get()
                            ? "The connection was closed meanwhile [" + describe() + "]"
                            : "The sandbox has lost its connection, or was rolled back [" + describe() + "]",
                    error);
        }
        return error;
    }

    @Override
    public String toString() {
        return "LogicalConnection[#" + number + " of a rollback sandbox]";
    }
}
