package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Two databases are two scopes; two views of one database are one. */
class TwoDatabasesIT {

    private static final Duration BOUND = Duration.ofSeconds(60);
    private static final int ROWS = 5_000;

    private final ConnectionPool source = Postgres.pool(1);
    private final ConnectionPool target = pool(new PostgresqlConnectionFactory(
            Postgres.configuration().database("scope_target").build()));
    private final ConnectionScopes from = ConnectionScopes.of(source);
    private final ConnectionScopes to = ConnectionScopes.of(target);

    private static ConnectionPool pool(ConnectionFactory factory) {
        return new ConnectionPool(ConnectionPoolConfiguration.builder(factory)
                .initialSize(0)
                .maxSize(1)
                .build());
    }

    @BeforeAll
    static void database() {
        Postgres.execute("create database scope_target");
    }

    @AfterAll
    static void noDatabase() {
        Postgres.execute("drop database scope_target with (force)");
    }

    @BeforeEach
    void tables() {
        Postgres.execute("drop table if exists exported; create table exported (n int)");
        to.withConnection(connection -> Rows.update(
                                connection, "drop table if exists imported; create table imported (n int)")
                        .then())
                .block(BOUND);
    }

    @AfterEach
    void nothingIsHeld() {
        assertThat(from.live()).isEmpty();
        assertThat(to.live()).isEmpty();
        assertThat(source.getMetrics().orElseThrow().acquiredSize()).isZero();
        assertThat(target.getMetrics().orElseThrow().acquiredSize()).isZero();
        source.disposeLater().then(target.disposeLater()).block(BOUND);
    }

    private static Mono<Integer> pid(ConnectionScopes scopes) {
        return scopes.withConnection(connection -> Rows.ints(connection, "select pg_backend_pid()"));
    }

    private long imported() {
        return to.withConnection(connection -> Rows.ints(connection, "select count(*)::int from imported"))
                .blockOptional(BOUND)
                .orElseThrow();
    }

    @Nested
    class SideBySide {

        /** Reads rows from one database, writes each to the other, and notes it in the first. */
        private Flux<Integer> copy(int failAt) {
            return from.inTransactionMany(reading -> to.inTransactionMany(writing -> Rows.ints(
                            reading, "select generate_series(1, " + ROWS + ")")
                    .flatMap(
                            n -> Rows.update(writing.createStatement("insert into imported values (100 / $1::int)")
                                            .bind(0, n - failAt))
                                    .concatWith(Rows.update(reading.createStatement("insert into exported values ($1)")
                                            .bind(0, n)))
                                    .then(Mono.just(n)),
                            16)));
        }

        @Test
        void readsFromOneWhileWritingToTheOther() {
            assertThat(copy(-1).count().block(BOUND)).isEqualTo(ROWS);
            assertThat(imported()).isEqualTo(ROWS);
            assertThat(Postgres.number("select count(*) from exported")).isEqualTo(ROWS);
        }

        @Test
        void anErrorInOneRollsBackBoth() {
            assertThatThrownBy(() -> copy(ROWS / 2).count().block(BOUND)).hasStackTraceContaining("division by zero");
            assertThat(imported()).isZero();
            assertThat(Postgres.number("select count(*) from exported")).isZero();
        }

        @Test
        void neverJoinEachOther() {
            List<String> names = from.inTransactionMany(reading -> to.inTransactionMany(writing -> {
                        assertThat(from.live()).hasSize(1);
                        assertThat(to.live()).hasSize(1);
                        return Flux.just(from, to)
                                .concatMap(scopes ->
                                        Mono.from(scopes.connectionFactory().create()))
                                .concatMap(connection -> Flux.from(connection
                                                .createStatement("select current_database()")
                                                .execute())
                                        .flatMap(result -> result.map(row -> row.get(0, String.class))));
                    }))
                    .collectList()
                    .block(BOUND);

            assertThat(names).containsExactly("postgres", "scope_target");
        }
    }

    @Nested
    class OneDatabaseSeenTwice {

        @Test
        void scopesOfOnePoolJoinEachOther() {
            ConnectionScopes again = ConnectionScopes.of(source);

            assertThat(from.withConnectionMany(c -> Flux.concat(pid(from), pid(again), pid(from)))
                            .distinct()
                            .count()
                            .block(BOUND))
                    .isEqualTo(1);
        }

        @Test
        void scopesOfAPoolAndOfWhatWrapsItJoinEachOther() {
            ConnectionScopes wrapping = ConnectionScopes.of(new Proxy(source));
            ConnectionScopes scoped = ConnectionScopes.of(from.connectionFactory());

            assertThat(from.withConnectionMany(c -> Flux.concat(pid(from), pid(wrapping), pid(scoped)))
                            .distinct()
                            .count()
                            .block(BOUND))
                    .isEqualTo(1);
            assertThat(wrapping.inTransactionMany(c -> Flux.concat(pid(wrapping), pid(from), pid(scoped)))
                            .distinct()
                            .count()
                            .block(BOUND))
                    .isEqualTo(1);
        }

        @Test
        void poolsOverTwoFactoriesDoNotJoin() {
            ConnectionPool other = Postgres.pool(1);
            ConnectionScopes others = ConnectionScopes.of(other);

            assertThat(from.withConnectionMany(c -> Flux.concat(pid(from), pid(others)))
                            .distinct()
                            .count()
                            .block(BOUND))
                    .isEqualTo(2);
            other.disposeLater().block(BOUND);
        }
    }

    private record Proxy(ConnectionFactory factory) implements ConnectionFactory, Wrapped<ConnectionFactory> {

        @Override
        public Publisher<? extends Connection> create() {
            return factory.create();
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return factory.getMetadata();
        }

        @Override
        public ConnectionFactory unwrap() {
            return factory;
        }
    }
}
