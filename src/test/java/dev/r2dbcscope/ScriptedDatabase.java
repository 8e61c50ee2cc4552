package dev.r2dbcscope;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcType;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import io.r2dbc.spi.test.MockColumnMetadata;
import io.r2dbc.spi.test.MockRow;
import io.r2dbc.spi.test.MockRowMetadata;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.SynchronousSink;
import reactor.core.scheduler.Scheduler;

/**
 * A connection factory without a database, for staging faults and races.
 *
 * <p>Steps are named {@code create}, {@code begin}, {@code commit}, {@code rollback}, {@code close}, {@code
 * setAutoCommit}, {@code validate}, and the SQL text of a statement. {@link #on} replaces what a step does; by default
 * every step succeeds at once, and a statement returns one row with the number 1. A step {@code
 * "before " + sql} holds the statement's result back until it completes. Every step is logged when it is subscribed to, as
 * {@code "begin#1"} with the number of its connection.
 */
final class ScriptedDatabase implements ConnectionFactory {

    private final List<String> log = new CopyOnWriteArrayList<>();
    private final List<String> violations = new CopyOnWriteArrayList<>();
    private final Map<String, Supplier<? extends Publisher<?>>> script = new ConcurrentHashMap<>();
    private final List<ScriptedConnection> connections = new CopyOnWriteArrayList<>();
    private final AtomicInteger numbers = new AtomicInteger();
    private final AtomicInteger closed = new AtomicInteger();
    private volatile boolean forgetful;
    private volatile boolean knowsSettings;
    private volatile boolean knowsCursors;
    private volatile boolean knowsCancel;
    private volatile @Nullable Scheduler scheduler;
    private volatile Runnable whenAskedForItsScheduler = () -> {};

    /** Replaces what a step does. A statement's publisher emits its rows, each a number, or other segments. */
    ScriptedDatabase on(String step, Supplier<? extends Publisher<?>> behaviour) {
        script.put(step, behaviour);
        return this;
    }

    /** Keeps no log and no connections from now on, only their numbers. */
    ScriptedDatabase forgetful() {
        forgetful = true;
        return this;
    }

    /** Knows session settings from now on, as steps {@code "set key"}, {@code "set local key"} and {@code "restore key"}. */
    ScriptedDatabase knowingSettings() {
        knowsSettings = true;
        return this;
    }

    /** Knows cursors from now on, as statements {@code "open"}, {@code "fetch"} and {@code "close cursor"}. */
    ScriptedDatabase knowingCursors() {
        knowsCursors = true;
        return this;
    }

    /** Can be asked to cancel what runs from now on, as step {@code "cancel"}. */
    ScriptedDatabase knowingCancel() {
        knowsCancel = true;
        return this;
    }

    /** The scheduler on which its connections want to be called. */
    ScriptedDatabase scheduler(Scheduler wanted) {
        scheduler = wanted;
        return this;
    }

    /** What happens when a connection is asked for the scheduler on which it wants to be called. */
    ScriptedDatabase whenAskedForItsScheduler(Runnable happening) {
        whenAskedForItsScheduler = happening;
        return this;
    }

    private void log(String step) {
        if (!forgetful) {
            log.add(step);
        }
    }

    /** What happened, in order. */
    List<String> log() {
        return new ArrayList<>(log);
    }

    /** What must never happen: a use after close, a second close. */
    List<String> violations() {
        return new ArrayList<>(violations);
    }

    List<ScriptedConnection> connections() {
        return connections;
    }

    /** How many connections were opened and not closed. */
    long open() {
        return numbers.get() - closed.get();
    }

    /** A connection to be emitted by a scripted {@code create}. */
    ScriptedConnection newConnection() {
        ScriptedConnection connection = new ScriptedConnection(numbers.incrementAndGet());
        if (!forgetful) {
            connections.add(connection);
        }
        return connection;
    }

    @Override
    @SuppressWarnings("unchecked")
    public Publisher<? extends Connection> create() {
        Supplier<? extends Publisher<?>> behaviour = script.get("create");
        if (behaviour != null) {
            log("create");
            return (Publisher<? extends Connection>) behaviour.get();
        }
        return Mono.fromSupplier(() -> {
            log("create");
            return newConnection();
        });
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return () -> "scripted";
    }

    private @Nullable Publisher<?> scripted(String step) {
        Supplier<? extends Publisher<?>> behaviour = script.get(step);
        return behaviour == null ? null : behaviour.get();
    }

    /** One connection. */
    final class ScriptedConnection implements Connection, Wrapped<Object> {

        final int number;
        final AtomicInteger closes = new AtomicInteger();
        volatile boolean autoCommit = true;

        ScriptedConnection(int number) {
            this.number = number;
        }

        @Override
        public Object unwrap() {
            return ScriptedDatabase.this;
        }

        @Override
        public <E> @Nullable E unwrap(Class<E> target) {
            if (target == Scheduler.class) {
                whenAskedForItsScheduler.run();
            }
            return target.isInstance(scheduler) ? target.cast(scheduler) : null;
        }

        private void use(String step) {
            log(step + "#" + number);
            if (closes.get() > 0) {
                violations.add(step + "#" + number + " after close");
            }
        }

        boolean knowsSettings() {
            return knowsSettings;
        }

        boolean knowsCursors() {
            return knowsCursors;
        }

        boolean knowsCancel() {
            return knowsCancel;
        }

        Mono<Void> step(String step) {
            return step(step, () -> {});
        }

        private Mono<Void> step(String step, Runnable effect) {
            return Mono.defer(() -> {
                use(step);
                Publisher<?> scripted = scripted(step);
                Mono<Void> done =
                        scripted == null ? Mono.empty() : Flux.from(scripted).then();
                return done.doOnSuccess(ignored -> effect.run());
            });
        }

        @Override
        public Publisher<Void> beginTransaction() {
            return step("begin", () -> autoCommit = false);
        }

        @Override
        public Publisher<Void> beginTransaction(TransactionDefinition definition) {
            return beginTransaction();
        }

        @Override
        public Publisher<Void> commitTransaction() {
            return step("commit", () -> autoCommit = true);
        }

        @Override
        public Publisher<Void> rollbackTransaction() {
            return step("rollback", () -> autoCommit = true);
        }

        /** The behaviour of {@code close} is called for at once, so that it can throw or return null. */
        @Override
        @SuppressWarnings({"unchecked", "NullAway"})
        public Publisher<Void> close() {
            log("close#" + number);
            if (closes.incrementAndGet() > 1) {
                violations.add("close#" + number + " called " + closes.get() + " times");
            } else {
                closed.incrementAndGet();
            }
            Supplier<? extends Publisher<?>> behaviour = script.get("close");
            return behaviour == null ? Mono.empty() : (Publisher<Void>) behaviour.get();
        }

        @Override
        public Batch createBatch() {
            List<String> statements = new ArrayList<>();
            return new Batch() {
                @Override
                public Batch add(String sql) {
                    statements.add(sql);
                    return this;
                }

                @Override
                public Publisher<? extends Result> execute() {
                    return Flux.fromIterable(statements).concatMap(ScriptedConnection.this::executed);
                }
            };
        }

        private Mono<Result> executed(String sql) {
            Mono<Result> result = Mono.fromSupplier(() -> {
                use(sql);
                Publisher<?> scripted = scripted(sql);
                return new ScriptedResult(scripted == null ? Flux.just(1) : Flux.from(scripted));
            });
            return Mono.defer(() -> {
                Publisher<?> before = scripted("before " + sql);
                return before == null ? result : Flux.from(before).then(result);
            });
        }

        @Override
        public Statement createStatement(String sql) {
            return new Statement() {
                @Override
                public Statement add() {
                    return this;
                }

                @Override
                public Statement bind(int index, Object value) {
                    return this;
                }

                @Override
                public Statement bind(String name, Object value) {
                    return this;
                }

                @Override
                public Statement bindNull(int index, Class<?> type) {
                    return this;
                }

                @Override
                public Statement bindNull(String name, Class<?> type) {
                    return this;
                }

                @Override
                public Publisher<? extends Result> execute() {
                    return executed(sql);
                }
            };
        }

        @Override
        public Publisher<Void> createSavepoint(String name) {
            return step("savepoint", () -> {});
        }

        @Override
        public Publisher<Void> releaseSavepoint(String name) {
            return step("release savepoint", () -> {});
        }

        @Override
        public Publisher<Void> rollbackTransactionToSavepoint(String name) {
            return step("rollback to savepoint", () -> {});
        }

        @Override
        public boolean isAutoCommit() {
            return autoCommit;
        }

        @Override
        public Publisher<Void> setAutoCommit(boolean value) {
            return step("setAutoCommit", () -> autoCommit = value);
        }

        @Override
        public ConnectionMetadata getMetadata() {
            throw new UnsupportedOperationException();
        }

        @Override
        public IsolationLevel getTransactionIsolationLevel() {
            return IsolationLevel.READ_COMMITTED;
        }

        @Override
        public Publisher<Void> setTransactionIsolationLevel(IsolationLevel level) {
            return step("isolation", () -> {});
        }

        @Override
        public Publisher<Void> setLockWaitTimeout(Duration timeout) {
            return step("lockWaitTimeout", () -> {});
        }

        @Override
        public Publisher<Void> setStatementTimeout(Duration timeout) {
            return step("statementTimeout", () -> {});
        }

        @Override
        public Publisher<Boolean> validate(ValidationDepth depth) {
            return depth == ValidationDepth.LOCAL && !script.containsKey("validate")
                    ? Mono.just(closes.get() == 0)
                    : step("validate", () -> {}).thenReturn(true);
        }

        @Override
        public String toString() {
            return "ScriptedConnection#" + number;
        }
    }

    /** Rows that are numbers, and other segments; a message is signalled as an error where segments are not asked for. */
    private static final class ScriptedResult implements Result {

        private static final RowMetadata METADATA = MockRowMetadata.builder()
                .columnMetadata(MockColumnMetadata.builder()
                        .name("value")
                        .type(R2dbcType.INTEGER)
                        .build())
                .build();

        private final Flux<?> rows;

        ScriptedResult(Flux<?> rows) {
            this.rows = rows;
        }

        @Override
        public Publisher<Long> getRowsUpdated() {
            return rows.handle(ScriptedResult::failOnMessage).count();
        }

        @Override
        public <T> Publisher<T> map(BiFunction<Row, RowMetadata, ? extends T> mapping) {
            return rows.handle(ScriptedResult::failOnMessage).map(value -> mapping.apply(row(value), METADATA));
        }

        @Override
        public Result filter(Predicate<Segment> filter) {
            return new ScriptedResult(rows.filter(value -> filter.test(segment(value))));
        }

        @Override
        public <T> Publisher<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mapping) {
            return rows.concatMap(value -> mapping.apply(segment(value)));
        }

        private static void failOnMessage(Object value, SynchronousSink<Object> sink) {
            if (value instanceof Message message) {
                sink.error(message.exception());
            } else {
                sink.next(value);
            }
        }

        private static Segment segment(Object value) {
            return value instanceof Segment segment ? segment : (RowSegment) () -> row(value);
        }

        private static Row row(Object value) {
            return MockRow.builder()
                    .metadata(METADATA)
                    .identified(0, Integer.class, value)
                    .identified(0, Object.class, value)
                    .build();
        }
    }
}
