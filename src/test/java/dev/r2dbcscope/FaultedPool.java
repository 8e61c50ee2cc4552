package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.FaultyProxy;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A real pool behind a network that breaks, of a server that does, for {@link RandomFaultsIT}. */
final class FaultedPool implements FaultScript.World, AutoCloseable {

    private static final Duration LONG = Duration.ofSeconds(60);

    private static final AtomicInteger NUMBER = new AtomicInteger();

    private final OwnPostgres server;
    private final int size;
    private final String application;
    private final FaultyProxy network;
    private final ConnectionPool pool;
    private final ConnectionScopes scopes;

    FaultedPool(int size, OwnPostgres server) {
        this.size = size;
        this.server = server;
        this.application = "faulted-" + NUMBER.incrementAndGet();
        this.network = FaultyProxy.to("127.0.0.1", server.port());
        this.pool = new ConnectionPool(ConnectionPoolConfiguration.builder(
                        new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                                .host(network.host())
                                .port(network.port())
                                .username("postgres")
                                .password("postgres")
                                .database("postgres")
                                .applicationName(application)
                                .build()))
                .initialSize(0)
                .maxSize(size)
                .build());
        this.scopes = ConnectionScopes.of(pool);
    }

    ConnectionScopes scopes() {
        return scopes;
    }

    int size() {
        return size;
    }

    @Override
    public FaultyProxy network() {
        return network;
    }

    private String whereOurs() {
        return " from pg_stat_activity where application_name = '" + application + "'";
    }

    @Override
    public void forgetConnections() {
        List<Connection> all = new CopyOnWriteArrayList<>();
        Flux.range(0, size)
                .flatMap(i -> pool.create().doOnNext(all::add), size)
                .then()
                .block(LONG);
        Flux.fromIterable(all)
                .flatMap(connection ->
                        Mono.from(FactorySupply.physical(connection).close()).then(Mono.from(connection.close())))
                .blockLast(LONG);
    }

    @Override
    public void terminate() {
        server.ints("select pg_terminate_backend(pid)::int" + whereOurs());
    }

    @Override
    public void cancelStatements() {
        server.ints("select pg_cancel_backend(pid)::int" + whereOurs());
    }

    @Override
    public void restart(boolean crash) {
        if (crash) {
            server.crash();
        } else {
            server.restart();
        }
    }

    /** Waits for the last scope, which must end even if the network never comes back; then mends it. */
    void mend() {
        awaitNobodyLives();
        network.heal();
    }

    /** Proves that the pool has all its connections, and each of them is alive and idle. */
    void assertWhole() {
        awaitQuiet();
        List<R2dbcException> lost = new CopyOnWriteArrayList<>();
        Await.until(() -> isWhole(lost), () -> "not whole: " + lost);
        awaitQuiet();
    }

    private void awaitNobodyLives() {
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
    }

    private void awaitQuiet() {
        awaitNobodyLives();
        Await.until(
                () -> pool.getMetrics().orElseThrow().acquiredSize() == 0,
                () -> "still acquired: " + pool.getMetrics().orElseThrow().acquiredSize());
    }

    /** A connection that the fault has just met may not have noticed yet; the pool drops it when it is given back. */
    private boolean isWhole(List<R2dbcException> lost) {
        List<Connection> all = new CopyOnWriteArrayList<>();
        try {
            Flux.range(0, size)
                    .flatMap(i -> pool.create().doOnNext(all::add), size)
                    .then()
                    .block(LONG);
            for (Connection connection : all) {
                assertThat(connection.isAutoCommit()).as("auto-commit").isTrue();
                assertThat(Rows.ints(connection, "select 42").collectList().block(LONG))
                        .containsExactly(42);
            }
            awaitBackends("", "");
            awaitBackends(" and state = 'idle'", " idle");
            return true;
        } catch (R2dbcException e) {
            lost.add(e);
            return false;
        } finally {
            Flux.fromIterable(all).flatMap(Connection::close).onErrorComplete().blockLast(LONG);
        }
    }

    /** The server may still have to notice that a connection was closed. */
    private void awaitBackends(String condition, String what) {
        Await.until(
                () -> server.ints("select count(*)::int" + whereOurs() + condition)
                                .get(0)
                        == size,
                () -> "not " + size + what + " backends: " + server.ints("select pid" + whereOurs() + condition));
    }

    @Override
    public void close() {
        pool.disposeLater().block(LONG);
        network.close();
    }
}
