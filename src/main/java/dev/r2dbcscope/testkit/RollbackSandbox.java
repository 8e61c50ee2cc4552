package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;

/**
 * A {@link ConnectionFactory} for tests that leave nothing behind: each test runs in one transaction on one real connection,
 * which is rolled back at its end.
 */
public final class RollbackSandbox implements ConnectionFactory {

    private final ConnectionFactory factory;
    private final SandboxOptions options;
    private final AtomicReference<@Nullable SandboxRun> current = new AtomicReference<>();

    private RollbackSandbox(ConnectionFactory factory, SandboxOptions options) {
        this.factory = factory;
        this.options = options;
    }

    /**
     * Makes a sandbox with the default options.
     *
     * @param connectionFactory the real factory, such as a pool; a sandbox needs one connection of it at a time
     * @return a sandbox that is not begun yet
     */
    public static RollbackSandbox of(ConnectionFactory connectionFactory) {
        return of(connectionFactory, SandboxOptions.defaults());
    }

    /**
     * Makes a sandbox.
     *
     * @param connectionFactory the real factory, such as a pool; a sandbox needs one connection of it at a time
     * @param options how it behaves
     * @return a sandbox that is not begun yet
     */
    public static RollbackSandbox of(ConnectionFactory connectionFactory, SandboxOptions options) {
        return new RollbackSandbox(
                Objects.requireNonNull(connectionFactory, "connectionFactory"),
                Objects.requireNonNull(options, "options"));
    }

    /**
     * Begins the transaction of a test.
     *
     * @return completes when the factory hands out connections in it; fails with {@link IllegalStateException} if another
     *     test has begun it and has not rolled it back, and with the error of the real factory
     */
    public Mono<Void> begin() {
        String site = Origin.here();
        return Mono.defer(() -> {
            SandboxRun run = new SandboxRun(factory, options, site);
            SandboxRun other = current.compareAndExchange(null, run);
            if (other != null) {
                return Mono.error(new IllegalStateException("The sandbox was begun already, at " + other.origin()
                        + ", and is not rolled back yet: it serves one test at a time. Run the tests that share it one after"
                        + " the other, or give each test class a sandbox of its own"));
            }
            return run.begin().doOnError(e -> current.compareAndSet(run, null));
        });
    }

    /**
     * Rolls back what was done since {@link #begin}, when the connections that were handed out are closed, or the {@linkplain
     * SandboxOptions#withCloseGrace grace} for that is over.
     *
     * @return completes when the real connection was given back; fails with {@link SandboxLeakException} after it if
     *     connections were not closed. Does nothing if the sandbox is not begun.
     */
    public Mono<Void> rollback() {
        return Mono.defer(() -> {
            SandboxRun run = current.get();
            return run == null ? Mono.empty() : run.rollback().doOnTerminate(() -> current.compareAndSet(run, null));
        });
    }

    /**
     * Emits a connection of the current test.
     *
     * @return the connection; fails with {@link SandboxClosedException} while no test runs
     */
    @Override
    public Mono<Connection> create() {
        String site = Origin.here();
        return Mono.deferContextual(context -> {
            SandboxRun run = current.get();
            if (run != null) {
                return Mono.just(run.connect(Origin.in(context, site)));
            }
            return options.realConnectionsOutside()
                    ? Mono.from(factory.create())
                    : Mono.error(new SandboxClosedException(
                            "A connection was asked for by " + Origin.in(context, site)
                                    + ", but no test runs in the sandbox: begin() comes first, and nothing may go on after"
                                    + " rollback(). For what an application reads when it starts, see"
                                    + " SandboxOptions.withRealConnectionsOutside",
                            null));
        });
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return factory.getMetadata();
    }

    @Override
    public String toString() {
        return "RollbackSandbox[" + factory + "]";
    }
}
