package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Wrapped;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.ContextView;

/** Connections from a {@link ConnectionFactory}, usually a pool. */
final class FactorySupply implements Supply {

    private final ConnectionFactory factory;
    private final Set<Identity> inUse = ConcurrentHashMap.newKeySet();

    private record Identity(Object value) {
        @Override
        public boolean equals(@Nullable Object other) {
            return other instanceof Identity identity && identity.value == value;
        }

        @Override
        public int hashCode() {
            return System.identityHashCode(value);
        }
    }

    FactorySupply(ConnectionFactory factory) {
        this.factory = factory;
    }

    @Override
    public void acquire(Entry entry, ContextView context) {
        Acquisition acquisition = new Acquisition(this, entry, context);
        try {
            Flux.<Connection>from(Objects.requireNonNull(
                            factory.create(), "The connection factory returned a null publisher"))
                    .onErrorStop()
                    .subscribe(acquisition);
        } catch (Throwable e) {
            acquisition.onError(e);
        }
        acquisition.afterSubscribe();
    }

    /** An acquisition is never cancelled, see {@link Acquisition}. */
    @Override
    public void abandon() {
        // it runs to its end
    }

    /** Marks a connection as used; says whether it was free. */
    boolean claim(Connection connection) {
        return inUse.add(identity(connection));
    }

    @Override
    public Mono<Void> release(Connection connection) {
        return Shield.lazily(() -> {
            inUse.remove(identity(connection));
            return connection.close();
        });
    }

    /** A pool notices when it gets the connection back; a connection without a pool is closed by its release. */
    @Override
    public Mono<Void> destroy(Connection connection) {
        Connection physical = physical(connection);
        return physical == connection ? Mono.empty() : Shield.lazily(physical::close);
    }

    private static Identity identity(Connection connection) {
        return new Identity(physical(connection));
    }

    /** The innermost connection under pools and proxies; one that shares another one with others counts as physical. */
    static Connection physical(Connection connection) {
        Connection innermost = connection;
        while (!(innermost instanceof SharedConnection)
                && innermost instanceof Wrapped<?> wrapped
                && wrapped.unwrap() instanceof Connection inner) {
            innermost = inner;
        }
        return innermost;
    }

    /** Whether something holds for all that is wrapped around the physical connection. */
    static boolean isWrappedOnlyBy(Predicate<Connection> kind, Connection connection) {
        Connection layer = connection;
        while (!(layer instanceof SharedConnection)
                && layer instanceof Wrapped<?> wrapped
                && wrapped.unwrap() instanceof Connection inner) {
            if (!kind.test(layer)) {
                return false;
            }
            layer = inner;
        }
        return true;
    }

    /** The thread on which the driver wants to be called, if it says so. */
    static @Nullable Scheduler scheduler(Connection connection) {
        return connection instanceof Wrapped<?> wrapped ? wrapped.unwrap(Scheduler.class) : null;
    }

    /** Leaves the thread that delivers a connection, which may be inside the pool's own loop. */
    static void leaveDelivery(Connection connection, Runnable task) {
        Scheduler scheduler;
        try {
            scheduler = scheduler(connection);
        } catch (Throwable e) {
            scheduler = null; // the task asks again, and fails its scope with what it gets
        }
        try {
            (scheduler == null ? Schedulers.parallel() : scheduler).schedule(task);
        } catch (RuntimeException rejected) {
            task.run();
        }
    }
}
