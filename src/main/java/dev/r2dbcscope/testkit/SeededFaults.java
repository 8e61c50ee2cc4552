package dev.r2dbcscope.testkit;

import java.time.Duration;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Function;

/**
 * Faults at random, which are the same for the same seed as long as the steps come in the same order: on one thread, as in
 * virtual time.
 *
 * <p>Without further ado each step but the closing is delayed, fails or hangs with a chance of 1 in 20. Thread-safe; the
 * methods that begin with {@code with} return changed copies, which begin again with the seed.
 */
public final class SeededFaults implements ProbeFaults {

    private static final double CHANCE = 0.05;

    private final long seed;
    private final Map<ProbeCall.Kind, Double> chances;
    private final double chanceOfRow;
    private final Function<Random, ProbeFault> choice;
    private final Random random;

    private SeededFaults(
            long seed, Map<ProbeCall.Kind, Double> chances, double chanceOfRow, Function<Random, ProbeFault> choice) {
        this.seed = seed;
        this.chances = chances;
        this.chanceOfRow = chanceOfRow;
        this.choice = choice;
        this.random = new Random(seed);
    }

    /**
     * Faults of a seed.
     *
     * @param seed the seed; print it when a test fails
     * @return the faults
     */
    public static SeededFaults of(long seed) {
        Map<ProbeCall.Kind, Double> chances = new EnumMap<>(ProbeCall.Kind.class);
        for (ProbeCall.Kind kind : ProbeCall.Kind.values()) {
            chances.put(kind, kind == ProbeCall.Kind.CLOSE ? 0 : CHANCE);
        }
        return new SeededFaults(seed, chances, 0, SeededFaults::delayFailOrHang);
    }

    private static ProbeFault delayFailOrHang(Random random) {
        return switch (random.nextInt(3)) {
            case 0 -> ProbeFault.delay(Duration.ofMillis(1 + random.nextInt(1_000)));
            case 1 -> ProbeFault.fail("08006");
            default -> ProbeFault.hang();
        };
    }

    /**
     * How often a kind of step has a fault.
     *
     * @param kind the kind
     * @param chance from 0, never, to 1, always; 0.05 by default, and 0 for {@link ProbeCall.Kind#CLOSE}
     * @return a copy
     * @throws IllegalArgumentException if the chance is not between 0 and 1
     */
    public SeededFaults withChance(ProbeCall.Kind kind, double chance) {
        Map<ProbeCall.Kind, Double> changed = new EnumMap<>(chances);
        changed.put(kind, checked(chance));
        return new SeededFaults(seed, changed, chanceOfRow, choice);
    }

    /**
     * How often a row has a fault.
     *
     * @param chance from 0, never, to 1, always; 0 by default
     * @return a copy
     * @throws IllegalArgumentException if the chance is not between 0 and 1
     */
    public SeededFaults withChanceOfRow(double chance) {
        return new SeededFaults(seed, chances, checked(chance), choice);
    }

    /**
     * What may go wrong.
     *
     * @param faults the faults, each as likely as the others
     * @return a copy
     * @throws IllegalArgumentException if there are none
     */
    public SeededFaults withFaults(ProbeFault... faults) {
        List<ProbeFault> all = List.of(faults);
        if (all.isEmpty()) {
            throw new IllegalArgumentException("faults: at least one is needed");
        }
        return new SeededFaults(seed, chances, chanceOfRow, random -> all.get(random.nextInt(all.size())));
    }

    private static double checked(double chance) {
        if (!(chance >= 0 && chance <= 1)) {
            throw new IllegalArgumentException("chance must be between 0 and 1, but is " + chance);
        }
        return chance;
    }

    @Override
    public ProbeFault at(ProbeCall call) {
        return choose(chances.getOrDefault(call.kind(), 0.0));
    }

    @Override
    public ProbeFault atRow(ProbeCall statement, long row) {
        return chanceOfRow == 0 ? ProbeFault.none() : choose(chanceOfRow);
    }

    private synchronized ProbeFault choose(double chance) {
        return random.nextDouble() < chance ? choice.apply(random) : ProbeFault.none();
    }

    @Override
    public String toString() {
        return "seed " + seed;
    }
}
