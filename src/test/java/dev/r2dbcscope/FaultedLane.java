package dev.r2dbcscope;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;

/** Runs cases of {@link RandomFaultsIT} one after the other, with pools and row numbers of its own. */
final class FaultedLane implements AutoCloseable {

    private static final int LARGEST_POOL = 4;
    private static final int ROWS = 100_000_000;

    private final OwnPostgres server;
    private final List<FaultedPool> pools = new ArrayList<>();
    private final int limit;
    private final AtomicInteger ids;

    /** A case that has been run. */
    record Case(FaultScript script, List<FaultedScope> scopes) {}

    FaultedLane(OwnPostgres server, int number) {
        this.server = server;
        this.ids = new AtomicInteger(number * ROWS);
        this.limit = (number + 1) * ROWS;
        for (int size = 1; size <= LARGEST_POOL; size++) {
            pools.add(new FaultedPool(size, server));
        }
    }

    /** Throws an error that says how to run it again if something is not as it must be. */
    Case run(long seed, boolean restarts) {
        Random random = new Random(seed * 0x9E3779B97F4A7C15L);
        FaultedPool pool = pools.get(random.nextInt(pools.size()));
        FaultScript script = restarts ? FaultScript.restart(random) : FaultScript.random(random);
        int count = 1 + random.nextInt(8);
        int first = ids.get();
        List<FaultedScope> scopes = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            scopes.add(new FaultedScope("scope-" + i, random, pool.scopes(), script, ids));
        }
        try {
            script.arm(pool);
            scopes.forEach(FaultedScope::start);
            Await.until(() -> scopes.stream().allMatch(FaultedScope::isOver), () -> "not over");
            pool.mend();
            Await.until(() -> !script.isBusy(), () -> "the fault is not over");
            pool.assertWhole();
            judge(scopes, first);
        } catch (Throwable e) {
            AssertionError failure = new AssertionError(
                    "-Dfaults.seed=" + seed + ": pool of " + pool.size() + ", " + script + "; " + scopes + "; live "
                            + pool.scopes().live(),
                    e);
            pools.set(pools.indexOf(pool), new FaultedPool(pool.size(), server)); // the next case is not to inherit it
            throw failure;
        }
        if (restarts) {
            pools.forEach(FaultedPool::assertWhole);
        }
        return new Case(script, scopes);
    }

    private void judge(List<FaultedScope> scopes, int first) {
        Set<Integer> durable =
                new HashSet<>(server.ints("select id from fault_rows where id >= " + first + " and id < " + limit));
        List<String> offences = scopes.stream()
                .flatMap(scope -> scope.offences(durable).stream())
                .toList();
        if (!offences.isEmpty()) {
            throw new AssertionError(String.join("\n", offences));
        }
    }

    @Override
    public void close() {
        pools.forEach(FaultedPool::close);
    }
}
