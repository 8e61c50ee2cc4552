package dev.r2dbcscope;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * A driver over a probe that notes what its connections are given, keeps settings, and runs executions that a test has made.
 *
 * <p>Auto-commit that was switched off stays off until it is switched on.
 */
final class NotingDriver {

    private final List<String> noted = new CopyOnWriteArrayList<>();
    private final List<NotingConnection> connections = new CopyOnWriteArrayList<>();
    private final Map<String, Supplier<? extends Publisher<?>>> script = new ConcurrentHashMap<>();
    private final Map<String, Supplier<? extends Publisher<?>>> executions = new ConcurrentHashMap<>();
    private volatile boolean autoCommitOff;

    NotingDriver(ProbeConnectionFactory database) {
        database.on(
                "create",
                () -> Mono.fromSupplier(() -> {
                    NotingConnection connection = new NotingConnection(database.newConnection(), database);
                    connections.add(connection);
                    return connection;
                }));
    }

    /** Knows something beyond the SPI from now on, see {@link NotingDialect}. */
    NotingDriver on(String what, Supplier<? extends Publisher<?>> behaviour) {
        script.put(what, behaviour);
        return this;
    }

    /** What the execution of a statement emits or does. */
    NotingDriver executing(String sql, Supplier<? extends Publisher<?>> results) {
        executions.put(sql, results);
        return this;
    }

    /** Its connections come with auto-commit off. */
    NotingDriver withoutAutoCommit() {
        autoCommitOff = true;
        return this;
    }

    boolean isMoreThanTheSpi() {
        return !script.isEmpty();
    }

    @Nullable
    Mono<Void> scripted(String what) {
        Flux<?> answer = answer(what);
        return answer == null ? null : answer.then();
    }

    @Nullable
    Flux<?> answer(String what) {
        Supplier<? extends Publisher<?>> behaviour = script.get(what);
        return behaviour == null
                ? null
                : Flux.defer(() -> {
                    noted.add(what);
                    return Flux.from(behaviour.get());
                });
    }

    /** What was set, bound and asked for, in order. */
    List<String> noted() {
        return new ArrayList<>(noted);
    }

    NotingConnection first() {
        return connections.get(0);
    }

    /** A result with these rows, of which only the first column can be mapped. */
    static Result result(Publisher<Integer> rows) {
        return new OnlyRows(rows);
    }

    /** A segment that has memory of the driver, which it keeps for whoever asks for that until he lets go of it. */
    interface Retainable extends Result.Segment {

        Runnable retain();
    }

    private record OnlyRows(Publisher<Integer> rows) implements Result {

        @Override
        @SuppressWarnings("unchecked")
        public <T> Publisher<T> map(BiFunction<Row, RowMetadata, ? extends T> mapping) {
            return (Publisher<T>) rows;
        }

        @Override
        public Publisher<Long> getRowsUpdated() {
            throw new UnsupportedOperationException();
        }

        @Override
        public Result filter(Predicate<Segment> filter) {
            throw new UnsupportedOperationException();
        }

        @Override
        public <T> Publisher<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mapping) {
            throw new UnsupportedOperationException();
        }
    }

    /** One of its connections. */
    final class NotingConnection implements Connection, Wrapped<Object> {

        private final Connection probe;
        private final ProbeConnectionFactory database;
        private volatile IsolationLevel isolation = IsolationLevel.READ_COMMITTED;
        private volatile boolean off = autoCommitOff;

        NotingConnection(Connection probe, ProbeConnectionFactory database) {
            this.probe = probe;
            this.database = database;
        }

        NotingDriver driver() {
            return NotingDriver.this;
        }

        /** As a transaction with a level of its own may leave it. */
        void isolationIs(IsolationLevel level) {
            isolation = level;
        }

        @Override
        public Object unwrap() {
            return database;
        }

        @Override
        public <E> @Nullable E unwrap(Class<E> target) {
            return ((Wrapped<?>) probe).unwrap(target);
        }

        @Override
        public Publisher<Void> beginTransaction() {
            return probe.beginTransaction();
        }

        @Override
        public Publisher<Void> beginTransaction(TransactionDefinition definition) {
            return probe.beginTransaction(definition);
        }

        @Override
        public Publisher<Void> commitTransaction() {
            return probe.commitTransaction();
        }

        @Override
        public Publisher<Void> rollbackTransaction() {
            return probe.rollbackTransaction();
        }

        @Override
        public Publisher<Void> close() {
            return probe.close();
        }

        @Override
        public Batch createBatch() {
            return probe.createBatch();
        }

        @Override
        public Statement createStatement(String sql) {
            return new NotingStatement(probe.createStatement(sql), sql);
        }

        @Override
        public Publisher<Void> createSavepoint(String name) {
            noted.add("savepoint " + name);
            return probe.createSavepoint(name);
        }

        @Override
        public Publisher<Void> releaseSavepoint(String name) {
            noted.add("release " + name);
            return probe.releaseSavepoint(name);
        }

        @Override
        public Publisher<Void> rollbackTransactionToSavepoint(String name) {
            noted.add("rollback to " + name);
            return probe.rollbackTransactionToSavepoint(name);
        }

        @Override
        public boolean isAutoCommit() {
            return !off && probe.isAutoCommit();
        }

        @Override
        public Publisher<Void> setAutoCommit(boolean autoCommit) {
            return Mono.from(probe.setAutoCommit(autoCommit)).doOnSuccess(done -> off = !autoCommit);
        }

        @Override
        public ConnectionMetadata getMetadata() {
            return probe.getMetadata();
        }

        @Override
        public IsolationLevel getTransactionIsolationLevel() {
            return isolation;
        }

        @Override
        public Publisher<Void> setTransactionIsolationLevel(IsolationLevel level) {
            noted.add(level.asSql());
            return Mono.from(probe.setTransactionIsolationLevel(level)).doOnSuccess(done -> isolation = level);
        }

        @Override
        public Publisher<Void> setLockWaitTimeout(Duration timeout) {
            noted.add("lock " + timeout);
            return probe.setLockWaitTimeout(timeout);
        }

        @Override
        public Publisher<Void> setStatementTimeout(Duration timeout) {
            noted.add("statement " + timeout);
            return probe.setStatementTimeout(timeout);
        }

        @Override
        public Publisher<Boolean> validate(ValidationDepth depth) {
            return probe.validate(depth);
        }

        @Override
        public String toString() {
            return "noting " + probe;
        }
    }

    private final class NotingStatement implements Statement {

        private final Statement probe;
        private final String sql;

        NotingStatement(Statement probe, String sql) {
            this.probe = probe;
            this.sql = sql;
        }

        private Statement bound(Object parameter, Object value) {
            noted.add(sql + " " + parameter + "=" + value);
            return this;
        }

        @Override
        public Statement add() {
            noted.add(sql + " again");
            probe.add();
            return this;
        }

        @Override
        public Statement bind(int index, Object value) {
            return bound(index, value);
        }

        @Override
        public Statement bind(String name, Object value) {
            return bound(name, value);
        }

        @Override
        public Statement bindNull(int index, Class<?> type) {
            return bound(index, type.getSimpleName());
        }

        @Override
        public Statement bindNull(String name, Class<?> type) {
            return bound(name, type.getSimpleName());
        }

        @Override
        public Statement returnGeneratedValues(String... columns) {
            noted.add(sql + " returning " + String.join(",", columns));
            return this;
        }

        @Override
        public Statement fetchSize(int rows) {
            noted.add(sql + " by " + rows);
            return this;
        }

        @Override
        @SuppressWarnings("unchecked")
        public Publisher<? extends Result> execute() {
            Supplier<? extends Publisher<?>> results = executions.get(sql);
            return results == null ? probe.execute() : (Publisher<Result>) results.get();
        }
    }
}
