package dev.r2dbcscope.testkit;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Dialect;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;

/**
 * One use of a sandbox, from its beginning to its rollback: the real connection with its transaction, and the logical
 * connections on it.
 */
final class SandboxRun {

    private static final String SAVEPOINT = "sandbox_statement";

    private final SandboxOptions options;
    private final String origin;
    private final ConnectionScopes scopes;
    private final ConnectionScopes sections;
    private final HeldSection transaction = new HeldSection();
    private final Place place = Place.shared(transaction);

    private final Set<LogicalConnection> open = new LinkedHashSet<>();
    private final Deque<LogicalConnection> holders = new ArrayDeque<>();
    private final Sinks.Empty<Void> allClosed = Sinks.empty();
    private final Sinks.Empty<Void> rolledBack = Sinks.empty();
    private int created;
    private boolean ending;
    private volatile @Nullable RunningStatement running;
    private volatile @Nullable Real real;

    SandboxRun(ConnectionFactory factory, SandboxOptions options, String origin) {
        this.options = options;
        this.origin = origin;
        this.scopes = ConnectionScopes.of(factory);
        this.sections = scopes.with(
                        ScopeOptions.defaults().withName("rollback sandbox").withAcquireTimeout(options.waitLimit()))
                .transactions(Propagation.NESTED);
    }

    SandboxOptions options() {
        return options;
    }

    /** Where it was begun. */
    String origin() {
        return origin;
    }

    ConnectionScopes sections() {
        return sections;
    }

    Place place() {
        return place;
    }

    // its life -------------------------------------------------------------------------------------------------------

    /** Completes when the transaction has begun. */
    Mono<Void> begin() {
        return Mono.defer(() -> transaction.begin(sections, Context.empty(), scopes::connected))
                .doOnNext(context -> real = Real.of(Objects.requireNonNull(transaction.connection())))
                .then();
    }

    /** Rolls everything back, whatever is still open, and whoever stops waiting for it; fails with what was open. */
    Mono<Void> rollback() {
        return Mono.defer(() -> {
            if (end()) {
                allClosed
                        .asMono()
                        .timeout(options.closeGrace(), Mono.empty(), Schedulers.parallel())
                        .then(Mono.defer(this::closeAll))
                        .subscribe(null, rolledBack::tryEmitError, rolledBack::tryEmitEmpty);
            }
            return rolledBack.asMono();
        });
    }

    private boolean end() {
        boolean none;
        synchronized (this) {
            if (ending) {
                return false;
            }
            ending = true;
            none = open.isEmpty();
        }
        if (none) {
            allClosed.tryEmitEmpty();
        }
        return true;
    }

    private Mono<Void> closeAll() {
        List<LogicalConnection> leaked;
        synchronized (this) {
            leaked = List.copyOf(open);
        }
        List<String> left = leaked.stream().map(LogicalConnection::describe).toList();
        return Flux.fromIterable(leaked)
                .flatMap(connection -> connection.close().onErrorComplete())
                .then(Mono.defer(transaction::rollback))
                .then(Mono.defer(() -> left.isEmpty() ? Mono.empty() : Mono.error(leak(leaked, left))));
    }

    private SandboxLeakException leak(List<LogicalConnection> leaked, List<String> described) {
        return new SandboxLeakException(
                "The sandbox was rolled back, but " + described.size()
                        + (described.size() == 1 ? " connection was" : " connections were")
                        + " still open, after a grace of " + options.closeGrace() + ": "
                        + String.join("; ", described)
                        + ". Close each connection, and let the test wait for all that it has started",
                leaked.stream().map(LogicalConnection::origin).toList(),
                null);
    }

    // its connections ------------------------------------------------------------------------------------------------

    LogicalConnection connect(String from) {
        synchronized (this) {
            if (ending) {
                throw new SandboxClosedException(
                        "The sandbox is being rolled back, so it gives no connection to " + from, null);
            }
            LogicalConnection connection = new LogicalConnection(this, handle(), ++created, from);
            open.add(connection);
            return connection;
        }
    }

    void closed(LogicalConnection connection) {
        boolean last;
        synchronized (this) {
            open.remove(connection);
            last = ending && open.isEmpty();
        }
        if (last) {
            allClosed.tryEmitEmpty();
        }
    }

    /** A connection has the shared one for itself. */
    synchronized void holds(LogicalConnection connection) {
        holders.push(connection);
    }

    synchronized void holdsNoMore(LogicalConnection connection) {
        holders.removeFirstOccurrence(connection);
    }

    /** The connection whose section is the innermost one. */
    synchronized @Nullable LogicalConnection holder() {
        return holders.peek();
    }

    // the real connection --------------------------------------------------------------------------------------------

    /** Known from the beginning on, and still needed while the transaction is being ended. */
    private record Real(Connection handle, Connection connection, Connection physical, Dialect dialect) {

        static Real of(Connection handle) {
            Connection connection = (Connection) ((Wrapped<?>) handle).unwrap();
            Connection physical = connection;
            while (physical instanceof Wrapped<?> wrapped && wrapped.unwrap() instanceof Connection inner) {
                physical = inner;
            }
            return new Real(handle, connection, physical, Dialect.of(connection));
        }
    }

    private Real known() {
        Real known = real;
        if (known == null) {
            throw new SandboxClosedException("The sandbox has not begun yet", null);
        }
        return known;
    }

    /** The sandbox's own handle of it. */
    Connection handle() {
        return known().handle();
    }

    /** As its factory delivered it. */
    Connection real() {
        return known().connection();
    }

    Dialect dialect() {
        return known().dialect();
    }

    // what it runs ---------------------------------------------------------------------------------------------------

    Mono<Void> setSavepoint() {
        return Mono.from(dialect().createSavepoint(real(), SAVEPOINT));
    }

    /** The database refuses it if a statement failed whose error was not seen. */
    Mono<Void> releaseSavepoint() {
        return Mono.from(dialect().releaseSavepoint(real(), SAVEPOINT)).onErrorResume(e -> rollbackToSavepoint());
    }

    Mono<Void> rollbackToSavepoint() {
        return Mono.from(real().rollbackTransactionToSavepoint(SAVEPOINT))
                .then(Mono.defer(() -> Mono.from(dialect().releaseSavepoint(real(), SAVEPOINT))));
    }

    /** Whether the database is at work on something for a connection. */
    boolean isRunning(LogicalConnection connection) {
        RunningStatement now = running;
        return now != null && now.belongsTo(connection);
    }

    void runs(@Nullable RunningStatement statement) {
        running = statement;
    }

    /** The request to cancel what runs for a connection; {@code null} if the database cannot be asked. */
    @Nullable
    Mono<Void> cancelRunning(LogicalConnection connection, Dialect dialect) {
        if (dialect.cancelRunning(known().physical()) == null) {
            return null;
        }
        return Mono.defer(() -> {
            RunningStatement now = running;
            Publisher<Void> request = dialect.cancelRunning(known().physical());
            return now == null || request == null || !now.belongsTo(connection) ? Mono.empty() : now.cancel(request);
        });
    }

    /** What a connection gets that has waited in vain. */
    SandboxBusyException busy(LogicalConnection waiting, @Nullable Throwable cause) {
        LogicalConnection holder = holder();
        Duration limit = options.waitLimit();
        return new SandboxBusyException(
                waiting.describe() + " waited " + (cause == null ? "" : "for longer than " + limit + " ") + "for "
                        + (holder == null ? "a connection" : holder.describe())
                        + ", which does nothing meanwhile. All connections of a sandbox share one real connection: code that"
                        + " needs a second one while it has a transaction open waits for itself. Use the connection of the"
                        + " transaction, or SandboxOptions.withNesting(true), which makes a savepoint of a REQUIRES_NEW",
                cause);
    }
}
