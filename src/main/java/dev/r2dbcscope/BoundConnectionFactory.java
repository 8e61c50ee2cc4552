package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.Wrapped;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/** A scoped connection factory for a library that does not pass the Reactor Context on: it brings its own. */
final class BoundConnectionFactory implements ConnectionFactory, Wrapped<ConnectionFactory> {

    private final ScopedConnectionFactory factory;
    private final ContextView context;

    BoundConnectionFactory(ScopedConnectionFactory factory, ContextView context) {
        this.factory = factory;
        this.context = context;
    }

    @Override
    public Mono<Connection> create() {
        return factory.create().contextWrite(context);
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return factory.getMetadata();
    }

    @Override
    public ConnectionFactory unwrap() {
        return factory;
    }

    @Override
    public String toString() {
        return "BoundConnectionFactory[" + factory + "]";
    }
}
