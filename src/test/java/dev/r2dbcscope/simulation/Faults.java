package dev.r2dbcscope.simulation;

import dev.r2dbcscope.simulation.Attempt.Asked;
import dev.r2dbcscope.simulation.Plan.Fault;
import dev.r2dbcscope.simulation.Plan.Mishap;
import dev.r2dbcscope.testkit.ProbeCall;
import dev.r2dbcscope.testkit.ProbeFault;
import dev.r2dbcscope.testkit.ProbeFaults;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.EnumMap;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import reactor.core.publisher.Mono;

/** The faults of a plan, and what the reference model has to know of them. */
final class Faults implements ProbeFaults {

    private final List<Fault> faults;
    private final History history;
    private final Pool pool;
    private final Map<ProbeCall.Kind, Integer> calls = new EnumMap<>(ProbeCall.Kind.class);
    private final Map<ProbeCall, Integer> statements = new IdentityHashMap<>();

    Faults(List<Fault> faults, History history, Pool pool) {
        this.faults = faults;
        this.history = history;
        this.pool = pool;
    }

    @Override
    public ProbeFault at(ProbeCall call) {
        int nth = calls.merge(call.kind(), 1, Integer::sum) - 1;
        look(call);
        if (call.kind() == ProbeCall.Kind.STATEMENT) {
            statements.put(call, nth);
        }
        return find(call, nth, -1);
    }

    @Override
    public ProbeFault atRow(ProbeCall statement, long row) {
        return find(statement, statements.getOrDefault(statement, -1), (int) row);
    }

    private void look(ProbeCall call) {
        Lease lease = pool.lease(call.connection());
        if (lease == null) {
            return;
        }
        if (call.step().startsWith("set ") || call.step().startsWith("restore ")) {
            lease.setting(call);
        } else if (call.kind() == ProbeCall.Kind.CANCEL) {
            lease.cancelling(call).forEach(this::altered);
        }
    }

    private ProbeFault find(ProbeCall call, int nth, int row) {
        for (Fault fault : faults) {
            if (fault.kind() == call.kind() && fault.nth() == nth && fault.row() == row) {
                history.note(() -> "    " + fault.mishap() + " at " + call + (row < 0 ? "" : " row " + row));
                take(fault, call);
                return fault(fault);
            }
        }
        return ProbeFault.none();
    }

    private void take(Fault fault, ProbeCall call) {
        if (fault.mishap() != Mishap.DELAY) {
            altered(call.step());
        }
        switch (call.kind()) {
            case STATEMENT -> history.hung |= fault.mishap() == Mishap.HANG;
            case BEGIN, COMMIT, ROLLBACK, SAVEPOINT, SETTING -> history.lied |= fault.mishap() == Mishap.DROP;
            case CREATE -> history.starved |= fault.mishap() == Mishap.HANG && pool.size() > 0;
            case CLOSE -> history.closesAgain = true;
            default -> {
                // it has nothing to say of transactions
            }
        }
    }

    private void altered(String sql) {
        Asked asked = history.statements.get(sql);
        if (asked != null) {
            asked.altered = true;
        }
    }

    private static ProbeFault fault(Fault fault) {
        return switch (fault.mishap()) {
            case DELAY -> ProbeFault.delay(Duration.ofMillis(fault.millis()));
            case FAIL -> ProbeFault.fail(fault.millis() % 2 == 0 ? "08006" : "23505");
            case FAIL_LATE ->
                ProbeFault.delayUntil(() -> Mono.delay(Duration.ofMillis(fault.millis()))
                        .then(Mono.error(new R2dbcNonTransientResourceException("too late", "08006"))));
            case CONFLICT -> ProbeFault.fail("40001");
            case FAIL_AFTER -> ProbeFault.failAfter("08006");
            case HANG -> ProbeFault.hang();
            case DROP -> ProbeFault.drop();
            case DUPLICATE -> ProbeFault.duplicate();
        };
    }
}
