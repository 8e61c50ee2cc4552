package dev.r2dbcscope.simulation;

import dev.r2dbcscope.CommitOutcomeUnknownException;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.OnCancel;
import dev.r2dbcscope.ScopeException;
import dev.r2dbcscope.ScopeOutcome;
import dev.r2dbcscope.TransactionOutcome;
import dev.r2dbcscope.simulation.Attempt.Asked;
import dev.r2dbcscope.simulation.Attempt.Kind;
import dev.r2dbcscope.simulation.Attempt.Run;
import dev.r2dbcscope.testkit.ProbeCall;
import dev.r2dbcscope.testkit.ProbeCall.State;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcException;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import reactor.core.Exceptions;
import reactor.core.publisher.SignalType;

/** What must be true when everything has come to rest. */
final class Invariants {

    private final History history;
    private final ProbeConnectionFactory probe;
    private final Pool pool;
    private final ConnectionScopes scopes;
    private final List<Throwable> dropped;

    Invariants(
            History history,
            ProbeConnectionFactory probe,
            Pool pool,
            ConnectionScopes scopes,
            List<Throwable> dropped) {
        this.history = history;
        this.probe = probe;
        this.pool = pool;
        this.scopes = scopes;
        this.dropped = dropped;
    }

    void check() {
        nothingIsHeld();
        history.runs.values().forEach(this::toldOnceAndRightly);
        onlyWhatWasCommittedIsDurable();
        history.errors.forEach(error -> explained("an error", error));
        dropped.forEach(error -> explained("a dropped error", error));
    }

    private void nothingIsHeld() {
        require(scopes.live().isEmpty(), () -> "live at the end: " + scopes.live());
        List<String> violations = probe.violations().stream()
                .filter(violation -> !history.closesAgain || !violation.endsWith("times"))
                .toList();
        require(violations.isEmpty(), () -> "violations: " + violations);
        require(probe.live() == 0, () -> probe.live() + " connections are open at the end");
        require(pool.lent() == 0 || history.starved, () -> pool.lent() + " connections are lent at the end");
        for (ProbeCall call : probe.calls()) {
            boolean byThePool = call.kind() == ProbeCall.Kind.CREATE && pool.size() > 0;
            require(byThePool || call.state() != State.CANCELLED, () -> call + " was cancelled");
        }
    }

    // what the subscribers of scopes were told -----------------------------------------------------------------------

    private void toldOnceAndRightly(Run run) {
        require(run.told != null, () -> run.name + " was never told of its end");
        require(
                run.opened == run.released,
                () -> run.name + " was opened " + run.opened + ", released " + run.released);
        Attempt last = run.last();
        if (last == null) {
            return;
        }
        run.attempts.forEach(this::hooksRanOnce);
        if (last.outcome != null && !history.lied) {
            told(run, last, last.outcome);
        }
        if (run.kind == Kind.JOINED) {
            joined(run, last);
        }
    }

    private void told(Run run, Attempt last, ScopeOutcome outcome) {
        boolean committed = last.transaction == TransactionOutcome.COMMITTED;
        boolean unknown = last.transaction == TransactionOutcome.UNKNOWN;
        Supplier<String> told =
                () -> run.name + " was told " + run.told + ", and is " + outcome + " " + last.transaction;
        if (run.told == SignalType.ON_COMPLETE) {
            require(outcome == ScopeOutcome.COMPLETED, told);
            require(!run.kind.isTransactional() || committed || last.doomed && !unknown, told);
        } else if (run.told == SignalType.ON_ERROR) {
            require(!committed, told);
            boolean toldSo = run.error instanceof CommitOutcomeUnknownException error
                    && error.scopeName().equals(run.name);
            require(unknown == toldSo, () -> told.get() + " " + run.error);
        } else if (outcome == ScopeOutcome.CANCELLED && run.node.onCancel() != OnCancel.COMMIT) {
            require(!committed && !unknown, told);
        }
    }

    private void joined(Run run, Attempt last) {
        Attempt owner = last.session();
        boolean failed = run.told == SignalType.ON_ERROR
                || run.told == SignalType.CANCEL && run.node.onCancel() != OnCancel.COMMIT && !last.bodyCompleted();
        boolean inTime = owner.exiting == 0 || run.toldAt < owner.exiting;
        if (failed && inTime && run.node.mode() != null && owner.run.kind.isTransactional()) {
            require(
                    owner.transaction != TransactionOutcome.COMMITTED,
                    () -> owner.run.name + " was committed, although " + run.name + " in it did not succeed");
        }
    }

    private void hooksRanOnce(Attempt attempt) {
        if (attempt.hooked && attempt.session() == attempt) {
            require(attempt.hooks.size() == 1, () -> attempt.run.name + " ran hooks " + attempt.hooks);
            if (attempt.transaction != null && !attempt.hooks.isEmpty() && attempt.run.kind != Kind.SAVEPOINT) {
                require(
                        attempt.hooks.get(0) == attempt.transaction,
                        () -> attempt.run.name + " is " + attempt.transaction + ", and its hook got " + attempt.hooks);
            }
        }
    }

    // what the database keeps ----------------------------------------------------------------------------------------

    private void onlyWhatWasCommittedIsDurable() {
        if (history.lied) {
            return;
        }
        Set<String> durable = new HashSet<>(probe.durable());
        Map<String, State> ends = new HashMap<>();
        probe.calls().forEach(call -> ends.put(call.step(), call.state()));
        for (Asked statement : history.statements.values()) {
            if (!statement.sql.startsWith("write")) {
                continue;
            }
            boolean there = durable.contains(statement.sql);
            boolean done = ends.get(statement.sql) == State.COMPLETED && !statement.altered;
            Boolean kept = isKept(statement.attempt.session());
            if (kept == null) {
                continue;
            }
            Supplier<String> what = () -> statement.sql + " of " + statement.attempt.run.name;
            require(there || !kept || !done, () -> what.get() + " is missing");
            require(!there || kept, () -> what.get() + " should not be there");
        }
    }

    /** Whether what was done in it is kept; {@code null} if that cannot be known. */
    private static @Nullable Boolean isKept(Attempt session) {
        if (session.run.kind == Kind.PLAIN) {
            return true;
        }
        if (session.transaction == TransactionOutcome.UNKNOWN) {
            return null;
        }
        if (session.transaction != TransactionOutcome.COMMITTED) {
            return false;
        }
        Attempt around = session.run.around;
        return session.run.kind != Kind.SAVEPOINT || around == null ? Boolean.TRUE : isKept(around.session());
    }

    /** Faults, what the pipeline raises itself, and what the library documents: nothing that stems from a bug. */
    private void explained(String what, Throwable error) {
        Throwable unwrapped = Exceptions.unwrap(error);
        if (Exceptions.isMultiple(unwrapped)) {
            Exceptions.unwrapMultiple(unwrapped).forEach(part -> explained(what, part));
            return;
        }
        boolean known = unwrapped instanceof ScopeException
                || unwrapped instanceof R2dbcException
                || unwrapped instanceof Code.UsersError
                || unwrapped instanceof TimeoutException
                || Exceptions.isRetryExhausted(unwrapped)
                || Exceptions.isOverflow(unwrapped);
        require(known, () -> what + " that nothing explains: " + unwrapped);
    }

    private void require(boolean holds, Supplier<String> what) {
        history.require(holds, what);
    }
}
