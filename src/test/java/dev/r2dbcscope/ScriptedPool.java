package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.pool.PoolMetrics;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.Optional;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;
import reactor.test.subscriber.TestSubscriber;

/** A real r2dbc-pool without a database, whose connections want to be called on whatever thread it is. */
final class ScriptedPool implements AutoCloseable {

    private static final Duration PATIENCE = Duration.ofSeconds(60);

    final ProbeConnectionFactory database = ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate());
    final ConnectionPool pool;
    private volatile Runnable whenMeasured = () -> {};

    ScriptedPool(int size) {
        ConnectionPoolConfiguration configuration = ConnectionPoolConfiguration.builder(database)
                .initialSize(0)
                .maxSize(size)
                .build();
        pool = new ConnectionPool(configuration) {
            @Override
            public Optional<PoolMetrics> getMetrics() {
                Runnable happening = whenMeasured;
                whenMeasured = () -> {};
                happening.run();
                return super.getMetrics();
            }
        };
    }

    /** What happens when the pool is next asked for its size, in the middle of a look at who waits for whom. */
    void whenMeasured(Runnable happening) {
        whenMeasured = happening;
    }

    /** A transaction that does the work inside a scope of its own name. */
    static <T> Mono<T> transaction(ConnectionScopes scopes, String name, Mono<T> work) {
        return scopes.with(ScopeOptions.defaults().withName(name)).inTransaction(connection -> work);
    }

    /** The same on a connection of its own. */
    static <T> Mono<T> separate(ConnectionScopes scopes, String name, Mono<T> work) {
        return transaction(scopes.transactions(Propagation.REQUIRES_NEW), name, work);
    }

    /** Takes a connection as code without a scope does. */
    Connection borrow() {
        return pool.create().blockOptional(PATIENCE).orElseThrow();
    }

    static void giveBack(Connection connection) {
        Mono.from(connection.close()).block(PATIENCE);
    }

    static <T> TestSubscriber<T> start(Mono<T> scope) {
        TestSubscriber<T> subscriber = TestSubscriber.create();
        scope.subscribe(subscriber);
        return subscriber;
    }

    int acquired() {
        return pool.getMetrics().orElseThrow().acquiredSize();
    }

    @Override
    public void close() {
        assertThat(acquired()).as("connections still acquired").isZero();
        pool.disposeLater().block(PATIENCE);
    }
}
