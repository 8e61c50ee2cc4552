package dev.r2dbcscope;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.BitSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.stream.Collectors;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/**
 * All that an application does with scopes, each piece chosen at random, and what must be durable of it: every transaction
 * writes rows with numbers of its own, and its scope tells what became of it.
 */
final class SoakWork implements ScopeListener {

    /** What the code of a piece of work throws itself. */
    static final class UsersError extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UsersError() {
            super("the user's own", null, false, false);
        }
    }

    private record Kind(String name, Function<Random, Flux<?>> work) {}

    /** A piece of work that may end well, fail, or be left by its subscriber. */
    record Piece(String name, Flux<?> work) {}

    private static final String NAME = "soak ";
    private static final String COMMITS_ON_CANCEL = "transaction with " + OnCancel.COMMIT;

    private final ConnectionScopes pool;
    private final AtomicInteger rows = new AtomicInteger();
    private final BitSet committed = new BitSet();
    private final BitSet undecided = new BitSet();

    /** What each row is part of: only {@link OnCancel#COMMIT} may commit between two statements, before the row is written. */
    private final Map<String, BitSet> origins = new ConcurrentHashMap<>();

    private final List<Kind> kinds = List.of(
            new Kind("nested queries", this::nestedQueries),
            new Kind("pages", this::pages),
            new Kind("unread results", this::unreadResults),
            new Kind("slow statement", this::slowStatement),
            new Kind("transaction", this::transaction),
            new Kind("transaction", this::transaction),
            new Kind("savepoints", this::savepoints),
            new Kind("second connection", this::secondConnection),
            new Kind("operators", this::operators),
            new Kind("retried", this::retried),
            new Kind("copy", this::copy),
            new Kind("upsert", this::upsert),
            new Kind("lock", this::lock),
            new Kind("settings", this::settings),
            new Kind("death", this::death));

    SoakWork(ConnectionScopes pool) {
        this.pool = pool;
    }

    static void createTables() {
        Postgres.execute("drop table if exists soak, soak_other; create table soak (id int primary key);"
                + " create table soak_other (id int primary key, n int);"
                + " insert into soak_other select i, 0 from generate_series(1, 20) i");
    }

    Piece piece(Random random) {
        Kind kind = kinds.get(random.nextInt(kinds.size()));
        Flux<?> work = kind.work().apply(random);
        return switch (random.nextInt(6)) {
            case 0 -> {
                Duration time = Duration.ofNanos(random.nextInt(10_000_000));
                yield new Piece(kind.name() + ", left after " + time, left(work, time));
            }
            case 1 -> {
                int elements = 1 + random.nextInt(3);
                yield new Piece(kind.name() + ", take " + elements, work.take(elements));
            }
            case 2 -> {
                int prefetch = 1 + random.nextInt(8);
                yield new Piece(kind.name() + ", limitRate " + prefetch, work.limitRate(prefetch));
            }
            case 3 -> new Piece(kind.name() + ", publishOn", work.publishOn(Schedulers.parallel()));
            default -> new Piece(kind.name(), work);
        };
    }

    /**
     * The work, whose subscriber leaves after that time. Reactor's {@code takeUntilOther} loses the completion when the other
     * one ends while the first is being subscribed to (3.8.6: one in some ten thousand, without any scope).
     */
    private static Flux<?> left(Flux<?> work, Duration time) {
        return Mono.<Void>create(sink -> {
                    Disposable subscription = work.subscribe(null, sink::error, sink::success);
                    Disposable leaving = Schedulers.parallel()
                            .schedule(
                                    () -> {
                                        subscription.dispose();
                                        sink.success();
                                    },
                                    time.toNanos(),
                                    TimeUnit.NANOSECONDS);
                    sink.onDispose(Disposables.composite(subscription, leaving));
                })
                .flux();
    }

    /** Called for the scope that ends a transaction, whose name lists the rows that it writes. */
    @Override
    public void onEvent(ScopeEvent event) {
        if (event instanceof ScopeEvent.Released released
                && released.scope().name().startsWith(NAME)) {
            int row = Integer.parseInt(released.scope().name().substring(NAME.length()));
            if (released.transaction() == TransactionOutcome.COMMITTED) {
                mark(committed, row);
            } else if (released.transaction() != TransactionOutcome.ROLLED_BACK) {
                mark(undecided, row);
            }
        }
    }

    private static void mark(BitSet set, int row) {
        synchronized (set) {
            set.set(row);
        }
    }

    private static boolean isIn(BitSet set, int row) {
        synchronized (set) {
            return set.get(row);
        }
    }

    boolean mustBeThere(int row) {
        return isIn(committed, row) && !commitsOnCancel(row);
    }

    /** Whether its scope may commit when its subscriber leaves, before it has written the row. */
    private boolean commitsOnCancel(int row) {
        return isIn(origins.getOrDefault(COMMITS_ON_CANCEL, new BitSet()), row);
    }

    /** The kind of the work that writes the row. */
    String origin(int row) {
        return origins.entrySet().stream()
                .filter(kind -> isIn(kind.getValue(), row))
                .map(Map.Entry::getKey)
                .collect(Collectors.joining());
    }

    boolean mayBeThere(int row) {
        return isIn(committed, row) || isIn(undecided, row);
    }

    int rows() {
        return rows.get();
    }

    private int newRow(String origin) {
        int row = rows.getAndIncrement();
        mark(origins.computeIfAbsent(origin, kind -> new BitSet()), row);
        return row;
    }

    private ConnectionScopes named(int row, TransactionOptions options) {
        return pool.with(ScopeOptions.defaults()
                        .withName(NAME + row)
                        .withPipelinedBegin(row % 2 == 0 ? Duration.ZERO : Duration.ofDays(1))
                        .withAcquireTimeout(Duration.ofMinutes(5))
                        .withListener(this))
                .transactions(options);
    }

    private static Flux<Long> insert(Connection connection, int row) {
        return Rows.update(
                connection.createStatement("insert into soak values ($1)").bind(0, row));
    }

    private Flux<?> nestedQueries(Random random) {
        int outer = 1 + random.nextInt(400);
        return pool.withConnectionMany(c -> Rows.ints(c, "select generate_series(1, " + outer + ")")
                .flatMap(n -> Rows.ints(c, "select " + n), 1 + random.nextInt(16)));
    }

    private Flux<?> pages(Random random) {
        int size = 1 + random.nextInt(50);
        return pool.inTransactionMany(c -> Rows.ints(
                        c.createStatement("select generate_series(1, 200)").fetchSize(size))
                .concatMap(n -> n % 20 == 0 ? Rows.ints(c, "select " + n) : Mono.just(n)));
    }

    private Flux<?> unreadResults(Random random) {
        return pool.withConnectionMany(c -> Flux.from(
                        c.createStatement("select generate_series(1, 600)").execute())
                .then()
                .thenMany(Rows.ints(c, "select 1")));
    }

    private Flux<?> slowStatement(Random random) {
        return left(
                pool.withConnectionMany(c -> Rows.ints(c, "select 1 from pg_sleep(20)")),
                Duration.ofMillis(random.nextInt(40)));
    }

    private Flux<?> transaction(Random random) {
        OnCancel onCancel = OnCancel.values()[random.nextInt(OnCancel.values().length)];
        int row = newRow("transaction with " + onCancel);
        boolean fails = random.nextInt(4) == 0;
        TransactionOptions options = TransactionOptions.defaults().withOnCancel(onCancel);
        return named(row, random.nextBoolean() ? options : options.withEmitAfterCommit(100))
                .inTransactionMany(c -> Rows.ints(c, "select 1")
                        .concatWith(insert(c, row).map(Long::intValue))
                        .concatWith(fails ? Flux.error(new UsersError()) : Rows.ints(c, "select 2")));
    }

    private Flux<?> savepoints(Random random) {
        int row = newRow("savepoints");
        ConnectionScopes part = pool.transactions(Propagation.NESTED);
        return named(row, TransactionOptions.defaults())
                .inTransactionMany(c -> Flux.range(0, 3)
                        .flatMap(i -> part.inTransaction(savepoint -> Rows.update(c, "insert into soak values (-1)")
                                        .then(Mono.<Integer>error(new UsersError())))
                                .onErrorReturn(UsersError.class, i))
                        .concatWith(insert(c, row).map(Long::intValue)));
    }

    private Flux<?> secondConnection(Random random) {
        int row = newRow("transaction with a second connection");
        int other = newRow("the second connection");
        return named(row, TransactionOptions.defaults())
                .inTransactionMany(c -> insert(c, row)
                        .concatWith(
                                named(other, TransactionOptions.defaults().withPropagation(Propagation.REQUIRES_NEW))
                                        .inTransactionMany(own -> insert(own, other)))
                        .concatWith(random.nextBoolean() ? Flux.error(new UsersError()) : Flux.empty()));
    }

    private Flux<?> operators(Random random) {
        int row = newRow("operators");
        Mono<Integer> one = Mono.usingWhen(
                pool.connectionFactory().create(), c -> Rows.ints(c, "select 1").next(), Connection::close);
        return Mono.zip(one, one, one)
                .flatMapMany(all ->
                        Flux.usingWhen(pool.connectionFactory().create(), c -> insert(c, row), Connection::close))
                .as(named(row, TransactionOptions.defaults())::transactional);
    }

    private Flux<?> retried(Random random) {
        int row = newRow("retried");
        int account = 1 + random.nextInt(3);
        return named(
                        row,
                        TransactionOptions.defaults()
                                .withIsolation(IsolationLevel.SERIALIZABLE)
                                .withRetry(RetryPolicy.serialization(3)))
                .inTransaction(c -> Rows.update(c, "update soak_other set n = n + 1 where id = " + account)
                        .then(insert(c, row).next()))
                .flux();
    }

    private Flux<?> copy(Random random) {
        int row = newRow("copy");
        CopyIn<Integer> copy = CopyIn.<Integer>into("soak").column("id", CopyType.INTEGER, id -> id);
        return named(row, TransactionOptions.defaults())
                .inTransaction(c -> copy.write(
                        c,
                        Flux.just(row)
                                .concatWith(random.nextInt(4) == 0 ? Flux.error(new UsersError()) : Flux.empty())))
                .flux();
    }

    private Flux<?> upsert(Random random) {
        int from = 100 + random.nextInt(1000);
        UnnestWriter<Integer> writer = UnnestWriter.<Integer>into("soak_other")
                .column("id", "int", id -> id)
                .withOnConflict(OnConflict.doNothing("id"));
        return writer.write(pool, Flux.range(from, 200)).flux();
    }

    private Flux<?> lock(Random random) {
        return AdvisoryLock.of(random.nextInt(4))
                .during(pool, c -> Rows.ints(c, "select 1").next())
                .flux();
    }

    private Flux<?> settings(Random random) {
        return pool.with(ScopeOptions.defaults()
                        .withAcquireTimeout(Duration.ofMinutes(5))
                        .withStatementTimeout(Duration.ofSeconds(30))
                        .withSettings(SessionSettings.none().with("app.tenant", "t" + random.nextInt(100))))
                .withConnectionMany(c -> Rows.ints(c, "select length(current_setting('app.tenant'))"));
    }

    private Flux<?> death(Random random) {
        return random.nextInt(10) > 0
                ? nestedQueries(random)
                : pool.inTransactionMany(c -> Rows.ints(c, "select pg_terminate_backend(pg_backend_pid())::int"));
    }
}
