package dev.r2dbcscope.simulation;

import dev.r2dbcscope.OnCancel;
import dev.r2dbcscope.ScopeOutcome;
import dev.r2dbcscope.simulation.Attempt.Asked;
import dev.r2dbcscope.testkit.ProbeCall;
import dev.r2dbcscope.testkit.ProbeCall.Kind;
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
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.core.publisher.SignalType;

/**
 * A connection as a pool hands it out, once. It looks at what it is asked for at the moment at which it is asked, so that
 * a COMMIT behind a statement that has not ended is noticed, which the connection itself would only keep waiting.
 */
final class Lease implements Connection, Wrapped<Connection> {

    private final Connection physical;
    private final History history;
    private final Function<Lease, Publisher<Void>> giveBack;
    private final int number;
    private final List<String> running = new ArrayList<>();
    private int controls;
    private boolean beginning;
    private final List<ProbeCall> cancels = new ArrayList<>();
    private @Nullable ProbeCall settings;
    private @Nullable Attempt transaction;
    private boolean closed;

    Lease(Connection physical, int number, History history, Function<Lease, Publisher<Void>> giveBack) {
        this.physical = physical;
        this.number = number;
        this.history = history;
        this.giveBack = giveBack;
    }

    Connection physical() {
        return physical;
    }

    @Override
    public Connection unwrap() {
        return physical;
    }

    @Override
    @SuppressWarnings("unchecked")
    public <E> @Nullable E unwrap(Class<E> target) {
        return target.isInstance(this) ? (E) this : ((Wrapped<?>) physical).unwrap(target);
    }

    boolean isDestroyed() {
        return !Boolean.TRUE.equals(
                Mono.from(physical.validate(ValidationDepth.LOCAL)).toFuture().getNow(false));
    }

    // every step -----------------------------------------------------------------------------------------------------

    private void arrives(String step, boolean mayFollowBegin) {
        history.note(() -> "  " + step + "#" + number);
        history.require(!closed, () -> step + "#" + number + " after the connection was given back");
        history.require(
                controls == 0 || mayFollowBegin && beginning,
                () -> step + "#" + number + " while another request has not been answered");
    }

    private <T> Publisher<T> control(Kind kind, String step, Publisher<T> source) {
        return new Tracked<>(source, new Tracked.Watch() {
            @Override
            public void begins() {
                arrives(step, false);
                beginning = kind == Kind.BEGIN && history.pipelining;
                history.require(running.isEmpty(), () -> step + "#" + number + " while in flight: " + running);
                history.require(!isCancelling(), () -> step + "#" + number + " while a request to cancel is under way");
                controls++;
            }

            @Override
            public void ends(SignalType how) {
                controls--;
                beginning = false;
                ended(step, how);
                if (kind == Kind.COMMIT || kind == Kind.ROLLBACK) {
                    transaction = null;
                }
            }
        });
    }

    private void ended(String step, SignalType how) {
        history.note(() -> "  " + step + "#" + number + " ended: " + how);
        history.require(how != SignalType.CANCEL, () -> step + "#" + number + " was cancelled");
    }

    /** The dialect's steps do not come by way of the lease, but of the physical connection. */
    void setting(ProbeCall step) {
        history.note(() -> "  " + step);
        history.require(!closed, () -> step + " after the connection was given back");
        history.require(
                controls == 0 || step.step().startsWith("set local"),
                () -> // which is sent together with BEGIN
                step + " while another request has not been answered");
        if (step.step().startsWith("set ") && !step.step().startsWith("set local")) {
            settings = step;
        } else if (step.step().startsWith("restore")) {
            settings = null;
        }
    }

    /** Also says what it hits. */
    List<String> cancelling(ProbeCall request) {
        history.note(() -> "  cancel#" + number);
        history.require(
                !running.isEmpty() || !history.inOrder || isDestroyed(),
                () -> "cancel#" + number + " while nothing is in flight");
        cancels.add(request);
        return running;
    }

    private boolean isCancelling() {
        return cancels.stream().anyMatch(request -> request.state() == ProbeCall.State.RUNNING);
    }

    // statements -----------------------------------------------------------------------------------------------------

    @Override
    public Statement createStatement(String sql) {
        return new LeasedStatement(physical.createStatement(sql), sql, this);
    }

    <T extends Result> Publisher<T> executed(String sql, Publisher<T> source) {
        return new Tracked<>(source, new Tracked.Watch() {
            @Override
            public void begins() {
                arrives(sql, true);
                running.add(sql);
                history.require(!isCancelling(), () -> sql + "#" + number + " while a request to cancel is under way");
                Asked asked = asked(sql);
                if (asked != null) {
                    admitted(asked);
                }
            }

            @Override
            public void ends(SignalType how) {
                running.remove(sql);
                ended(sql, how);
            }
        });
    }

    private @Nullable Asked asked(String sql) {
        int cursor = sql.indexOf(" for ");
        return history.statements.get(cursor < 0 ? sql : sql.substring(cursor + " for ".length()));
    }

    private void admitted(Asked statement) {
        statement.arrived = true;
        Supplier<String> what = () -> statement.sql + "#" + number + " of " + statement.attempt.run.name;
        Attempt base = statement.attempt.base();
        history.require(
                base.connection == 0 || base.connection == number,
                () -> what.get() + ", whose connection is #" + base.connection);
        base.connection = number;
        for (Attempt level = statement.attempt; level != null; level = level.run.around) {
            Attempt exiting = level;
            history.require(
                    mayStillCome(statement, level),
                    () -> what.get() + " after the exit of " + exiting.run.name + " began");
            if (level.run.kind.hasOwnConnection()) {
                break;
            }
        }
        Attempt wanted = statement.attempt.transaction();
        boolean open = !physical.isAutoCommit();
        if (!history.lied && !beginning) {
            history.require(
                    open == (wanted != null),
                    () -> what.get() + (open ? " in a transaction" : " without a transaction"));
        }
        if (wanted != null && (open || beginning)) {
            history.require(
                    transaction == null || transaction == wanted,
                    () -> what.get() + " in a transaction of " + (transaction == null ? "" : transaction.run.name));
            transaction = wanted;
        }
    }

    /** What was asked for before a pipeline completed is awaited; nothing comes after any other end. */
    private static boolean mayStillCome(Asked statement, Attempt level) {
        return level.exiting == 0
                || level.outcome == ScopeOutcome.COMPLETED && statement.asked < level.exiting
                || level.outcome == ScopeOutcome.CANCELLED
                        && level.run.node.onCancel() == OnCancel.COMMIT
                        && statement.asked < level.exiting;
    }

    @Override
    public Batch createBatch() {
        return physical.createBatch();
    }

    // the end --------------------------------------------------------------------------------------------------------

    /** Gives the connection back when subscribed to. */
    @Override
    public Publisher<Void> close() {
        return Mono.defer(() -> {
            arrivesAtTheEnd();
            closed = true;
            return Mono.fromDirect(giveBack.apply(this));
        });
    }

    private void arrivesAtTheEnd() {
        history.note(() -> "  given back#" + number);
        history.require(!closed, () -> "given back twice: #" + number);
        if (isDestroyed()) {
            return;
        }
        history.require(controls == 0, () -> "given back while a request has not been answered: #" + number);
        history.require(running.isEmpty(), () -> "given back while in flight: " + running);
        history.require(!isCancelling(), () -> "given back while a request to cancel is under way: #" + number);
        history.require(physical.isAutoCommit(), () -> "given back in a transaction: #" + number);
        history.require(
                settings == null || settings.state() == ProbeCall.State.FAILED || history.lied,
                () -> "given back with settings: #" + number);
    }

    // all others -----------------------------------------------------------------------------------------------------

    @Override
    public Publisher<Void> beginTransaction() {
        return control(Kind.BEGIN, "begin", physical.beginTransaction());
    }

    @Override
    public Publisher<Void> beginTransaction(TransactionDefinition definition) {
        return control(Kind.BEGIN, "begin", physical.beginTransaction(definition));
    }

    @Override
    public Publisher<Void> commitTransaction() {
        return control(Kind.COMMIT, "commit", physical.commitTransaction());
    }

    @Override
    public Publisher<Void> rollbackTransaction() {
        return control(Kind.ROLLBACK, "rollback", physical.rollbackTransaction());
    }

    @Override
    public Publisher<Void> createSavepoint(String name) {
        return control(Kind.SAVEPOINT, "savepoint", physical.createSavepoint(name));
    }

    @Override
    public Publisher<Void> releaseSavepoint(String name) {
        return control(Kind.SAVEPOINT, "release savepoint", physical.releaseSavepoint(name));
    }

    @Override
    public Publisher<Void> rollbackTransactionToSavepoint(String name) {
        return control(Kind.SAVEPOINT, "rollback to savepoint", physical.rollbackTransactionToSavepoint(name));
    }

    @Override
    public Publisher<Void> setAutoCommit(boolean autoCommit) {
        return control(Kind.SETTING, "setAutoCommit", physical.setAutoCommit(autoCommit));
    }

    @Override
    public Publisher<Void> setTransactionIsolationLevel(IsolationLevel level) {
        return control(Kind.SETTING, "isolation", physical.setTransactionIsolationLevel(level));
    }

    @Override
    public Publisher<Void> setLockWaitTimeout(Duration timeout) {
        return control(Kind.SETTING, "lockWaitTimeout", physical.setLockWaitTimeout(timeout));
    }

    @Override
    public Publisher<Void> setStatementTimeout(Duration timeout) {
        return control(Kind.SETTING, "statementTimeout", physical.setStatementTimeout(timeout));
    }

    @Override
    public Publisher<Boolean> validate(ValidationDepth depth) {
        return physical.validate(depth);
    }

    @Override
    public boolean isAutoCommit() {
        return physical.isAutoCommit();
    }

    @Override
    public IsolationLevel getTransactionIsolationLevel() {
        return physical.getTransactionIsolationLevel();
    }

    @Override
    public ConnectionMetadata getMetadata() {
        return physical.getMetadata();
    }
}
