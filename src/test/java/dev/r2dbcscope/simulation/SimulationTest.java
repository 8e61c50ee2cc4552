package dev.r2dbcscope.simulation;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.slf4j.LoggerFactory;
import reactor.core.scheduler.NonBlocking;

/**
 * Random pipelines over a scripted database in virtual time, with random faults, cancels and demand; after each run the
 * {@link Invariants} hold, and none was offended on the way, see {@link History} and {@link Lease}.
 *
 * <p>A failure prints its seed, the smallest pipeline that fails alike, and all that happened in it. {@code
 * -Dsimulation.seed=N} repeats one seed, and {@code -Dsimulation.runs=N} runs as many from there on.
 */
class SimulationTest {

    private static final @Nullable Long SEED = Long.getLong("simulation.seed");
    private static final long FIRST = SEED == null ? 1 : SEED;

    private static final Logger LOG = (Logger) LoggerFactory.getLogger(Logger.ROOT_LOGGER_NAME);
    private static final Level LEVEL = LOG.getLevel();

    /** What the faults do is logged, thousands of times, and writing a log blocks. */
    @BeforeAll
    static void turnLogOff() {
        LOG.setLevel(Level.OFF);
    }

    @AfterAll
    static void turnLogOn() {
        LOG.setLevel(LEVEL);
    }

    /** Of the two that differ in length only, the short one. */
    @Test
    @Tag("simulation")
    void everyRunIsSound() throws InterruptedException {
        runAll(Integer.getInteger("simulation.runs", SEED == null ? 20_000 : 1));
    }

    @Test
    @Tag("soak")
    void everyRunOfAMillionIsSound() throws InterruptedException {
        runAll(Integer.getInteger("simulation.runs", 1_000_000));
    }

    private static void runAll(int runs) throws InterruptedException {
        List<String> failures = new ArrayList<>();
        long start = System.nanoTime();
        long[] statements = new long[1];
        Simulation.run(Plans.of(0)); // what is loaded once, which blocks, is loaded here
        onNonBlockingThread(() -> {
            for (long seed = FIRST; seed < FIRST + runs && failures.size() < 3; seed++) {
                Simulation.Outcome outcome = Simulation.run(Plans.of(seed));
                statements[0] += outcome.statements();
                if (!outcome.isSound()) {
                    failures.add(describe(seed, outcome));
                } else if (seed % 100 == 0 && !repeats(Plans.of(seed))) {
                    failures.add("-Dsimulation.seed=" + seed + " gives something else the second time");
                }
            }
        });
        System.out.printf(
                "SimulationTest: %d runs, %d statements, %d ms%n",
                runs, statements[0], (System.nanoTime() - start) / 1_000_000);
        assertThat(failures).isEmpty();
    }

    private static boolean repeats(Plan plan) {
        return Simulation.record(plan).log().equals(Simulation.record(plan).log());
    }

    private static String describe(long seed, Simulation.Outcome outcome) {
        String first = kind(outcome);
        Plan shrunk = Shrinker.shrink(outcome.plan(), plan -> {
            Simulation.Outcome candidate = Simulation.run(plan);
            return !candidate.isSound() && kind(candidate).equals(first);
        });
        return "-Dsimulation.seed=" + seed + " " + outcome.offences() + "\nthe smallest alike:\n"
                + Simulation.run(shrunk);
    }

    private static String kind(Simulation.Outcome outcome) {
        return outcome.offences().get(0).replaceAll("[0-9]+", "");
    }

    /** A thread on which BlockHound allows no blocking. */
    private static final class SimulationThread extends Thread implements NonBlocking {
        SimulationThread(Runnable task) {
            super(task, "simulation");
        }
    }

    private static void onNonBlockingThread(Runnable task) throws InterruptedException {
        AtomicReference<@Nullable Throwable> thrown = new AtomicReference<>();
        Thread thread = new SimulationThread(() -> {
            try {
                task.run();
            } catch (Throwable e) {
                thrown.set(e);
            }
        });
        thread.start();
        thread.join();
        assertThat(thrown.get()).isNull();
    }
}
