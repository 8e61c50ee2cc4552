package dev.r2dbcscope.testkit;

import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;
import reactor.core.publisher.Mono;

/**
 * Begins a {@link RollbackSandbox} before each test and rolls it back after it, for JUnit 5 and later.
 *
 * <pre>{@code
 * @RegisterExtension
 * static final RollbackSandboxExtension database = RollbackSandboxExtension.of(pool);
 * }</pre>
 *
 * <p>What {@code @BeforeEach} methods write is part of the test. A test that leaves a connection open fails with {@link
 * SandboxLeakException}, after what it wrote was rolled back. Tests of one sandbox must not run at the same time: the second one
 * fails when it begins; give each class its own, or run them in one thread.
 */
public final class RollbackSandboxExtension implements BeforeEachCallback, AfterEachCallback {

    /** Far beyond what any step may take, each of which has a bound of its own. */
    private static final Duration PATIENCE = Duration.ofMinutes(5);

    private final RollbackSandbox sandbox;

    private RollbackSandboxExtension(RollbackSandbox sandbox) {
        this.sandbox = sandbox;
    }

    /**
     * Makes an extension with a sandbox of its own, with the default options.
     *
     * @param connectionFactory the real factory
     * @return the extension, for {@code @RegisterExtension}
     */
    public static RollbackSandboxExtension of(ConnectionFactory connectionFactory) {
        return of(RollbackSandbox.of(connectionFactory));
    }

    /**
     * Makes an extension for a sandbox, such as one that is a bean of the application's context.
     *
     * @param sandbox the sandbox
     * @return the extension, for {@code @RegisterExtension}
     */
    public static RollbackSandboxExtension of(RollbackSandbox sandbox) {
        return new RollbackSandboxExtension(Objects.requireNonNull(sandbox, "sandbox"));
    }

    /**
     * The factory for the application under test.
     *
     * @return the sandbox
     */
    public RollbackSandbox connectionFactory() {
        return sandbox;
    }

    @Override
    public void beforeEach(ExtensionContext context) throws Exception {
        await(sandbox.begin());
    }

    @Override
    public void afterEach(ExtensionContext context) throws Exception {
        await(sandbox.rollback());
    }

    private static void await(Mono<Void> step) throws InterruptedException, TimeoutException {
        try {
            step.toFuture().get(PATIENCE.toNanos(), TimeUnit.NANOSECONDS);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof RuntimeException known) {
                throw known;
            }
            throw new IllegalStateException("The sandbox failed", e.getCause());
        }
    }
}
