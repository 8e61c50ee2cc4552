package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import java.util.OptionalInt;
import java.util.function.Supplier;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;

/** Knows the size of pools that a test has made, and of no others. */
public final class ScriptedCapacity implements PoolCapacity {

    /** A pool that has no connections, but an answer to how many. */
    record Answering(Supplier<OptionalInt> most, Supplier<OptionalInt> out) implements ConnectionFactory {

        @Override
        public Publisher<? extends Connection> create() {
            return Mono.never();
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return () -> "a pool of a test";
        }
    }

    @Override
    public OptionalInt mostConnections(ConnectionFactory factory) {
        return factory instanceof Answering pool ? pool.most().get() : OptionalInt.empty();
    }

    @Override
    public OptionalInt connectionsInUse(ConnectionFactory factory) {
        return factory instanceof Answering pool ? pool.out().get() : OptionalInt.empty();
    }
}
