package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.Wrapped;
import reactor.core.publisher.Mono;

/** The connection factory as seen from inside a scope: gives the scope's connection, or else a plain one. */
final class ScopedConnectionFactory implements ConnectionFactory, Wrapped<ConnectionFactory> {

    private final ScopeRoot root;

    ScopedConnectionFactory(ScopeRoot root) {
        this.root = root;
    }

    @Override
    public Mono<Connection> create() {
        return Mono.deferContextual(context -> {
            Scope current = root.current(context);
            if (current == null) {
                return Mono.fromDirect(root.factory().create());
            }
            RuntimeException closed = current.closedErrorIfEnded();
            return closed != null
                    ? Mono.error(closed)
                    : current.session().open(context).map(session -> new ScopedConnection(current));
        });
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return root.factory().getMetadata();
    }

    @Override
    public ConnectionFactory unwrap() {
        return root.factory();
    }

    @Override
    public String toString() {
        return "ScopedConnectionFactory[" + root.factory() + "]";
    }
}
