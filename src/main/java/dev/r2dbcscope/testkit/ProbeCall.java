package dev.r2dbcscope.testkit;

import java.util.concurrent.atomic.AtomicReferenceFieldUpdater;
import java.util.function.Consumer;
import reactor.core.publisher.Flux;

/**
 * One call that a {@link ProbeConnectionFactory} has seen: a step of a connection's life, from its subscription to its
 * end.
 *
 * <p>Thread-safe: the state may still change while the test looks.
 */
public final class ProbeCall {

    /** What was called. */
    public enum Kind {
        /** A connection is opened. */
        CREATE,
        /** A transaction begins. */
        BEGIN,
        /** What was sent behind BEGIN is kept from taking effect without it. */
        GUARD,
        /** A statement, or one of a batch. */
        STATEMENT,
        /** A transaction commits. */
        COMMIT,
        /** A transaction rolls back. */
        ROLLBACK,
        /** A savepoint is set, released or rolled back to. */
        SAVEPOINT,
        /** A setting of the session or of the connection is changed, or set back. */
        SETTING,
        /** The connection is validated. */
        VALIDATE,
        /** The database is asked to cancel what runs. */
        CANCEL,
        /** The connection is closed. */
        CLOSE
    }

    /** How far a call has come. */
    public enum State {
        /** It has not ended. */
        RUNNING,
        /** It ended without an error; a statement: its last row was read. */
        COMPLETED,
        /** It ended with an error. */
        FAILED,
        /** Its subscriber cancelled it. */
        CANCELLED
    }

    private static final AtomicReferenceFieldUpdater<ProbeCall, State> STATE =
            AtomicReferenceFieldUpdater.newUpdater(ProbeCall.class, State.class, "state");

    private final long order;
    private final Kind kind;
    private final int connection;
    private final String step;
    private final String thread;
    private volatile State state = State.RUNNING;

    ProbeCall(long order, Kind kind, int connection, String step) {
        this.order = order;
        this.kind = kind;
        this.connection = connection;
        this.step = step;
        this.thread = Thread.currentThread().getName();
    }

    /** Ends it; says whether it had not ended before. */
    boolean end(State end) {
        return STATE.compareAndSet(this, State.RUNNING, end);
    }

    <T> Flux<T> endingWith(Flux<T> step) {
        return endingWith(step, end -> {});
    }

    /** Ends before its subscriber hears of it, because operators like {@code flatMap} cancel what has just told them its error. */
    <T> Flux<T> endingWith(Flux<T> step, Consumer<State> ended) {
        Consumer<State> end = how -> {
            if (end(how)) {
                ended.accept(how);
            }
        };
        return step.doOnComplete(() -> end.accept(State.COMPLETED))
                .doOnError(error -> end.accept(State.FAILED))
                .doOnCancel(() -> end.accept(State.CANCELLED));
    }

    /**
     * When it was called, among all calls of the factory.
     *
     * @return a number counted from 1
     */
    public long order() {
        return order;
    }

    /**
     * What was called.
     *
     * @return the kind
     */
    public Kind kind() {
        return kind;
    }

    /**
     * On which connection.
     *
     * @return the connection's number, counted from 1; zero if none exists yet
     */
    public int connection() {
        return connection;
    }

    /**
     * The name of the step, as in {@link ProbeConnectionFactory#on}.
     *
     * @return the name; of a statement its SQL text
     */
    public String step() {
        return step;
    }

    /**
     * The thread that called.
     *
     * @return its name
     */
    public String thread() {
        return thread;
    }

    /**
     * How far it has come.
     *
     * @return the state at this moment
     */
    public State state() {
        return state;
    }

    /** The step and the number of its connection, such as {@code begin#1}. */
    @Override
    public String toString() {
        return connection == 0 ? step : step + "#" + connection;
    }
}
