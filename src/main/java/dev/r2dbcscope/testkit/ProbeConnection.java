package dev.r2dbcscope.testkit;

import dev.r2dbcscope.testkit.ProbeCall.Kind;
import dev.r2dbcscope.testkit.ProbeCall.State;
import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionMetadata;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcBadGrammarException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Scheduler;

/** One connection of a {@link ProbeConnectionFactory}. */
final class ProbeConnection implements Connection, Wrapped<Object> {

    private final ProbeConnectionFactory probe;
    private final int number;
    private final AtomicInteger closes = new AtomicInteger();
    private final ProbeTurns turns = new ProbeTurns();
    private final ProbeTransaction transaction;
    private final ProbeCursors cursors = new ProbeCursors();
    private final Set<Sinks.Empty<Void>> running = ConcurrentHashMap.newKeySet();
    private final Sinks.Empty<Void> closing = Sinks.empty();
    private volatile boolean terminated;

    ProbeConnection(ProbeConnectionFactory probe, int number) {
        this.probe = probe;
        this.number = number;
        this.transaction = new ProbeTransaction(probe::tookEffect, probe::abortsTransactions);
    }

    /** The probe's connection in what a pool or a proxy has wrapped around it. */
    static ProbeConnection of(Connection connection) {
        Object unwrapped = connection;
        while (!(unwrapped instanceof ProbeConnection probed)) {
            unwrapped = ((Wrapped<?>) unwrapped).unwrap();
        }
        return probed;
    }

    ProbeConnectionFactory probe() {
        return probe;
    }

    @Override
    public Object unwrap() {
        return probe;
    }

    @Override
    public <E> @Nullable E unwrap(Class<E> target) {
        if (target == Scheduler.class) {
            Scheduler scheduler = probe.askedForScheduler();
            return scheduler == null ? null : target.cast(scheduler);
        }
        return null;
    }

    /** What is served in order came in time, if it was let in, even if the connection is closed in this moment. */
    private ProbeCall called(Kind kind, String step) {
        return probe.inOrder() && kind != Kind.CANCEL ? probe.called(kind, number, step) : calledInTime(kind, step);
    }

    private ProbeCall calledInTime(Kind kind, String step) {
        ProbeCall call = probe.called(kind, number, step);
        if (closes.get() > 0) {
            probe.violated(call + " after close");
        }
        return call;
    }

    /** A step that is no statement. */
    Mono<Void> step(Kind kind, String step, Runnable effect) {
        Mono<Void> act = Mono.defer(() -> {
            ProbeCall call = called(kind, step);
            Publisher<?> scripted = probe.scripted(step);
            Mono<Void> done =
                    scripted == null ? Mono.empty() : Flux.from(scripted).then();
            Mono<Void> effective =
                    done.then(Mono.defer(() -> refusal(kind, step))).doOnSuccess(ignored -> effect.run());
            ProbeFault fault = probe.faultAt(call);
            return Mono.fromDirect(fault.applyTo(effective.flux(), call, closing.asMono()));
        });
        return probe.inOrder() && kind != Kind.CANCEL ? Mono.fromDirect(inTurn(kind, step, act.flux())) : act;
    }

    /** What a database answers after a statement of the transaction has failed. */
    private Mono<Void> refusal(Kind kind, String step) {
        if (!transaction.isAborted()) {
            return Mono.empty();
        }
        return switch (kind) {
            case COMMIT -> {
                transaction.rollback();
                yield Mono.error(new R2dbcRollbackException("COMMIT of an aborted transaction rolled it back"));
            }
            case BEGIN, SETTING -> Mono.error(aborted());
            case SAVEPOINT -> "rollback to savepoint".equals(step) ? Mono.empty() : Mono.error(aborted());
            default -> Mono.empty();
        };
    }

    private static R2dbcException aborted() {
        return new R2dbcBadGrammarException("The transaction is aborted", "25P02");
    }

    private <T> Flux<T> inTurn(Kind kind, String step, Flux<T> act) {
        return Flux.defer(() -> {
            ProbeTurns.Turn turn = turns.new Turn();
            return entered(turn, kind, step).thenMany(act).doFinally(end -> turn.leave());
        });
    }

    /** What waits for its turn when the connection is closed fails, and was never sent. */
    private Mono<Void> entered(ProbeTurns.Turn turn, Kind kind, String step) {
        if (closes.get() > 0) {
            calledInTime(kind, step).end(State.FAILED);
            return closing.asMono();
        }
        return turn.enter()
                .takeUntilOther(closing.asMono())
                .then(Mono.defer(() -> closes.get() > 0 ? closing.asMono() : Mono.empty()));
    }

    private void closed() {
        if (probe.inOrder()) {
            ended("The connection was closed");
        }
    }

    private R2dbcException ended(String reason) {
        R2dbcException error = new R2dbcNonTransientResourceException(reason, "08003");
        running.forEach(statement -> statement.tryEmitError(error));
        closing.tryEmitError(error);
        return error;
    }

    /** Ends the connection if there is no transaction. */
    Mono<Void> guard() {
        return step(Kind.GUARD, "guard", () -> {
            if (!transaction.isOpen()) {
                terminated = true;
                throw ended("The guard has found no transaction");
            }
        });
    }

    /** Makes what runs fail, as a server does that is asked to cancel it, unless something else was scripted. */
    Mono<Void> cancelRunning() {
        return step(Kind.CANCEL, "cancel", probe.isScripted("cancel") ? () -> {} : this::interrupt);
    }

    private void interrupt() {
        running.forEach(statement -> statement.tryEmitError(new R2dbcNonTransientResourceException(
                "The statement was cancelled because the database was asked to", "57014")));
    }

    private Flux<Result> executed(String sql) {
        return probe.inOrder()
                ? executedInTurn(sql)
                : Flux.defer(() -> executedNow(sql, new Reading(turns.new Turn())));
    }

    /** The connection is the statement's until its last row was read, or its result was left unread. */
    private Flux<Result> executedInTurn(String sql) {
        return Flux.defer(() -> {
            ProbeTurns.Turn turn = turns.new Turn();
            Reading reading = new Reading(turn);
            return entered(turn, Kind.STATEMENT, sql)
                    .thenMany(Flux.defer(() -> executedNow(sql, reading)))
                    .doOnNext(result -> reading.handedOut = true)
                    .concatWith(Mono.defer(reading::awaited))
                    .doFinally(end -> {
                        if (!reading.begun) {
                            turn.leave();
                        }
                    });
        });
    }

    private Flux<Result> executedNow(String sql, Reading reading) {
        ProbeCursors.Command command = probe.knowsMoreThanTheSpi() ? cursors.command(sql, this::answer) : null;
        ProbeCall call = called(Kind.STATEMENT, command == null ? sql : command.step());
        if (transaction.isAborted()) {
            call.end(State.FAILED);
            return Flux.error(aborted());
        }
        Sinks.Empty<Void> interruption = Sinks.empty();
        running.add(interruption);
        Flux<?> answer = command == null || probe.isScripted(call.step()) ? answer(call.step()) : command.rows();
        Mono<Result> result = Mono.fromSupplier(() -> new ProbeResult(rows(call, answer, interruption, reading)));
        ProbeFault fault = probe.faultAt(call);
        if (fault.isNone()) {
            return result.flux();
        }
        Flux<Result> faulty = fault.losesAnswer()
                ? fault.applyTo(answer.then(Mono.<Result>fromRunnable(() -> transaction.executed(call.step())))
                        .flux())
                : fault.applyTo(result.doOnNext(made -> reading.made = true).flux());
        return faulty.takeUntilOther(interruption.asMono())
                .doOnComplete(() -> endedWithoutResult(State.COMPLETED, call, interruption, reading))
                .doOnError(error -> transaction.failed())
                .doOnError(error -> endedWithoutResult(State.FAILED, call, interruption, reading))
                .doOnCancel(() -> endedWithoutResult(State.CANCELLED, call, interruption, reading));
    }

    private void endedWithoutResult(State end, ProbeCall call, Sinks.Empty<Void> interruption, Reading reading) {
        if (!reading.made) {
            running.remove(interruption);
            call.end(end);
        }
    }

    private Flux<?> answer(String sql) {
        Publisher<?> scripted = probe.scripted(sql);
        return scripted == null ? Flux.just(1) : Flux.from(scripted);
    }

    private Flux<?> rows(ProbeCall call, Flux<?> answer, Sinks.Empty<Void> interruption, Reading reading) {
        Flux<?> faulty = probe.hasFaults() ? withFaults(call, answer) : answer;
        Flux<?> interruptible =
                faulty.takeUntilOther(interruption.asMono()).doOnSubscribe(subscription -> reading.begun = true);
        return call.endingWith(interruptible, end -> {
                    running.remove(interruption);
                    if (end == State.FAILED) {
                        transaction.failed();
                    } else {
                        transaction.executed(call.step());
                    }
                })
                .doFinally(end -> reading.end());
    }

    private Flux<?> withFaults(ProbeCall call, Flux<?> rows) {
        return rows.index()
                .concatMap(row -> probe.faultAtRow(call, row.getT1()).applyTo(Flux.<Object>just(row.getT2())), 0);
    }

    /** How far the result of a statement was read. */
    private static final class Reading {

        private final ProbeTurns.Turn turn;
        private final Sinks.Empty<Result> end = Sinks.empty();
        private volatile boolean made;
        private volatile boolean handedOut;
        private volatile boolean begun;

        Reading(ProbeTurns.Turn turn) {
            this.turn = turn;
        }

        void end() {
            turn.leave();
            end.tryEmitEmpty();
        }

        Mono<Result> awaited() {
            return handedOut ? end.asMono() : Mono.empty();
        }
    }

    @Override
    public Publisher<Void> beginTransaction() {
        return step(Kind.BEGIN, "begin", transaction::begin);
    }

    @Override
    public Publisher<Void> beginTransaction(TransactionDefinition definition) {
        return beginTransaction();
    }

    @Override
    public Publisher<Void> commitTransaction() {
        return step(Kind.COMMIT, "commit", transaction::commit);
    }

    @Override
    public Publisher<Void> rollbackTransaction() {
        return step(Kind.ROLLBACK, "rollback", transaction::rollback);
    }

    /** What was scripted is called for at once, so that it can throw or return null. */
    @Override
    @SuppressWarnings({"unchecked", "NullAway"})
    public Publisher<Void> close() {
        ProbeCall call = probe.called(Kind.CLOSE, number, "close");
        if (closes.incrementAndGet() > 1) {
            probe.violated(call + " called " + closes.get() + " times");
        } else {
            probe.closedOne();
            closed();
        }
        ProbeFault fault = probe.faultAt(call);
        if (!fault.isNone()) {
            return fault.applyTo(Flux.<Void>empty(), call, Mono.never());
        }
        call.end(State.COMPLETED);
        return probe.isScripted("close") ? (Publisher<Void>) probe.scripted("close") : Mono.empty();
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
                return Flux.fromIterable(statements).concatMap(ProbeConnection.this::executed);
            }
        };
    }

    @Override
    public Statement createStatement(String sql) {
        return new ProbeStatement(() -> executed(sql));
    }

    @Override
    public Publisher<Void> createSavepoint(String name) {
        return step(Kind.SAVEPOINT, "savepoint", () -> transaction.savepoint(name));
    }

    @Override
    public Publisher<Void> releaseSavepoint(String name) {
        return step(Kind.SAVEPOINT, "release savepoint", () -> transaction.releaseSavepoint(name));
    }

    @Override
    public Publisher<Void> rollbackTransactionToSavepoint(String name) {
        return step(Kind.SAVEPOINT, "rollback to savepoint", () -> transaction.rollbackTo(name));
    }

    @Override
    public boolean isAutoCommit() {
        return !transaction.isOpen();
    }

    @Override
    public Publisher<Void> setAutoCommit(boolean value) {
        return step(Kind.SETTING, "setAutoCommit", value ? transaction::commit : transaction::begin);
    }

    @Override
    public ConnectionMetadata getMetadata() {
        return new ConnectionMetadata() {
            @Override
            public String getDatabaseProductName() {
                return "probe";
            }

            @Override
            public String getDatabaseVersion() {
                return "1";
            }
        };
    }

    @Override
    public IsolationLevel getTransactionIsolationLevel() {
        return IsolationLevel.READ_COMMITTED;
    }

    @Override
    public Publisher<Void> setTransactionIsolationLevel(IsolationLevel level) {
        return step(Kind.SETTING, "isolation", () -> {});
    }

    @Override
    public Publisher<Void> setLockWaitTimeout(Duration timeout) {
        return step(Kind.SETTING, "lockWaitTimeout", () -> {});
    }

    @Override
    public Publisher<Void> setStatementTimeout(Duration timeout) {
        return step(Kind.SETTING, "statementTimeout", () -> {});
    }

    @Override
    public Publisher<Boolean> validate(ValidationDepth depth) {
        return depth == ValidationDepth.LOCAL && !probe.isScripted("validate")
                ? Mono.fromSupplier(() -> closes.get() == 0 && !terminated)
                : step(Kind.VALIDATE, "validate", () -> {}).thenReturn(true);
    }

    @Override
    public String toString() {
        return "ProbeConnection#" + number;
    }
}
