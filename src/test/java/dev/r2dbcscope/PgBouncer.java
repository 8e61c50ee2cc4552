package dev.r2dbcscope;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Assumptions;

/**
 * A real PgBouncer in transaction mode, in front of the embedded server. It has to be installed: {@link #inFrontOf} skips the
 * test where it is not.
 */
final class PgBouncer implements AutoCloseable {

    private static final int ATTEMPTS = 5;

    private final Path home;
    private final Process process;
    private final int port;

    private PgBouncer(Path home, Process process, int port) {
        this.home = home;
        this.process = process;
        this.port = port;
    }

    /** Starts one that has at most the given number of connections to the server, whatever the number of its clients. */
    static PgBouncer inFrontOf(int serverPort, int servers) {
        Optional<Path> binary = binary();
        Assumptions.assumeTrue(binary.isPresent(), "pgbouncer is not on the PATH");
        for (int attempt = 1; attempt <= ATTEMPTS; attempt++) {
            PgBouncer started = start(binary.get(), serverPort, servers);
            if (started != null) {
                return started;
            }
        }
        return Assumptions.abort("pgbouncer does not start here, see its output above");
    }

    int port() {
        return port;
    }

    /** Debian has it where only administrators look. */
    private static Optional<Path> binary() {
        String path = Optional.ofNullable(System.getenv("PATH")).orElse("") + File.pathSeparator + "/usr/sbin";
        return Stream.of(path.split(File.pathSeparator))
                .map(folder -> Path.of(folder, "pgbouncer"))
                .filter(Files::isExecutable)
                .findFirst();
    }

    private static @Nullable PgBouncer start(Path binary, int serverPort, int servers) {
        try {
            int port = freePort();
            Path home = Files.createTempDirectory("pgbouncer");
            Files.setPosixFilePermissions(home, PosixFilePermissions.fromString("rwxr-xr-x"));
            Path users = Files.writeString(home.resolve("users.txt"), "\"postgres\" \"postgres\"\n");
            Path settings =
                    Files.writeString(home.resolve("pgbouncer.ini"), settings(serverPort, servers, port, users));
            Process process = new ProcessBuilder(binary.toString(), settings.toString())
                    .inheritIO()
                    .start();
            PgBouncer started = new PgBouncer(home, process, port);
            if (started.awaitReady()) {
                return started;
            }
            started.close();
            return null;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** It refuses to run as root, and changes to another user where it is started as root. */
    private static String settings(int serverPort, int servers, int port, Path users) {
        String user = "root".equals(System.getProperty("user.name")) ? "user = nobody\n" : "";
        return """
                [databases]
                postgres = host=127.0.0.1 port=%d dbname=postgres
                [pgbouncer]
                listen_addr = 127.0.0.1
                listen_port = %d
                unix_socket_dir =
                auth_type = trust
                auth_file = %s
                pool_mode = transaction
                default_pool_size = %d
                max_client_conn = 200
                ignore_startup_parameters = extra_float_digits
                log_connections = 0
                log_disconnections = 0
                log_stats = 0
                verbose = 0
                """.formatted(serverPort, port, users, servers) + user;
    }

    private static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }

    /** Whether it came up; another process may have taken the port meanwhile. */
    private boolean awaitReady() {
        Await.until(() -> !process.isAlive() || accepts(), () -> "pgbouncer neither starts nor ends");
        return process.isAlive();
    }

    private boolean accepts() {
        try (Socket socket = new Socket(InetAddress.getLoopbackAddress(), port)) {
            return socket.isConnected();
        } catch (IOException notYet) {
            return false;
        }
    }

    @Override
    public void close() {
        process.destroy();
        try {
            if (!process.waitFor(30, TimeUnit.SECONDS)) {
                process.destroyForcibly();
            }
            try (Stream<Path> files = Files.list(home)) {
                for (Path file : files.toList()) {
                    Files.delete(file);
                }
            }
            Files.delete(home);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
