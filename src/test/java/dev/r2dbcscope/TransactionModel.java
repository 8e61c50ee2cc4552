package dev.r2dbcscope;

import dev.r2dbcscope.RandomPipeline.BadStatement;
import dev.r2dbcscope.RandomPipeline.Insert;
import dev.r2dbcscope.RandomPipeline.Node;
import dev.r2dbcscope.RandomPipeline.Scope;
import dev.r2dbcscope.RandomPipeline.Siblings;
import java.util.HashSet;
import java.util.Set;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * What a random pipeline must leave in the database, thought through without any of the library: frames of work that
 * are kept or thrown away as a whole.
 *
 * <p>Given are three facts that depend on time: which scopes timed out, which of those had committed before they did, and
 * which were denied a second connection. What was done without a transaction inside a scope that timed out may or may not
 * have come about; such rows are in {@link #open}, and everything else is exact.
 */
final class TransactionModel {

    /** Rows that must be there. */
    final Set<Integer> durable = new HashSet<>();

    /** Rows that may be there. */
    final Set<Integer> open = new HashSet<>();

    private final Predicate<String> timedOut;
    private final Predicate<String> committed;
    private final Predicate<String> denied;
    private int uncertain;

    TransactionModel(Predicate<String> timedOut, Predicate<String> committed, Predicate<String> denied) {
        this.timedOut = timedOut;
        this.committed = committed;
        this.denied = denied;
    }

    /** Work that shares one fate. */
    private static final class Frame {

        final @Nullable Frame around;
        final boolean transaction;
        final boolean savepoint;
        final Set<Integer> rows = new HashSet<>();
        boolean doomed;
        boolean aborted;

        /** Its savepoint cannot be set, which is noticed at first use: what would join it then is refused at once. */
        boolean closed;

        boolean noticed;

        Frame(@Nullable Frame around, boolean transaction, boolean savepoint) {
            this.around = around;
            this.transaction = transaction;
            this.savepoint = savepoint;
        }
    }

    private enum Result {
        OK,
        ERROR
    }

    /** Adds what the pipeline leaves; says whether it ends without an error. */
    boolean add(Scope pipeline) {
        return scope(pipeline, null) == Result.OK;
    }

    private Result step(Node node, Frame frame) {
        if (node instanceof Insert insert) {
            return insert(insert.row(), frame);
        }
        if (node instanceof BadStatement bad) {
            notice(frame);
            frame.aborted |= frame.transaction;
            return bad.caught() ? Result.OK : Result.ERROR;
        }
        if (node instanceof Siblings siblings) {
            atOnce(siblings, frame);
            return Result.OK;
        }
        return node instanceof Scope scope ? scope(scope, frame) : Result.ERROR;
    }

    /** Which of them notices first that a savepoint cannot be set, and so keeps others from starting, is not known. */
    private void atOnce(Siblings siblings, Frame frame) {
        boolean race = frame.closed && !frame.noticed;
        boolean noticed = false;
        uncertain += race ? 1 : 0;
        for (Node sibling : siblings.steps()) {
            step(sibling, frame);
            if (race) {
                noticed |= frame.noticed;
                forget(frame);
            }
        }
        uncertain -= race ? 1 : 0;
        if (noticed) {
            notice(frame);
        }
    }

    private Result insert(int row, Frame frame) {
        notice(frame);
        if (frame.aborted) {
            return Result.ERROR;
        }
        if (frame.transaction) {
            frame.rows.add(row);
        } else {
            keep(Set.of(row));
        }
        return Result.OK;
    }

    private static void notice(@Nullable Frame frame) {
        if (frame != null && frame.closed) {
            frame.noticed = true;
            notice(frame.around);
        }
    }

    private static void forget(@Nullable Frame frame) {
        if (frame != null && frame.closed) {
            frame.noticed = false;
            forget(frame.around);
        }
    }

    private void keep(Set<Integer> rows) {
        (uncertain > 0 ? open : durable).addAll(rows);
    }

    private Result scope(Scope scope, @Nullable Frame around) {
        Result result = entered(scope, around);
        return scope.caught() ? Result.OK : result;
    }

    private Result entered(Scope scope, @Nullable Frame around) {
        if (denied.test(scope.name())) {
            return Result.ERROR;
        }
        boolean inTransaction = around != null && around.transaction;
        Propagation mode = scope.mode();
        if (mode == null) {
            return around == null ? owned(scope, new Frame(null, false, false)) : joined(scope, around, false);
        }
        return switch (mode) {
            case REQUIRED -> inTransaction ? joined(scope, around, true) : begun(scope);
            case MANDATORY -> inTransaction ? joined(scope, around, true) : Result.ERROR;
            case SUPPORTS ->
                around == null ? owned(scope, new Frame(null, false, false)) : joined(scope, around, inTransaction);
            case REQUIRES_NEW -> begun(scope);
            case NESTED -> inTransaction ? savepoint(scope, around) : begun(scope);
            case NOT_SUPPORTED ->
                inTransaction || around == null
                        ? owned(scope, new Frame(null, false, false))
                        : joined(scope, around, false);
            case NEVER -> {
                if (inTransaction) {
                    yield Result.ERROR;
                }
                yield around == null ? owned(scope, new Frame(null, false, false)) : joined(scope, around, false);
            }
        };
    }

    private Result begun(Scope scope) {
        return owned(scope, new Frame(null, true, false));
    }

    private Result savepoint(Scope scope, Frame around) {
        Frame frame = new Frame(around, true, true);
        if (around.noticed) {
            return Result.ERROR;
        }
        if (around.aborted) {
            if (scope.shape().isClosure()) {
                notice(around);
                return Result.ERROR;
            }
            frame.aborted = true;
            frame.closed = true;
        }
        return owned(scope, frame);
    }

    /** A scope that decides over its own work. */
    private Result owned(Scope scope, Frame frame) {
        boolean gaveUp = timedOut.test(scope.name());
        if (gaveUp && !(frame.transaction && committed.test(scope.name()))) {
            uncertain++;
            body(scope, frame);
            uncertain--;
            return Result.ERROR;
        }
        Result result = body(scope, frame);
        if (result == Result.ERROR) {
            return Result.ERROR;
        }
        if (scope.cancelAfter() >= 0) {
            return Result.OK;
        }
        if (frame.doomed || frame.aborted && !frame.closed) {
            return Result.ERROR;
        }
        if (frame.savepoint && frame.around != null) {
            frame.around.rows.addAll(frame.rows);
        } else if (uncertain == 0 || !frame.transaction) {
            keep(frame.rows);
        } else if (committed.test(scope.name())) {
            durable.addAll(frame.rows);
        }
        return gaveUp ? Result.ERROR : Result.OK;
    }

    private Result joined(Scope scope, @Nullable Frame around, boolean transactional) {
        if (around == null) {
            throw new AssertionError("nothing to join");
        }
        if (timedOut.test(scope.name())) {
            if (around.transaction) {
                throw new AssertionError("whether a joined scope timed out in time cannot be known: " + scope);
            }
            uncertain++;
            body(scope, around);
            uncertain--;
            return Result.ERROR;
        }
        if (around.noticed) {
            return Result.ERROR;
        }
        boolean unopened = around.closed && scope.shape().isClosure();
        if (unopened) {
            notice(around);
        }
        Result result = unopened ? Result.ERROR : body(scope, around);
        if (transactional && (result == Result.ERROR || scope.cancelAfter() >= 0)) {
            around.doomed = true;
        }
        return result;
    }

    private Result body(Scope scope, Frame frame) {
        int last = scope.cancelAfter() < 0 ? scope.steps().size() : scope.cancelAfter();
        for (Node node : scope.steps().subList(0, last)) {
            if (step(node, frame) == Result.ERROR) {
                return Result.ERROR;
            }
        }
        return Result.OK;
    }
}
