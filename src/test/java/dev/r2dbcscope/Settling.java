package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.function.BooleanSupplier;
import reactor.test.subscriber.TestSubscriber;

/** What must be true once everything has come to rest, and how to wait for it. */
public final class Settling {

    /** How often a race is run: less in the gate than in the profile {@code race}, which runs each 20,000 times. */
    public static final int RACES = Integer.getInteger("races", 20_000);

    private static final boolean ALL_SHAPES_IN_FULL = Boolean.getBoolean("races.of.all.shapes");

    private static final Duration LIMIT = Duration.ofSeconds(60);

    private Settling() {}

    /** How often a race is run for each of several shapes of a scope: as often as any race in all, for they share its code. */
    static int races(int shapes) {
        return ALL_SHAPES_IN_FULL ? RACES : (RACES + shapes - 1) / shapes;
    }

    /** Waits, with a generous bound, for something that other threads are about to do. */
    static void await(String what, BooleanSupplier condition) {
        long start = System.nanoTime();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() - start > LIMIT.toNanos()) {
                throw new AssertionError("Not within " + LIMIT + ": " + what);
            }
            Thread.yield();
        }
    }

    /** Nothing is held, nothing was used after its release, nothing was released twice. */
    public static void assertSettled(ConnectionScopes scopes, ProbeConnectionFactory database) {
        await("no scope is live", () -> scopes.live().isEmpty());
        await("no connection is open: " + database, () -> database.live() == 0);
        assertThat(database.violations()).isEmpty();
    }

    /** At most one terminal signal, and no signal that the specification forbids. */
    static void assertOneTerminal(TestSubscriber<?> subscriber) {
        assertThat(subscriber.getProtocolErrors()).isEmpty();
    }
}
