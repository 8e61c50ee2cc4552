package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.FaultyProxy;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.Exceptions;
import reactor.core.publisher.Hooks;
import reactor.netty.channel.AbortedException;

/**
 * Random scopes on a real pool and a real server, while the network breaks, the server ends or cancels what it runs, or goes away and comes back, at
 * every phase. After each case: nothing hangs, everybody was told the right kind of error, the pool is whole, and exactly what was acknowledged is
 * durable.
 *
 * <p>A case is decided by its seed, as far as the timing allows: {@code -Dfaults.seed=N} runs it alone.
 */
class RandomFaultsIT {

    /** Longer than any case may take. */
    static final Duration NEVER = Duration.ofMinutes(10);

    private static final int SHORT = 120;
    private static final int LONG = 2_000;
    private static final int LARGEST_POOL = 4;

    private final OwnPostgres server = new OwnPostgres();
    private final List<FaultedPool> pools = new ArrayList<>();
    private final AtomicInteger ids = new AtomicInteger(1);
    private final List<Throwable> dropped = new CopyOnWriteArrayList<>();
    private final Map<FaultedScope.End, Integer> ends = new EnumMap<>(FaultedScope.End.class);
    private final Map<String, Integer> errors = new TreeMap<>();
    private int struck;

    @BeforeEach
    void prepare() {
        server.execute("create table fault_rows (id int primary key)");
        for (int size = 1; size <= LARGEST_POOL; size++) {
            pools.add(new FaultedPool(size, server));
        }
        Hooks.onErrorDropped(dropped::add);
    }

    @AfterEach
    void cleanUp() throws IOException {
        Hooks.resetOnErrorDropped();
        pools.forEach(FaultedPool::close);
        server.close();
    }

    @Test
    void leaveEverythingInOrder() {
        run(Integer.getInteger("faults", SHORT), 40);
    }

    /** Some minutes: profile soak. */
    @Test
    @Tag("soak")
    void leaveEverythingInOrderManyTimes() {
        run(Integer.getInteger("faults", LONG), 40);
    }

    private void run(int cases, int casesPerRestart) {
        Long only = Long.getLong("faults.seed");
        long first = only == null ? Long.getLong("faults.first", 1L) : only;
        long start = System.nanoTime();
        for (long seed = first; seed < first + (only == null ? cases : 1); seed++) {
            run(seed, seed % casesPerRestart == 0);
        }
        System.out.printf(
                "RandomFaultsIT: %d cases from seed %d, %d struck, in %d s; scopes %s; errors %s; dropped outside %d%n",
                cases,
                first,
                struck,
                Duration.ofNanos(System.nanoTime() - start).toSeconds(),
                ends,
                errors,
                dropped.size());
        if (only == null && cases >= SHORT) {
            assertThat(ends).containsOnlyKeys(FaultedScope.End.values());
            assertThat(struck).isGreaterThan(cases / 3);
        }
        assertThat(server.ints("select count(*)::int from pg_stat_activity where state like '%transaction%'"))
                .containsExactly(0);
    }

    /** The driver has nobody to tell that it could not send, and who waits for the answer is told otherwise. */
    private static boolean isOfTheDriver(Throwable error) {
        return FaultedScope.isOfTheDatabase(error)
                || Exceptions.isErrorCallbackNotImplemented(error)
                        && (error.getCause() instanceof IOException || error.getCause() instanceof AbortedException);
    }

    private void run(long seed, boolean restarts) {
        Random random = new Random(seed * 0x9E3779B97F4A7C15L);
        FaultedPool pool = pools.get(random.nextInt(pools.size()));
        FaultScript script = restarts ? FaultScript.restart(random) : FaultScript.random(random);
        int count = 1 + random.nextInt(8);
        int firstId = ids.get();
        List<FaultedScope> scopes = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            scopes.add(new FaultedScope("scope-" + i, random, pool.scopes(), script, ids));
        }
        String here = "seed " + seed + ", pool of " + pool.size() + ", " + script;
        try {
            script.arm(pool);
            scopes.forEach(FaultedScope::start);
            Await.until(() -> scopes.stream().allMatch(FaultedScope::isOver), () -> "not over");
            Await.until(() -> !script.isBusy(), () -> "the fault is not over");
            pool.assertWhole();
            Set<Integer> durable = new HashSet<>(server.ints("select id from fault_rows where id >= " + firstId));
            List<String> offences =
                    scopes.stream().flatMap(scope -> scope.offences(durable).stream()).toList();
            assertThat(offences).isEmpty();
            assertThat(dropped).allMatch(RandomFaultsIT::isOfTheDriver);
        } catch (Throwable e) {
            throw new AssertionError(
                    "-Dfaults.seed=" + seed + ": " + here + "; " + scopes + "; live " + pool.scopes().live(), e);
        }
        struck += script.hasStruck() ? 1 : 0;
        for (FaultedScope scope : scopes) {
            ends.merge(scope.end(), 1, Integer::sum);
            Throwable error = scope.error();
            if (error != null) {
                errors.merge(error.getClass().getSimpleName(), 1, Integer::sum);
            }
        }
    }
}
