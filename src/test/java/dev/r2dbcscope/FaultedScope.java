package dev.r2dbcscope;

import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * One scope of a case of {@link RandomFaultsIT}: a seed decides what it does, it notes which rows it has written and how far it came, and
 * judges afterwards whether it ended as it must have.
 */
final class FaultedScope {

    /** The ways in which a scope is written. */
    private enum Shape {
        TRANSACTION_OF_ONE,
        TRANSACTION_OF_MANY,
        TRANSACTIONAL_OPERATOR,
        RETRIED_TRANSACTION,
        PLAIN_OF_MANY,
        CONNECTED_OPERATOR;

        boolean isTransactional() {
            return this != PLAIN_OF_MANY && this != CONNECTED_OPERATOR;
        }
    }

    enum End {
        COMPLETED,
        FAILED,
        OUTCOME_UNKNOWN,
        CANCELLED
    }

    /** Rows that one statement writes, in an attempt of the scope. */
    private static final class Write {
        final int first;
        final int count;
        final int attempt;
        volatile boolean acknowledged;
        volatile boolean undone;

        Write(int first, int count, int attempt) {
            this.first = first;
            this.count = count;
            this.attempt = attempt;
        }
    }

    /** A step of the body, which tells its attempt. */
    private interface Step {
        Flux<Integer> run(Connection connection, int attempt);
    }

    private static final class UsersOwn extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UsersOwn() {
            super("the user's own");
        }
    }

    private static final CopyIn<Integer> COPY =
            CopyIn.<Integer>into("fault_rows").column("id", CopyType.INTEGER, row -> row);

    private final String name;
    private final ConnectionScopes scopes;
    private final FaultScript script;
    private final AtomicInteger ids;
    private final Shape shape;
    private final boolean isImpatient;
    private final boolean failsAtTheEnd;
    private final @Nullable Duration leavesAfter;
    private final List<Step> steps = new ArrayList<>();
    private final List<Write> writes = new CopyOnWriteArrayList<>();
    private final AtomicInteger attempts = new AtomicInteger();
    private final Set<Integer> doneAttempts = java.util.concurrent.ConcurrentHashMap.newKeySet();
    private final List<ScopeEvent.Released> released = new CopyOnWriteArrayList<>();
    private final Probe<Integer> probe = Probe.unbounded();
    private volatile boolean left;

    FaultedScope(String name, Random random, ConnectionScopes scopes, FaultScript script, AtomicInteger ids) {
        this.name = name;
        this.script = script;
        this.ids = ids;
        this.shape = Shape.values()[random.nextInt(Shape.values().length)];
        this.failsAtTheEnd = random.nextInt(6) == 0;
        this.leavesAfter = random.nextInt(6) == 0 ? Duration.ofMillis(random.nextInt(60)) : null;
        this.isImpatient = script.manner() == FaultScript.Manner.SILENT && random.nextBoolean();
        this.scopes = scopes.with(options(script, isImpatient)
                .withPipelinedBegin(random.nextBoolean() ? Duration.ZERO : Duration.ofDays(1))
                .withName(name)
                .withListener(this::saw));
        int count = 1 + random.nextInt(4);
        for (int i = 0; i < count; i++) {
            steps.add(step(random));
        }
        if (leavesAfter != null && random.nextBoolean()) {
            steps.add((c, attempt) ->
                    Rows.ints(c, "select 1 from pg_sleep(60)")); // until the database is asked to cancel it
        }
    }

    /** Nobody waits for a time limit if whatever goes wrong says so; otherwise short limits are all that helps. */
    private static ScopeOptions options(FaultScript script, boolean impatient) {
        ScopeOptions defaults = ScopeOptions.defaults();
        if (script.manner() != FaultScript.Manner.SILENT) {
            return defaults.withAcquireTimeout(RandomFaultsIT.NEVER).withReleaseTimeout(RandomFaultsIT.NEVER);
        }
        ScopeOptions options =
                defaults.withAcquireTimeout(Duration.ofMillis(700)).withReleaseTimeout(Duration.ofMillis(300));
        return impatient ? options : options.withMaxHold(Duration.ofMillis(500));
    }

    private void saw(ScopeEvent event) {
        script.saw(event);
        if (event instanceof ScopeEvent.Released end) {
            released.add(end);
        }
    }

    // what it does ---------------------------------------------------------------------------------------------------

    private Step step(Random random) {
        int size = 1 + random.nextInt(300);
        boolean fails = random.nextInt(3) == 0;
        return switch (random.nextInt(shape.isTransactional() ? 12 : 9)) {
            case 0, 1, 2 -> (c, attempt) -> insert(c, attempt, fails);
            case 3 ->
                (c, attempt) -> Rows.ints(c, "select generate_series(1, " + size * 10 + ")")
                        .limitRate(16);
            case 4 ->
                (c, attempt) -> Rows.ints(c.createStatement("select generate_series(1, " + size + ")")
                        .fetchSize(20));
            case 5 ->
                (c, attempt) -> Rows.ints(c, "select generate_series(1, 40)")
                        .flatMap(
                                i -> Rows.ints(
                                        c.createStatement("select $1::int").bind(0, i)),
                                8);
            case 6 -> (c, attempt) -> copy(c, attempt, size);
            case 7 ->
                (c, attempt) -> Mono.delay(Duration.ofMillis(size % 6))
                        .map(Long::intValue)
                        .flux();
            case 8 -> (c, attempt) -> Rows.ints(c, "select 1 from pg_sleep(0.05)");
            default -> (c, attempt) -> savepoint(attempt, fails);
        };
    }

    private Flux<Integer> insert(Connection connection, int attempt, boolean literally) {
        return Flux.defer(() -> {
            Write write = write(1, attempt);
            Flux<Long> inserted = literally
                    ? Rows.update(connection, "insert into fault_rows values (" + write.first + ")")
                    : Rows.update(connection
                            .createStatement("insert into fault_rows values ($1)")
                            .bind(0, write.first));
            return inserted.doOnComplete(() -> write.acknowledged = true).map(Long::intValue);
        });
    }

    private Flux<Integer> copy(Connection connection, int attempt, int count) {
        return Flux.defer(() -> {
            Write write = write(count, attempt);
            return COPY.write(connection, Flux.range(write.first, count))
                    .doOnSuccess(written -> write.acknowledged = true)
                    .map(Long::intValue)
                    .flux();
        });
    }

    /** What its body does is undone if it fails, which the transaction around it survives. */
    private Flux<Integer> savepoint(int attempt, boolean fails) {
        return Flux.defer(() -> {
            List<Write> inside = new CopyOnWriteArrayList<>();
            return scopes.transactions(Propagation.NESTED)
                    .inTransactionMany(c -> {
                        Flux<Integer> written =
                                insert(c, attempt, fails).doOnSubscribe(s -> inside.add(writes.get(writes.size() - 1)));
                        return fails ? written.concatWith(Mono.error(new UsersOwn())) : written;
                    })
                    .onErrorResume(UsersOwn.class, e -> {
                        inside.forEach(write -> write.undone = true);
                        return Mono.empty();
                    });
        });
    }

    private Write write(int count, int attempt) {
        Write write = new Write(ids.getAndAdd(count), count, attempt);
        writes.add(write);
        return write;
    }

    private Flux<Integer> body(Connection connection) {
        int attempt = attempts.incrementAndGet();
        Flux<Integer> all = Flux.fromIterable(steps).concatMap(step -> step.run(connection, attempt), 1);
        if (isImpatient) {
            all = all.takeUntilOther(Mono.delay(Duration.ofMillis(500))
                    .then(Mono.error(() -> new TimeoutException("the user's patience"))));
        }
        return failsAtTheEnd
                ? all.concatWith(Mono.error(new UsersOwn()))
                : all.doOnComplete(() -> doneAttempts.add(attempt));
    }

    private Flux<Integer> pipeline() {
        return switch (shape) {
            case TRANSACTION_OF_ONE ->
                scopes.inTransaction(c -> body(c).count()).map(Long::intValue).flux();
            case TRANSACTION_OF_MANY -> scopes.inTransactionMany(this::body);
            case TRANSACTIONAL_OPERATOR -> ambient().as(scopes::transactional);
            case RETRIED_TRANSACTION ->
                scopes.transactions(TransactionOptions.defaults()
                                .withRetry(RetryPolicy.serialization(2)
                                        .withBackoff(Duration.ofMillis(1), Duration.ofMillis(5))
                                        .alsoOn(error -> true)))
                        .inTransaction(c -> body(c).count())
                        .map(Long::intValue)
                        .flux();
            case PLAIN_OF_MANY -> scopes.withConnectionMany(this::body);
            case CONNECTED_OPERATOR -> ambient().as(scopes::connected);
        };
    }

    private Flux<Integer> ambient() {
        return Flux.usingWhen(scopes.connectionFactory().create(), this::body, Connection::close);
    }

    void start() {
        pipeline().subscribe(probe);
        if (leavesAfter != null) {
            Mono.delay(leavesAfter).subscribe(now -> {
                left = true;
                probe.cancel();
            });
        }
    }

    boolean isOver() {
        return probe.isTerminated() || left;
    }

    // what became of it ----------------------------------------------------------------------------------------------

    End end() {
        Throwable error = probe.error();
        if (error != null) {
            return error instanceof CommitOutcomeUnknownException ? End.OUTCOME_UNKNOWN : End.FAILED;
        }
        return probe.isTerminated() ? End.COMPLETED : End.CANCELLED;
    }

    @Nullable
    Throwable error() {
        return probe.error();
    }

    List<Throwable> dropped() {
        return probe.drops().errors();
    }

    /** What is wrong with how it ended, given which rows there are. */
    List<String> offences(Set<Integer> durable) {
        List<String> offences = new ArrayList<>();
        try {
            probe.assertSound();
        } catch (AssertionError e) {
            offences.add(e.getMessage());
        }
        Throwable error = probe.error();
        if (error != null) {
            judgeError(error, offences);
        } else if (end() == End.COMPLETED && failsAtTheEnd) {
            offences.add("completed although the body failed");
        }
        if (end() == End.COMPLETED && !failsAtTheEnd && doneAttempts.isEmpty()) {
            offences.add("completed although the body had not ended");
        }
        if (shape.isTransactional()) {
            judgeTransaction(durable, offences);
        } else {
            judgeStatements(durable, offences);
        }
        for (Throwable dropped : dropped()) {
            if (!isOfTheFault(dropped)) {
                offences.add("dropped " + dropped);
            }
        }
        return offences.stream().map(offence -> this + ": " + offence).toList();
    }

    /** Which errors are right where. */
    private void judgeError(Throwable error, List<String> offences) {
        boolean done = doneAttempts.contains(attempts.get());
        boolean mayLackAConnection = attempts.get() == 0 || shape == Shape.RETRIED_TRANSACTION;
        if (mayLackAConnection
                && (error instanceof ScopeAcquisitionException || isOfTheDatabase(error) || isOfThePool(error))) {
            // it came no further
        } else if (attempts.get() == 0) {
            offences.add("no connection, but " + error);
        } else if (!done) {
            if (error instanceof UsersOwn ? !failsAtTheEnd : !isOfTheFault(error)) {
                offences.add("the body did not end, but " + error);
            }
            if (error instanceof CommitOutcomeUnknownException) {
                offences.add("no COMMIT was due, but " + error);
            }
        } else if (!shape.isTransactional()) {
            offences.add("its work was done, but " + error);
        } else if (!(error instanceof CommitOutcomeUnknownException
                || error instanceof ScopeReleaseException
                || error instanceof ScopeTimeoutException
                || error instanceof R2dbcRollbackException
                || error instanceof ScopeRolledBackException
                || isOfTheDatabase(error))) {
            offences.add("COMMIT was due, but " + error);
        }
        if (script.manner() == FaultScript.Manner.HARMLESS && !(error instanceof UsersOwn)) {
            offences.add("nothing was wrong, but " + error);
        }
        if (script.manner() == FaultScript.Manner.LOUD && isOfATimeLimit(error)) {
            offences.add("it was told, but waited: " + error);
        }
    }

    /** Rows of a transaction: all of them or none, and which of both it was told. */
    private void judgeTransaction(Set<Integer> durable, List<String> offences) {
        int last = attempts.get();
        Boolean kept = null;
        for (Write write : writes) {
            long there = countIn(durable, write);
            String rows =
                    "rows from " + write.first + " of attempt " + write.attempt + ", " + there + " of " + write.count;
            if (there != 0 && there != write.count) {
                offences.add(rows + ", are durable in part");
            } else if (write.attempt != last || write.undone || !mayBeKept()) {
                if (there > 0) {
                    offences.add(rows + ", are durable, but were undone");
                }
            } else if (mustBeKept()) {
                if (there == 0) {
                    offences.add(rows + ", are lost, but were committed");
                }
            } else if (kept != null && kept != there > 0) {
                offences.add(rows + ", are not as others of the same transaction");
            } else {
                kept = there > 0;
            }
        }
        judgeOutcome(durable, offences);
    }

    private boolean mustBeKept() {
        return end() == End.COMPLETED;
    }

    private boolean mayBeKept() {
        return end() == End.COMPLETED
                || end() == End.OUTCOME_UNKNOWN
                || end() == End.CANCELLED && doneAttempts.contains(attempts.get());
    }

    /** What the listeners were told must be true as well. */
    private void judgeOutcome(Set<Integer> durable, List<String> offences) {
        List<ScopeEvent.Released> own = released.stream()
                .filter(event -> event.scope().name().equals(name))
                .filter(event -> event.transaction() != TransactionOutcome.NONE)
                .toList();
        if (own.isEmpty()) {
            return;
        }
        TransactionOutcome told = own.get(own.size() - 1).transaction();
        boolean wrote = writes.stream().anyMatch(write -> write.attempt == attempts.get() && !write.undone);
        boolean there = writes.stream().anyMatch(write -> countIn(durable, write) > 0);
        if (told == TransactionOutcome.COMMITTED && wrote && !there
                || told == TransactionOutcome.ROLLED_BACK && there) {
            offences.add("listeners were told " + told + ", but its rows are " + (there ? "durable" : "lost"));
        }
        if (told == TransactionOutcome.UNKNOWN && end() != End.OUTCOME_UNKNOWN && end() != End.CANCELLED) {
            offences.add("listeners were told " + told + ", the subscriber " + end());
        }
    }

    /** Rows of statements, each of which is a transaction. */
    private void judgeStatements(Set<Integer> durable, List<String> offences) {
        for (Write write : writes) {
            long there = countIn(durable, write);
            if (there != 0 && there != write.count || write.acknowledged && there == 0) {
                offences.add(there + " of " + write.count + " rows from " + write.first + " are durable, acknowledged: "
                        + write.acknowledged);
            }
        }
    }

    private static long countIn(Set<Integer> durable, Write write) {
        return java.util.stream.IntStream.range(write.first, write.first + write.count)
                .filter(durable::contains)
                .count();
    }

    private boolean isOfTheFault(Throwable error) {
        return error instanceof UsersOwn
                || error instanceof TimeoutException
                || error instanceof ScopeTimeoutException
                || error instanceof ScopeAcquisitionException
                || error instanceof ScopeReleaseException
                || error instanceof ScopeClosedException
                || error instanceof CommitOutcomeUnknownException
                || isOfTheDatabase(error);
    }

    private static boolean isOfATimeLimit(Throwable error) {
        return error instanceof TimeoutException
                || error instanceof ScopeTimeoutException
                || error instanceof ScopeAcquisitionException
                || String.valueOf(error.getMessage()).contains("expired");
    }

    /** It has found dead connections twice, and tries no more often. */
    private static boolean isOfThePool(Throwable error) {
        return error.getClass() == R2dbcNonTransientResourceException.class
                && "Connection validation failed".equals(error.getMessage());
    }

    /** The connection was lost, the database does not serve, or somebody else cancelled the statement. */
    static boolean isOfTheDatabase(Throwable error) {
        if (!(error instanceof R2dbcException known) || error instanceof ScopeException) {
            return false;
        }
        String state = known.getSqlState();
        return state == null
                ? error.getClass().getName().startsWith("io.r2dbc.postgresql")
                : state.startsWith("08") || state.startsWith("57P0") || state.equals("57014");
    }

    @Override
    public String toString() {
        return name + "[" + shape + ", " + steps.size() + " steps" + (failsAtTheEnd ? ", fails" : "")
                + (leavesAfter == null ? "" : ", left after " + leavesAfter.toMillis() + " ms")
                + (isImpatient ? ", impatient" : "") + "] " + end() + " after " + attempts + " attempts"
                + (probe.error() == null ? "" : ": " + probe.error());
    }
}
