package dev.r2dbcscope.benchmarks;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.time.Duration;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** An embedded PostgreSQL that a part has to itself. It does not wait for its disk. */
final class Server implements AutoCloseable {

    static final Duration LONG = Duration.ofMinutes(30);

    private final EmbeddedPostgres postgres;

    private Server(EmbeddedPostgres postgres) {
        this.postgres = postgres;
    }

    static Server start() throws IOException {
        return new Server(EmbeddedPostgres.builder()
                .setServerConfig("fsync", "off")
                .setServerConfig("max_wal_size", "8GB")
                .setServerConfig("max_connections", "300")
                .start());
    }

    int port() {
        return postgres.getPort();
    }

    String jdbcUrl() {
        return jdbcUrl(port());
    }

    /** For a port of a proxy in front of it. */
    static String jdbcUrl(int port) {
        return "jdbc:postgresql://localhost:" + port + "/postgres?user=postgres&password=postgres";
    }

    PostgresqlConnectionConfiguration.Builder configuration() {
        return configuration(port());
    }

    /** For a port of a proxy in front of it. */
    static PostgresqlConnectionConfiguration.Builder configuration(int port) {
        return PostgresqlConnectionConfiguration.builder()
                .host("localhost")
                .port(port)
                .username("postgres")
                .password("postgres")
                .database("postgres");
    }

    ConnectionPool pool(int size) {
        return pool(configuration(), size);
    }

    static ConnectionPool pool(PostgresqlConnectionConfiguration.Builder configuration, int size) {
        return new ConnectionPool(
                ConnectionPoolConfiguration.builder(new PostgresqlConnectionFactory(configuration.build()))
                        .initialSize(0)
                        .maxSize(size)
                        .build());
    }

    /** Runs SQL on a connection of its own. */
    void execute(String sql) {
        Mono.usingWhen(
                        new PostgresqlConnectionFactory(configuration().build()).create(),
                        c -> Flux.from(c.createStatement(sql).execute())
                                .concatMap(result -> result.getRowsUpdated())
                                .then(),
                        c -> c.close())
                .block(LONG);
    }

    @Override
    public void close() throws IOException {
        postgres.close();
    }
}
