package dev.r2dbcscope.testkit;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import java.util.Objects;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/**
 * Asserts after each test that everything it opened was given back, see {@link LeakAssertions}. For JUnit 5 and 6, of which
 * it needs {@code org.junit.jupiter:junit-jupiter-api}.
 *
 * <p>Where the test makes its factories, it registers an extension of its own:
 *
 * <pre>{@code
 * @RegisterExtension
 * static final LeakExtension leaks = LeakExtension.of();
 *
 * static final ConnectionFactory connections = leaks.watch(pool);
 * }</pre>
 *
 * <p>Where a framework makes them, they are watched by {@link LeakAssertions#shared()}, in a {@code BeanPostProcessor} of
 * the test's Spring configuration for instance, and the tests have {@code @ExtendWith(LeakExtension.class)}.
 *
 * <p>What is held when a test begins, by {@code @BeforeAll} or as the leak of an earlier test, is not held against it; what
 * {@code @BeforeEach} opens, {@code @AfterEach} has to close. A pool should outlive the tests: where {@code @AfterEach} closes
 * it, call {@link LeakAssertions#assertNothingHeld()} there, before that. A test that fails by itself has its own error, with the leak
 * suppressed under it.
 *
 * <p>Immutable.
 */
public final class LeakExtension implements BeforeEachCallback, AfterEachCallback {

    private static final Duration PATIENCE = Duration.ofSeconds(10);

    private final LeakAssertions leaks;
    private final Duration patience;

    /** Called by JUnit for {@code @ExtendWith}: for what {@link LeakAssertions#shared()} watches. */
    public LeakExtension() {
        this(LeakAssertions.shared(), PATIENCE);
    }

    private LeakExtension(LeakAssertions leaks, Duration patience) {
        this.leaks = leaks;
        this.patience = patience;
    }

    /**
     * Makes one with a {@link LeakAssertions} of its own, which watches nothing yet.
     *
     * @return a new one
     */
    public static LeakExtension of() {
        return of(LeakAssertions.of());
    }

    /**
     * Makes one for something that watches already.
     *
     * @param leaks what is to be asked after each test
     * @return a new one
     */
    public static LeakExtension of(LeakAssertions leaks) {
        return new LeakExtension(Objects.requireNonNull(leaks, "leaks"), PATIENCE);
    }

    /**
     * Sets how long it waits after a test for what is still on its way back. A test that leaks nothing does not wait.
     *
     * @param patience the bound of the wait, which must not be negative; ten seconds by default
     * @return a copy that watches the same
     * @throws IllegalArgumentException if it is negative
     */
    public LeakExtension withPatience(Duration patience) {
        if (Objects.requireNonNull(patience, "patience").isNegative()) {
            throw new IllegalArgumentException("patience must not be negative: " + patience);
        }
        return new LeakExtension(leaks, patience);
    }

    /**
     * Watches a factory, see {@link LeakAssertions#watch(ConnectionFactory)}.
     *
     * @param factory the factory
     * @return the factory to use instead
     */
    public ConnectionFactory watch(ConnectionFactory factory) {
        return leaks.watch(factory);
    }

    /**
     * Watches scopes on a factory that is not watched itself, see {@link LeakAssertions#watch(ConnectionScopes)}.
     *
     * @param scopes the scopes
     * @return a variant of them to use instead
     */
    public ConnectionScopes watch(ConnectionScopes scopes) {
        return leaks.watch(scopes);
    }

    @Override
    public void beforeEach(ExtensionContext context) {
        leaks.ignoreHeld();
    }

    @Override
    public void afterEach(ExtensionContext context) {
        try {
            leaks.assertNothingHeld(patience);
        } catch (AssertionError leak) {
            throw new AssertionError(context.getDisplayName() + " leaves " + leak.getMessage());
        }
    }
}
