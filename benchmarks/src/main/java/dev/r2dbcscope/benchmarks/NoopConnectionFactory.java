package dev.r2dbcscope.benchmarks;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import reactor.core.publisher.Mono;

/** A connection factory without a database: every step succeeds at once, on the calling thread. */
final class NoopConnectionFactory implements ConnectionFactory {

    @Override
    public Mono<Connection> create() {
        return Mono.fromSupplier(NoopConnection::new);
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return () -> "no-op";
    }
}
