package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A real pool whose connections the server can tell apart, the scopes on it, and what became of both. */
public final class WatchedPool implements AutoCloseable {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final AtomicInteger NUMBER = new AtomicInteger();

    public final ConnectionPool pool;
    public final ConnectionScopes scopes;
    final ConcurrentLinkedQueue<ScopeEvent> events = new ConcurrentLinkedQueue<>();
    private final String application;
    private final int size;
    private volatile boolean terminated;

    private WatchedPool(
            int size,
            UnaryOperator<PostgresqlConnectionConfiguration.Builder> server,
            UnaryOperator<ScopeOptions> options) {
        this.size = size;
        this.application = "watched-" + NUMBER.incrementAndGet();
        PostgresqlConnectionConfiguration.Builder configuration =
                Postgres.configuration().applicationName(application);
        this.pool = new ConnectionPool(ConnectionPoolConfiguration.builder(new PostgresqlConnectionFactory(
                        server.apply(configuration).build()))
                .initialSize(0)
                .maxSize(size)
                .maxIdleTime(Duration.ofMinutes(30))
                .build());
        this.scopes = ConnectionScopes.of(pool).with(options.apply(defaults()).withListener(events::add));
    }

    /** Whether a statement follows BEGIN at once does not depend on how long a round trip happens to take. */
    private static ScopeOptions defaults() {
        return ScopeOptions.defaults().withPipelinedBegin(Duration.ofDays(1));
    }

    public static WatchedPool of(int size) {
        return of(size, UnaryOperator.identity());
    }

    public static WatchedPool of(int size, UnaryOperator<ScopeOptions> options) {
        return new WatchedPool(size, UnaryOperator.identity(), options);
    }

    public static WatchedPool to(
            int size,
            UnaryOperator<PostgresqlConnectionConfiguration.Builder> server,
            UnaryOperator<ScopeOptions> options) {
        return new WatchedPool(size, server, options);
    }

    /** The same scopes with other options; what happens to them is recorded too. */
    public ConnectionScopes with(UnaryOperator<ScopeOptions> options) {
        return scopes.with(options.apply(defaults()).withListener(events::add));
    }

    /** The events of one kind. */
    public <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }

    /** How many scopes gave their connection back, or destroyed it. */
    public long destroyed() {
        return events(ScopeEvent.Released.class).stream()
                .filter(ScopeEvent.Released::destroyed)
                .count();
    }

    /** The server processes behind the pool's connections. */
    public Set<Integer> backends() {
        return new TreeSet<>(
                outside("select pid from pg_stat_activity where application_name = '" + application + "'"));
    }

    /** How many of the pool's connections the server sees in a state that is like the pattern. */
    public long inState(String pattern) {
        return Postgres.number("select count(*) from pg_stat_activity where application_name = '" + application
                + "' and state like '" + pattern + "'");
    }

    /** Makes the server end every connection of the pool. */
    public void terminateBackends() {
        terminated = true;
        outside("select pg_terminate_backend(pid)::int from pg_stat_activity where application_name = '" + application
                + "'");
    }

    /** Waits until no scope holds a connection or waits for one. */
    public void awaitQuiet() {
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
        Await.until(
                () -> pool.getMetrics().orElseThrow().acquiredSize() == 0,
                () -> "still acquired: " + pool.getMetrics().orElseThrow().acquiredSize());
    }

    /** Takes all connections at once, as other borrowers would, and proves that each is alive and idle. */
    public void assertWhole() {
        awaitQuiet();
        List<Connection> all = Flux.range(0, size)
                .flatMap(i -> pool.create(), size)
                .collectList()
                .blockOptional(LONG)
                .orElseThrow();
        try {
            assertThat(all).hasSize(size).allMatch(Connection::isAutoCommit);
            assertThat(inState("idle in transaction%")).isZero();
            for (Connection connection : all) {
                assertThat(Rows.ints(connection, "select 42").collectList().block(LONG))
                        .containsExactly(42);
            }
            assertThat(inState("idle")).isEqualTo(size);
        } finally {
            Flux.fromIterable(all).flatMap(Connection::close).blockLast(LONG);
        }
        awaitQuiet();
    }

    /** Runs something on a connection of the pool as another borrower does, without a scope. */
    public <T> List<T> borrow(java.util.function.Function<Connection, Flux<T>> work) {
        return Mono.usingWhen(pool.create(), c -> work.apply(c).collectList(), Connection::close)
                .blockOptional(LONG)
                .orElseThrow();
    }

    private static List<Integer> outside(String sql) {
        return new ArrayList<>(Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Rows.ints(c, sql).collectList(),
                        Connection::close)
                .blockOptional(LONG)
                .orElseThrow());
    }

    /** Closes the connections; where the server has ended them and the driver does not know yet, it fails to say goodbye. */
    @Override
    public void close() {
        pool.disposeLater().onErrorComplete(e -> terminated).block(LONG);
    }
}
