package dev.r2dbcscope.simulation;

import dev.r2dbcscope.OnCancel;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.simulation.Node.Joint;
import dev.r2dbcscope.simulation.Node.Mapping;
import dev.r2dbcscope.simulation.Node.Operator;
import dev.r2dbcscope.simulation.Node.Reading;
import dev.r2dbcscope.simulation.Node.Shape;
import dev.r2dbcscope.simulation.Plan.Fault;
import dev.r2dbcscope.simulation.Plan.Mishap;
import dev.r2dbcscope.testkit.ProbeCall;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;

/** Plans at random: the same seed gives the same plan. */
final class Plans {

    private static final int DEPTH = 7;
    private static final ProbeCall.Kind[] KINDS = {
        ProbeCall.Kind.CREATE,
        ProbeCall.Kind.BEGIN,
        ProbeCall.Kind.GUARD,
        ProbeCall.Kind.STATEMENT,
        ProbeCall.Kind.STATEMENT,
        ProbeCall.Kind.STATEMENT,
        ProbeCall.Kind.STATEMENT,
        ProbeCall.Kind.COMMIT,
        ProbeCall.Kind.ROLLBACK,
        ProbeCall.Kind.SAVEPOINT,
        ProbeCall.Kind.SETTING,
        ProbeCall.Kind.CANCEL,
        ProbeCall.Kind.VALIDATE,
        ProbeCall.Kind.CLOSE
    };

    private final SplittableRandom random;
    private int size;

    private Plans(long seed) {
        // neighbouring seeds are to give plans that have nothing in common
        this.random = new SplittableRandom(seed).split();
        this.size = 2 + below(14);
    }

    static Plan of(long seed) {
        return new Plans(seed).plan();
    }

    private Plan plan() {
        Node root = outside(0);
        int pool = oneIn(2) ? 1 + below(3) : 0;
        boolean inOrder = !oneIn(8);
        Plan.Database database =
                new Plan.Database(inOrder, oneIn(2), oneIn(2), oneIn(4), oneIn(3), inOrder && oneIn(2));
        Plan.Options options = new Plan.Options(
                pick(200, 1_000, 5_000),
                pick(100, 1_000, 5_000),
                pick(1, 50, 10_000),
                pick(1, 4, 1_000),
                pick(1, 2, 64),
                oneIn(8) ? pick(50, 2_000) : 0);
        return new Plan(root, subscriber(), database, pool, options, faults());
    }

    private Plan.Subscriber subscriber() {
        int first = pick(Integer.MAX_VALUE, Integer.MAX_VALUE, 0, 1, 2, 5);
        int cancelAt = oneIn(4) ? below(pick(1, 30, 300, 3_000)) : -1;
        int cancelAfter = oneIn(6) ? 1 + below(4) : -1;
        return new Plan.Subscriber(first, 1 + below(4), 1 + below(50), cancelAt, cancelAfter);
    }

    private List<Fault> faults() {
        List<Fault> faults = new ArrayList<>();
        int count = Math.max(0, below(6) - 2);
        for (int i = 0; i < count; i++) {
            ProbeCall.Kind kind = KINDS[below(KINDS.length)];
            int row = kind == ProbeCall.Kind.STATEMENT && oneIn(3) ? below(4) : -1;
            Mishap mishap = Mishap.values()[below(Mishap.values().length)];
            if (kind == ProbeCall.Kind.CREATE && mishap == Mishap.FAIL_AFTER) {
                mishap = Mishap.FAIL; // nobody could give back a connection that came with an error
            }
            if (kind == ProbeCall.Kind.GUARD) {
                mishap = oneIn(2) ? Mishap.DELAY : Mishap.HANG; // nothing guards the guard
            }
            int nth = below(pick(1, 3, kind == ProbeCall.Kind.STATEMENT ? 12 : 4));
            faults.add(new Fault(kind, nth, row, mishap, 1 + below(pick(5, 100, 10_000))));
        }
        return faults;
    }

    private Node outside(int depth) {
        return node(depth, false);
    }

    private Node node(int depth, boolean inside) {
        if (--size < 0 || depth >= DEPTH) {
            return inside ? leaf() : scope(depth, leaf());
        }
        int kind = below(20);
        if (!inside && kind >= 14) {
            kind = 0;
        }
        if (kind < 5) {
            return scope(depth, node(depth + 1, true));
        }
        if (kind < 9) {
            return operator(node(depth + 1, inside));
        }
        if (kind < 11) {
            return new Node.Each(any(Mapping.values()), 1 + below(4), node(depth + 1, inside), node(depth + 1, inside));
        }
        if (kind < 14) {
            List<Node> parts = new ArrayList<>();
            int count = 2 + below(2);
            for (int i = 0; i < count; i++) {
                parts.add(node(depth + 1, inside));
            }
            return new Node.Many(any(Joint.values()), parts);
        }
        return leaf();
    }

    private Node leaf() {
        return switch (below(24)) {
            case 0 -> new Node.Values(below(4));
            case 1 -> new Node.Fail();
            case 2, 3 -> new Node.Pause(below(pick(3, 50, 2_000)));
            case 4 -> new Node.Stray(below(pick(1, 10, 500)), oneIn(2));
            case 5 -> oneIn(3) ? new Node.Doom() : new Node.Pause(0);
            default -> {
                Reading reading = oneIn(2) ? Reading.ROWS : any(Reading.values());
                yield new Node.Query(
                        reading, oneIn(16) ? 40 : pick(0, 1, 1, 2, 3, 5), oneIn(4) ? 1 + below(3) : 0, oneIn(2));
            }
        };
    }

    private Node.Scope scope(int depth, Node body) {
        Propagation mode = oneIn(3) ? null : any(Propagation.values());
        if (depth == 0 && mode == Propagation.MANDATORY) {
            mode = Propagation.REQUIRED;
        }
        Shape shape = any(Shape.values());
        OnCancel onCancel = mode != null && oneIn(3) ? any(OnCancel.values()) : OnCancel.ROLLBACK;
        int held = mode != null && !shape.isMono() && oneIn(5) ? pick(1, 3, 100) : 0;
        int retries = mode != null && (shape.isMono() || held > 0) && oneIn(4) ? 1 + below(2) : 0;
        return new Node.Scope(
                mode, shape, onCancel, held, retries, oneIn(10) ? 1 + below(pick(20, 2_000)) : 0, oneIn(6), body);
    }

    private Node operator(Node source) {
        Operator operator = any(Operator.values());
        int n = switch (operator) {
            case TIMEOUT, TAKE_UNTIL_OTHER -> 1 + below(pick(2, 30, 500, 8_000));
            case DELAY_ELEMENTS, DELAY_SUBSCRIPTION -> 1 + below(pick(3, 100));
            case RETRY, REPEAT -> 1 + below(2);
            default -> 1 + below(3);
        };
        return new Node.Op(operator, n, source);
    }

    private int below(int bound) {
        return random.nextInt(bound);
    }

    private boolean oneIn(int n) {
        return random.nextInt(n) == 0;
    }

    private int pick(int... choices) {
        return choices[below(choices.length)];
    }

    private <T> T any(T[] choices) {
        return choices[below(choices.length)];
    }

    /** What a scope is inside another one, by the documentation of {@link Propagation}. */
    static Attempt.Kind kind(@Nullable Propagation mode, Attempt.@Nullable Kind around) {
        boolean inTransaction = around != null && around.isTransactional();
        if (mode == null) {
            return around == null ? Attempt.Kind.PLAIN : Attempt.Kind.JOINED;
        }
        return switch (mode) {
            case REQUIRED -> inTransaction ? Attempt.Kind.JOINED : begun(around);
            case NESTED -> inTransaction ? Attempt.Kind.SAVEPOINT : begun(around);
            case REQUIRES_NEW -> inTransaction ? Attempt.Kind.TRANSACTION : begun(around);
            case MANDATORY -> inTransaction ? Attempt.Kind.JOINED : Attempt.Kind.REFUSED;
            case SUPPORTS -> around == null ? Attempt.Kind.PLAIN : Attempt.Kind.JOINED;
            case NOT_SUPPORTED -> around == null || inTransaction ? Attempt.Kind.PLAIN : Attempt.Kind.JOINED;
            case NEVER -> {
                if (inTransaction) {
                    yield Attempt.Kind.REFUSED;
                }
                yield around == null ? Attempt.Kind.PLAIN : Attempt.Kind.JOINED;
            }
        };
    }

    private static Attempt.Kind begun(Attempt.@Nullable Kind around) {
        return around == null ? Attempt.Kind.TRANSACTION : Attempt.Kind.SECTION;
    }
}
