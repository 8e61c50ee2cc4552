package dev.r2dbcscope.simulation;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

/** Finds a smaller plan that fails as well. */
final class Shrinker {

    private static final int MOST_RUNS = 3_000;

    private final Predicate<Plan> fails;
    private int runs;

    private Shrinker(Predicate<Plan> fails) {
        this.fails = fails;
    }

    static Plan shrink(Plan failing, Predicate<Plan> fails) {
        return new Shrinker(fails).shrink(failing);
    }

    private Plan shrink(Plan failing) {
        Plan smallest = failing;
        boolean smaller = true;
        while (smaller) {
            smaller = false;
            for (Plan candidate : candidates(smallest)) {
                if (runs++ > MOST_RUNS) {
                    return smallest;
                }
                if (fails.test(candidate)) {
                    smallest = candidate;
                    smaller = true;
                    break;
                }
            }
        }
        return smallest;
    }

    private static List<Plan> candidates(Plan plan) {
        List<Plan> candidates = new ArrayList<>();
        for (int i = 0; i < plan.faults().size(); i++) {
            List<Plan.Fault> fewer = new ArrayList<>(plan.faults());
            fewer.remove(i);
            candidates.add(plan.withFaults(fewer));
        }
        smaller(plan.root(), false).forEach(root -> candidates.add(plan.withRoot(root)));
        if (!plan.subscriber().equals(Plan.Subscriber.unbounded())) {
            candidates.add(plan.withSubscriber(Plan.Subscriber.unbounded()));
        }
        if (plan.subscriber().first() != Integer.MAX_VALUE) {
            Plan.Subscriber old = plan.subscriber();
            candidates.add(plan.withSubscriber(
                    new Plan.Subscriber(Integer.MAX_VALUE, 0, 1, old.cancelAtMillis(), old.cancelAfter())));
        }
        if (plan.pool() > 0) {
            candidates.add(plan.withPool(0));
        }
        Plan.Database all = plan.database();
        for (Plan.Database fewer : List.of(
                new Plan.Database(true, all.aborting(), all.cancel(), all.settings(), all.cursors(), all.pipelining()),
                new Plan.Database(all.inOrder(), false, all.cancel(), all.settings(), all.cursors(), all.pipelining()),
                new Plan.Database(
                        all.inOrder(), all.aborting(), false, all.settings(), all.cursors(), all.pipelining()),
                new Plan.Database(all.inOrder(), all.aborting(), all.cancel(), false, all.cursors(), all.pipelining()),
                new Plan.Database(all.inOrder(), all.aborting(), all.cancel(), all.settings(), false, all.pipelining()),
                new Plan.Database(all.inOrder(), all.aborting(), all.cancel(), all.settings(), all.cursors(), false))) {
            if (!fewer.equals(all)) {
                candidates.add(plan.withDatabase(fewer));
            }
        }
        return candidates;
    }

    /** Trees in which one node is simpler, the simplest first. */
    private static List<Node> smaller(Node node, boolean inside) {
        List<Node> smaller = new ArrayList<>();
        boolean within = inside || node instanceof Node.Scope;
        if (!(node instanceof Node.Values) && inside) {
            smaller.add(new Node.Values(1));
        }
        for (Node child : node.children()) {
            if (inside || !needsScope(child)) {
                smaller.add(child);
            }
        }
        if (node instanceof Node.Many many && many.parts().size() > 1) {
            for (int i = 0; i < many.parts().size(); i++) {
                List<Node> fewer = new ArrayList<>(many.parts());
                fewer.remove(i);
                smaller.add(many.with(fewer));
            }
        }
        if (node instanceof Node.Scope scope && !scope.equals(scope.plainest())) {
            smaller.add(scope.plainest());
        }
        if (node instanceof Node.Query query && query.rows() > 1) {
            smaller.add(new Node.Query(query.reading(), 1, query.fetchSize(), query.byHandle()));
        }
        List<Node> children = node.children();
        for (int i = 0; i < children.size(); i++) {
            for (Node simpler : smaller(children.get(i), within)) {
                List<Node> changed = new ArrayList<>(children);
                changed.set(i, simpler);
                smaller.add(node.with(changed));
            }
        }
        return smaller;
    }

    private static boolean needsScope(Node node) {
        return node instanceof Node.Query
                || node instanceof Node.Stray
                || node instanceof Node.Doom
                || !(node instanceof Node.Scope) && node.children().stream().anyMatch(Shrinker::needsScope);
    }
}
