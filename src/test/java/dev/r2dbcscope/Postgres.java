package dev.r2dbcscope;

import dev.r2dbcscope.testkit.FaultyProxy;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** One embedded PostgreSQL server for the test run, on a free port; it ends with the JVM. */
public final class Postgres {

    private static final EmbeddedPostgres SERVER = start();

    private Postgres() {}

    private static EmbeddedPostgres start() {
        try {
            return EmbeddedPostgres.builder()
                    .setServerConfig("fsync", "off")
                    .setServerConfig("max_connections", "200")
                    .start();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    public static int port() {
        return SERVER.getPort();
    }

    /** A network between the driver and the server that can be broken. */
    public static FaultyProxy network() {
        return FaultyProxy.to("127.0.0.1", port());
    }

    public static PostgresqlConnectionConfiguration.Builder configuration() {
        return PostgresqlConnectionConfiguration.builder()
                .host("localhost")
                .port(port())
                .username("postgres")
                .password("postgres")
                .database("postgres");
    }

    public static PostgresqlConnectionFactory connectionFactory() {
        return new PostgresqlConnectionFactory(configuration().build());
    }

    public static ConnectionPool pool(int size) {
        return new ConnectionPool(ConnectionPoolConfiguration.builder(connectionFactory())
                .initialSize(0)
                .maxSize(size)
                .build());
    }

    /** Runs SQL on a connection of its own, outside every scope. */
    public static void execute(String sql) {
        outside(connection -> Flux.from(connection.createStatement(sql).execute())
                        .flatMap(Result::getRowsUpdated)
                        .then(Mono.just(true)))
                .block(Duration.ofSeconds(60));
    }

    /** Asks for one number on a connection of its own, outside every scope. */
    public static long number(String sql) {
        return outside(connection -> Flux.from(connection.createStatement(sql).execute())
                        .flatMap(result -> result.map((row, metadata) -> row.get(0, Long.class)))
                        .next())
                .blockOptional(Duration.ofSeconds(60))
                .orElseThrow();
    }

    private static <T> Mono<T> outside(java.util.function.Function<Connection, Mono<T>> work) {
        return Mono.usingWhen(connectionFactory().create(), work, Connection::close);
    }
}
