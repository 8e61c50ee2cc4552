package dev.r2dbcscope.testkit;

import dev.r2dbcscope.CurrentScope;
import java.time.Duration;
import java.util.Objects;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/** What is known of one connection of a watched factory, from the wish for it until it was closed. */
final class HeldConnection {

    private final LeakAssertions leaks;
    private final WatchedConnectionFactory factory;
    private final long number;
    private final String origin;
    private final @Nullable CurrentScope scope;
    private final Queue<Work> running = new ConcurrentLinkedQueue<>();
    private final AtomicBoolean misused = new AtomicBoolean();
    private final AtomicReference<State> state = new AtomicReference<>(State.WANTED);
    private volatile long since = System.nanoTime();
    private volatile @Nullable String last;
    private volatile boolean left;

    /** An execution that has not ended; two of the same text are two. */
    static final class Work {

        private final String sql;

        private Work(String sql) {
            this.sql = sql;
        }
    }

    private enum State {
        WANTED,
        OPEN,
        CLOSE_CALLED,
        CLOSING,
        CLOSED
    }

    HeldConnection(
            LeakAssertions leaks,
            WatchedConnectionFactory factory,
            long number,
            String origin,
            @Nullable CurrentScope scope) {
        this.leaks = leaks;
        this.factory = factory;
        this.number = number;
        this.origin = origin;
        this.scope = scope;
    }

    WatchedConnectionFactory factory() {
        return factory;
    }

    /** Grows with the time at which connections were asked for. */
    long number() {
        return number;
    }

    String origin() {
        return origin;
    }

    /** The scope that has it, if it is one. */
    @Nullable
    CurrentScope scope() {
        return scope;
    }

    private State state() {
        return Objects.requireNonNull(state.get());
    }

    /** Takes notice of the connection; says whether it was the first one, and wanted still. */
    boolean arrived() {
        since = System.nanoTime();
        return state.compareAndSet(State.WANTED, State.OPEN);
    }

    boolean hasArrived() {
        return state() != State.WANTED;
    }

    /** Its subscriber has left before the end of the acquisition; a pool may have taken the connection back then. */
    void left() {
        left = true;
    }

    boolean wasLeft() {
        return left;
    }

    /** None comes any more. */
    void refused() {
        if (state.compareAndSet(State.WANTED, State.CLOSED)) {
            leaks.forget(this);
        }
    }

    void closeCalled() {
        state.compareAndSet(State.OPEN, State.CLOSE_CALLED);
    }

    void closing() {
        state.updateAndGet(now -> now == State.CLOSED ? now : State.CLOSING);
    }

    void closed() {
        state.set(State.CLOSED);
        leaks.forget(this);
    }

    Work began(String sql) {
        last = sql;
        Work work = new Work(sql);
        running.add(work);
        return work;
    }

    /** Before its subscriber hears of it. */
    void ended(Work work) {
        running.remove(work);
    }

    /** Takes notice of a call. The first one after the close is an offence, and those after it are no news. */
    void used(String call) {
        State now = state();
        if (scope == null && (now == State.CLOSING || now == State.CLOSED) && misused.compareAndSet(false, true)) {
            leaks.usedAfterClose(this, call);
        }
    }

    /** What it does at the moment, in one line. */
    String describe() {
        if (scope != null) {
            return ScopeText.of(scope.snapshot());
        }
        String time = " for " + Duration.ofNanos(System.nanoTime() - since).toMillis() + " ms";
        return switch (state()) {
            case WANTED -> "connection asked for at " + origin + " has not come" + time;
            case OPEN -> "connection taken at " + origin + " was not closed: held" + time + work();
            case CLOSE_CALLED ->
                "connection taken at " + origin
                        + " was not closed, because nobody subscribed to what its close() returned:" + " held" + time
                        + work();
            case CLOSING, CLOSED -> "connection taken at " + origin + " is still being closed: held" + time + work();
        };
    }

    private String work() {
        Work now = running.peek();
        if (now != null) {
            return "; in flight: \"" + now.sql + "\"";
        }
        String before = last;
        return before == null ? "; never used" : "; last: \"" + before + "\"";
    }
}
