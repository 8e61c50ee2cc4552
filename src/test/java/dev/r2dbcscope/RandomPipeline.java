package dev.r2dbcscope;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * A random program of nested scopes, up to four deep, as data: run by {@link RandomPipelineRun}, and understood by the
 * reference model in {@link TransactionModel}. The same seed gives the same program.
 */
final class RandomPipeline {

    /** One step of a program. */
    sealed interface Node permits Insert, BadStatement, Fail, Siblings, Scope {}

    /** Writes one row. */
    record Insert(int row) implements Node {}

    /** A statement that the database refuses; in a transaction it refuses everything after it too. */
    record BadStatement(boolean caught) implements Node {}

    /** The user's own error. */
    record Fail() implements Node {}

    /** Steps that run at once, each with its errors caught. */
    record Siblings(List<Node> steps) implements Node {}

    /**
     * A scope.
     *
     * @param mode the propagation, or {@code null} for a plain scope
     * @param cancelAfter after how many of its steps its subscriber cancels it; -1 for never
     * @param timeoutMicros after how long its subscriber gives up; 0 for never
     * @param caught whether its error is caught around it
     */
    record Scope(
            String name,
            @Nullable Propagation mode,
            Shape shape,
            List<Node> steps,
            int cancelAfter,
            int timeoutMicros,
            boolean caught)
            implements Node {}

    /** How a scope is written. */
    enum Shape {
        MONO_CLOSURE,
        FLUX_CLOSURE,
        MONO_OPERATOR,
        FLUX_OPERATOR;

        boolean isClosure() {
            return this == MONO_CLOSURE || this == FLUX_CLOSURE;
        }
    }

    private static final int DEPTH = 4;

    private final Random random;
    private final String prefix;
    private final AtomicInteger rows;
    private int scopes;

    private RandomPipeline(long seed, AtomicInteger rows) {
        this.random = new Random(seed);
        this.prefix = "p" + seed + ".";
        this.rows = rows;
    }

    static Scope of(long seed, AtomicInteger rows) {
        return new RandomPipeline(seed, rows).scope(1);
    }

    private Scope scope(int depth) {
        Propagation mode =
                random.nextInt(5) == 0 ? null : Propagation.values()[random.nextInt(Propagation.values().length)];
        if (depth == 1 && mode == Propagation.MANDATORY && random.nextInt(4) > 0) {
            mode = Propagation.REQUIRED;
        }
        return scope(depth, mode);
    }

    private Scope scope(int depth, @Nullable Propagation mode) {
        boolean independent = mode == Propagation.REQUIRES_NEW || mode == Propagation.NOT_SUPPORTED;
        Shape shape = Shape.values()[random.nextInt(independent ? 2 : 4)];
        List<Node> steps = new ArrayList<>();
        int count = 1 + random.nextInt(4);
        for (int i = 0; i < count; i++) {
            steps.add(step(depth));
        }
        int cancelAfter = random.nextInt(8) == 0 ? random.nextInt(count + 1) : -1;
        boolean owns = depth == 1 || independent || mode == Propagation.NESTED;
        int timeout = owns && cancelAfter < 0 && random.nextInt(8) == 0 ? 1 + random.nextInt(15_000) : 0;
        return new Scope(prefix + scopes++, mode, shape, steps, cancelAfter, timeout, random.nextInt(3) > 0);
    }

    private Node step(int depth) {
        int kind = random.nextInt(20);
        if (depth < DEPTH && kind < 7) {
            return scope(depth + 1);
        }
        return switch (kind) {
            case 7 -> new Fail();
            case 8 -> new BadStatement(random.nextBoolean());
            case 9, 10 -> siblings(depth);
            default -> insert();
        };
    }

    private Insert insert() {
        return new Insert(rows.incrementAndGet());
    }

    /** Only such as do not care for the order in which they run. */
    private Siblings siblings(int depth) {
        List<Node> steps = new ArrayList<>();
        int count = 2 + random.nextInt(3);
        for (int i = 0; i < count; i++) {
            steps.add(depth < DEPTH && random.nextBoolean() ? scope(depth + 1, Propagation.NESTED) : insert());
        }
        return new Siblings(steps);
    }
}
