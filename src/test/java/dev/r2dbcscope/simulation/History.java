package dev.r2dbcscope.simulation;

import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.ScopeListener;
import dev.r2dbcscope.ScopeOutcome;
import dev.r2dbcscope.simulation.Attempt.Asked;
import dev.r2dbcscope.simulation.Attempt.Run;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.SignalType;
import reactor.test.scheduler.VirtualTimeScheduler;

/** Everything that happened in a run, in order, and what of it should not have. */
final class History implements ScopeListener {

    private static final int LONGEST = 20_000;
    private static final int MOST_OFFENCES = 20;

    final List<String> log = new ArrayList<>();
    final List<String> offences = new ArrayList<>();
    final Map<String, Run> runs = new LinkedHashMap<>();
    final Map<String, Asked> statements = new LinkedHashMap<>();
    final List<Throwable> errors = new ArrayList<>();

    private final VirtualTimeScheduler time;
    private final Thread thread = Thread.currentThread();
    private final boolean isRecording;
    private long clock;

    /** Whether a fault made the database lie about a transaction, so that no outcome can be right. */
    boolean lied;

    /** Whether a step hung of which the user, and not the library, decides how long to wait for it. */
    boolean hung;

    /** Whether a connection serves one step after the other, so that the end of an execution is that of its results. */
    final boolean inOrder;

    /** Whether statements may follow BEGIN before it was answered. */
    final boolean pipelining;

    /** Whether the pool waits for ever for a connection. */
    boolean starved;

    /** Whether a close has failed, or may be taken for failed, so that it is tried again. */
    boolean closesAgain;

    History(VirtualTimeScheduler time, Plan.Database database, boolean isRecording) {
        this.isRecording = isRecording;
        this.time = time;
        this.inOrder = database.inOrder();
        this.pipelining = database.pipelining();
    }

    /** Adds to the log; returns the moment. */
    long note(Supplier<String> what) {
        if (++clock > LONGEST) {
            throw new AssertionError("the run does not come to an end");
        }
        if (Thread.currentThread() != thread) {
            offence("on another thread, " + Thread.currentThread().getName() + ": " + what.get());
        }
        if (isRecording) {
            log.add(time.now(TimeUnit.MICROSECONDS) / 1000.0 + " " + what.get());
        }
        return clock;
    }

    void offence(String what) {
        if (offences.size() < MOST_OFFENCES) {
            offences.add(what);
        }
        log.add("!!! " + what);
    }

    void require(boolean holds, Supplier<String> what) {
        if (!holds) {
            offence(what.get());
        }
    }

    // what the pipeline says -----------------------------------------------------------------------------------------

    Run run(Node.Scope node, @Nullable Attempt around) {
        Run run = new Run("scope" + (runs.size() + 1), node, around);
        runs.put(run.name, run);
        note(() -> run.name + " is " + run.kind + (around == null ? "" : " inside " + around.run.name));
        return run;
    }

    Asked asked(String kind, Attempt attempt, boolean stray) {
        String sql = kind + " " + (statements.size() + 1);
        Asked statement = new Asked(sql, attempt, note(() -> "asked for " + sql + " in " + attempt.run.name), stray);
        statements.put(sql, statement);
        attempt.statements.add(statement);
        return statement;
    }

    void told(Run run, SignalType signal, @Nullable Throwable error) {
        long now = note(() -> run.name + " told " + signal
                + (error == null ? "" : " " + error.getClass().getSimpleName()));
        boolean first = run.told == null || run.told == SignalType.CANCEL;
        require(first || signal == SignalType.CANCEL, () -> run.name + " told " + signal + " after " + run.told);
        require(
                signal == SignalType.CANCEL || run.told == SignalType.CANCEL || run.opened == run.released,
                () -> run.name + " told " + signal + " before its connection was released");
        if (run.told == null) {
            run.told = signal;
            run.toldAt = now;
            run.error = error;
        }
        if (error != null) {
            errors.add(error);
        }
    }

    // what the engine says -------------------------------------------------------------------------------------------

    @Override
    public void onEvent(ScopeEvent event) {
        Run run = runs.get(event.scope().name());
        long now = note(
                () -> event.getClass().getSimpleName() + " " + event.scope().name() + detail(event));
        if (run == null) {
            offence("an event of nobody: " + event);
            return;
        }
        Attempt attempt = run.last();
        if (event instanceof ScopeEvent.Opened) {
            run.opened++;
        } else if (event instanceof ScopeEvent.Exiting exiting) {
            if (attempt != null && attempt.exiting == 0) {
                attempt.exiting = now;
                attempt.outcome = exiting.outcome();
            }
        } else if (event instanceof ScopeEvent.Released released) {
            run.released++;
            require(run.released <= run.opened, () -> "released more often than opened: " + run.name);
            if (attempt != null && attempt.transaction == null) {
                attempt.transaction = released.transaction();
                require(
                        attempt.outcome == released.outcome(),
                        () -> run.name + " exited as " + attempt.outcome + " and was released as "
                                + released.outcome());
                require(
                        released.outcome() != ScopeOutcome.COMPLETED || attempt.bodyCompleted(),
                        () -> run.name + " counts as completed, but its pipeline ended with " + attempt.bodyEnd);
            }
        }
    }

    private static String detail(ScopeEvent event) {
        if (event instanceof ScopeEvent.Released released) {
            return " " + released.outcome() + " " + released.transaction() + (released.destroyed() ? " destroyed" : "");
        }
        if (event instanceof ScopeEvent.Exiting exiting) {
            return " " + exiting.outcome();
        }
        if (event instanceof ScopeEvent.OpenFailed failed) {
            return " " + failed.error().getClass().getSimpleName();
        }
        if (event instanceof ScopeEvent.ReleaseFailed failed) {
            return " " + failed.error().getClass().getSimpleName();
        }
        return "";
    }
}
