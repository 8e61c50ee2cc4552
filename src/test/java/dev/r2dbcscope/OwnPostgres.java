package dev.r2dbcscope;

import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.zonky.test.db.postgres.embedded.EmbeddedPostgres;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A server that belongs to one test, which may shut it down and start it again on the same port and with the same data. */
public final class OwnPostgres implements AutoCloseable {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final Path data;
    private EmbeddedPostgres server;

    public OwnPostgres() {
        try {
            data = Files.createTempDirectory("own-postgres");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        server = start(0);
    }

    private EmbeddedPostgres start(int port) {
        try {
            return EmbeddedPostgres.builder()
                    .setPort(port)
                    .setDataDirectory(data.resolve("data"))
                    .setCleanDataDirectory(false)
                    .setServerConfig("fsync", "off")
                    .setServerConfig("synchronous_commit", "on") // what is acknowledged survives a crash of the server
                    .setServerConfig("max_connections", "200")
                    .start();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    public int port() {
        return server.getPort();
    }

    /** Its connections end with 57P01, as on an administrator's order, before it stops. */
    public void restart() {
        try {
            server.close();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        server = start(port());
    }

    /** As by a crash: it recovers when it starts again. */
    public void crash() {
        long pid = postmaster();
        try {
            new ProcessBuilder("kill", "-QUIT", Long.toString(pid)).start().waitFor();
            Await.until(
                    () -> ProcessHandle.of(pid).filter(ProcessHandle::isAlive).isEmpty(),
                    () -> "it did not die: " + pid);
        } catch (IOException | InterruptedException e) {
            throw new IllegalStateException(e);
        }
        restart();
    }

    private long postmaster() {
        try {
            return Long.parseLong(Files.readAllLines(data.resolve("data/postmaster.pid"))
                    .get(0)
                    .strip());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    PostgresqlConnectionFactory connectionFactory() {
        return new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                .host("127.0.0.1")
                .port(port())
                .username("postgres")
                .password("postgres")
                .database("postgres")
                .build());
    }

    void execute(String sql) {
        Mono.usingWhen(
                        connectionFactory().create(),
                        connection -> connection
                                .createStatement(sql)
                                .execute()
                                .flatMap(r -> r.getRowsUpdated())
                                .then(),
                        connection -> connection.close())
                .block(LONG);
    }

    /** Asks for numbers on a connection of its own. */
    List<Integer> ints(String sql) {
        return Flux.usingWhen(connectionFactory().create(), connection -> Rows.ints(connection, sql), c -> c.close())
                .collectList()
                .blockOptional(LONG)
                .orElseThrow();
    }

    @Override
    public void close() throws IOException {
        server.close();
        try (Stream<Path> files = Files.walk(data)) {
            files.sorted(Comparator.reverseOrder())
                    .forEach(file -> file.toFile().delete());
        }
    }
}
