package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcPermissionDeniedException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Scopes on connection factories that give no connection. */
class BadInputIT {

    private static final Duration ACQUIRE_TIMEOUT = Duration.ofSeconds(2);
    private static final ScopeOptions OPTIONS =
            ScopeOptions.defaults().withName("report").withAcquireTimeout(ACQUIRE_TIMEOUT);

    /** The embedded server trusts everybody on this machine, except this role from now on. */
    @BeforeAll
    static void createARoleWithAPassword() throws IOException {
        Postgres.execute("create role with_password login password 'right'");
        Path rules = Path.of(Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Flux.from(c.createStatement("show hba_file").execute())
                                .flatMap(result -> result.map((row, metadata) -> row.get(0, String.class)))
                                .next(),
                        Connection::close)
                .blockOptional(Duration.ofSeconds(60))
                .orElseThrow());
        Files.writeString(rules, "host all with_password all scram-sha-256\n" + Files.readString(rules));
        Postgres.execute("select pg_reload_conf()");
        ConnectionScopes wrong = ConnectionScopes.of(
                server(false, server -> server.username("with_password").password("wrong")));
        Await.until(
                () -> catchThrowable(
                                () -> wrong.withConnection(c -> Mono.just(1)).block())
                        != null,
                () -> "the wrong password is still accepted");
        ConnectionScopes right = ConnectionScopes.of(
                server(false, server -> server.username("with_password").password("right")));
        assertThat(right.withConnection(c -> Mono.just(1)).block()).isEqualTo(1);
    }

    /** Runs every form of scope; each must fail in time and hold nothing. */
    private static List<Throwable> failures(ConnectionFactory factory) {
        ConnectionScopes scopes = ConnectionScopes.of(factory).with(OPTIONS);
        List<Publisher<?>> forms = List.of(
                scopes.withConnection(c -> Mono.just(1)),
                scopes.withConnectionMany(c -> Flux.just(1)),
                scopes.inTransaction(c -> Mono.just(1)),
                scopes.inTransactionMany(c -> Flux.just(1)));
        return forms.stream()
                .map(form -> {
                    long start = System.nanoTime();
                    Throwable error = catchThrowable(() -> Flux.from(form).blockLast(Duration.ofSeconds(60)));
                    assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(ACQUIRE_TIMEOUT.plusSeconds(15));
                    assertThat(scopes.live()).isEmpty();
                    return error;
                })
                .toList();
    }

    /** The scope's own error. */
    private static void assertTyped(Throwable error, String problem) {
        assertThat(error)
                .isInstanceOf(ScopeAcquisitionException.class)
                .hasMessageContaining(problem)
                .hasMessageContaining("scope 'report'")
                .hasMessageContaining("BadInputIT.failures");
        assertThat(((ScopeAcquisitionException) error).scopeName()).isEqualTo("report");
    }

    /** The driver's own error, with a note under it that names the scope. */
    private static void assertPassedOn(Throwable error, Class<? extends R2dbcException> type, String sqlState) {
        assertThat(error).isInstanceOf(type);
        assertThat(((R2dbcException) error).getSqlState()).isEqualTo(sqlState);
        assertThat(error.getSuppressed())
                .filteredOn(ScopeAcquisitionException.class::isInstance)
                .singleElement()
                .satisfies(note -> assertTyped(note, "could not be opened"));
    }

    private static ConnectionFactory server(
            boolean pooled, UnaryOperator<PostgresqlConnectionConfiguration.Builder> change) {
        ConnectionFactory factory = new PostgresqlConnectionFactory(
                change.apply(Postgres.configuration()).build());
        return pooled
                ? new ConnectionPool(ConnectionPoolConfiguration.builder(factory)
                        .initialSize(0)
                        .maxSize(2)
                        .build())
                : factory;
    }

    private static ConnectionFactory factory(Publisher<? extends Connection> connections) {
        return new ConnectionFactory() {
            @Override
            public Publisher<? extends Connection> create() {
                return connections;
            }

            @Override
            public ConnectionFactoryMetadata getMetadata() {
                return () -> "bad";
            }
        };
    }

    @Nested
    class TheServer {

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        @Tag("lifecycle-5")
        void thatDoesNotListen(boolean pooled) throws IOException {
            int port;
            try (ServerSocket free = new ServerSocket(0)) {
                port = free.getLocalPort();
            }
            assertThat(failures(server(pooled, server -> server.port(port))))
                    .hasSize(4)
                    .allSatisfy(error -> assertPassedOn(error, R2dbcNonTransientResourceException.class, "08003"));
        }

        @Test
        @Tag("lifecycle-57")
        void thatAcceptsAndNeverAnswers() throws IOException {
            try (ServerSocket mute = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
                assertThat(failures(
                                server(true, server -> server.host("127.0.0.1").port(mute.getLocalPort()))))
                        .hasSize(4)
                        .allSatisfy(error -> assertTyped(error, "acquire timeout of PT2S"));
            }
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        @Tag("lifecycle-5")
        void thatRejectsThePassword(boolean pooled) {
            assertThat(failures(server(
                            pooled, server -> server.username("with_password").password("wrong"))))
                    .hasSize(4)
                    .allSatisfy(error -> assertPassedOn(error, R2dbcPermissionDeniedException.class, "28P01"));
        }

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        @Tag("lifecycle-5")
        void thatDoesNotKnowTheDatabase(boolean pooled) {
            assertThat(failures(server(pooled, server -> server.database("nowhere"))))
                    .hasSize(4)
                    .allSatisfy(error -> assertPassedOn(error, R2dbcNonTransientResourceException.class, "3D000"));
        }
    }

    @Nested
    class TheFactory {

        @Test
        @Tag("lifecycle-57")
        void thatNeverAnswers() {
            assertThat(failures(factory(Mono.never())))
                    .hasSize(4)
                    .allSatisfy(error -> assertTyped(error, "acquire timeout of PT2S"));
        }

        @Test
        @Tag("lifecycle-5")
        void thatIsEmpty() {
            assertThat(failures(factory(Mono.empty())))
                    .hasSize(4)
                    .allSatisfy(error -> assertTyped(error, "without a connection"));
        }

        @Test
        @Tag("lifecycle-5")
        void thatFails() {
            IllegalStateException own = new IllegalStateException("own");
            assertThat(failures(factory(Mono.error(own)))).hasSize(4).allSatisfy(error -> {
                assertThat(error).isSameAs(own);
                assertThat(error.getSuppressed()).anySatisfy(note -> assertTyped(note, "could not be opened"));
            });
        }
    }
}
