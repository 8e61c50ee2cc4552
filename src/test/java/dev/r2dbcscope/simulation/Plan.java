package dev.r2dbcscope.simulation;

import dev.r2dbcscope.testkit.ProbeCall;
import java.util.List;

/**
 * All that a run depends on.
 *
 * @param pool the size of the pool; zero for a new connection each time
 * @param faults what goes wrong
 */
record Plan(Node root, Subscriber subscriber, Database database, int pool, Options options, List<Fault> faults) {

    /**
     * What the subscriber does.
     *
     * @param first its first request
     * @param more its later ones, until it wants everything
     * @param everyMillis the time between them
     * @param cancelAtMillis -1 for never
     * @param cancelAfter after how many elements; -1 for never
     */
    record Subscriber(int first, int more, int everyMillis, int cancelAtMillis, int cancelAfter) {

        static Subscriber unbounded() {
            return new Subscriber(Integer.MAX_VALUE, 0, 1, -1, -1);
        }
    }

    /** What the database can do, and whether it serves one step of a connection after the other. */
    record Database(
            boolean inOrder, boolean aborting, boolean cancel, boolean settings, boolean cursors, boolean pipelining) {}

    /** The options of all scopes; times are in milliseconds. */
    record Options(int acquire, int release, int grace, int buffered, int inFlight, int idle) {}

    /** What goes wrong with a step or a row. */
    enum Mishap {
        DELAY,
        FAIL,
        FAIL_LATE,
        CONFLICT,
        FAIL_AFTER,
        HANG,
        DROP,
        DUPLICATE
    }

    /**
     * A fault.
     *
     * @param nth with which of the steps of its kind, counted from 0
     * @param row with which of its rows; -1 for the step itself
     * @param millis how long a delay takes
     */
    record Fault(ProbeCall.Kind kind, int nth, int row, Mishap mishap, int millis) {}

    Plan withRoot(Node changed) {
        return new Plan(changed, subscriber, database, pool, options, faults);
    }

    Plan withSubscriber(Subscriber changed) {
        return new Plan(root, changed, database, pool, options, faults);
    }

    Plan withDatabase(Database changed) {
        return new Plan(root, subscriber, changed, pool, options, faults);
    }

    Plan withPool(int changed) {
        return new Plan(root, subscriber, database, changed, options, faults);
    }

    Plan withFaults(List<Fault> changed) {
        return new Plan(root, subscriber, database, pool, options, changed);
    }

    boolean has(ProbeCall.Kind kind, Mishap mishap) {
        return faults.stream().anyMatch(fault -> fault.kind() == kind && fault.mishap() == mishap);
    }

    @Override
    public String toString() {
        StringBuilder text = new StringBuilder();
        text.append(subscriber)
                .append('\n')
                .append(database)
                .append(", pool ")
                .append(pool)
                .append('\n');
        text.append(options).append('\n');
        faults.forEach(fault -> text.append(fault).append('\n'));
        write(root, "", text);
        return text.toString();
    }

    private static void write(Node node, String indent, StringBuilder text) {
        String whole = node.toString();
        for (Node child : node.children()) {
            whole = whole.replace(child.toString(), "_");
        }
        text.append(indent).append(whole).append('\n');
        node.children().forEach(child -> write(child, indent + "  ", text));
    }
}
