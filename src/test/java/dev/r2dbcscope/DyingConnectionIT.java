package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The server says that it ends a connection before the socket closes: until then it looks alive. */
@Tag("lifecycle-62")
class DyingConnectionIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final String ENDS_ITSELF =
            "do $$ begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60); end $$";

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final WatchedPool pool =
            WatchedPool.of(1, options -> options.withReleaseTimeout(LONG).withAcquireTimeout(LONG));
    private final ConnectionScopes scopes = pool.scopes;

    @AfterEach
    void thePoolIsWhole() {
        pool.assertWhole();
        pool.close();
    }

    private static Mono<Integer> endsItself(Connection connection) {
        return Rows.ints(connection, ENDS_ITSELF).next();
    }

    private static Mono<Integer> raises(Connection connection, String sqlState) {
        return Rows.ints(connection, "do $$ begin raise sqlstate '" + sqlState + "'; end $$")
                .next();
    }

    private void assertDestroyed(long connections) {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isEqualTo(connections);
    }

    @RepeatedTest(20)
    void isDestroyedByAPlainScope() {
        assertThatThrownBy(() ->
                        scopes.withConnection(DyingConnectionIT::endsItself).block(LONG))
                .isInstanceOfSatisfying(
                        R2dbcException.class, e -> assertThat(e.getSqlState()).isEqualTo("57P01"));
        assertDestroyed(1);
        // the next borrower comes at once, without a scope
        assertThat(pool.borrow(c -> Rows.ints(c, "select 42"))).containsExactly(42);
    }

    @RepeatedTest(5)
    void isDestroyedByATransaction() {
        assertThatThrownBy(() ->
                        scopes.inTransaction(DyingConnectionIT::endsItself).block(LONG))
                .isInstanceOf(R2dbcException.class);
        assertDestroyed(1);
    }

    @RepeatedTest(5)
    void isDestroyedByTheScopeAroundATransaction() {
        assertThatThrownBy(() -> scopes.withConnection(c -> scopes.inTransaction(DyingConnectionIT::endsItself))
                        .block(LONG))
                .isInstanceOf(R2dbcException.class);
        pool.awaitQuiet();
        List<ScopeEvent.Released> releases = pool.events(ScopeEvent.Released.class);
        assertThat(releases).hasSize(2);
        assertThat(releases.get(1).scope().transactional()).isFalse();
        assertThat(releases.get(1).destroyed()).isTrue();
    }

    @RepeatedTest(5)
    void isDestroyedAlsoIfTheScopeCompletes() {
        assertThat(scopes.withConnection(c -> endsItself(c).onErrorReturn(-1)).block(LONG))
                .isEqualTo(-1);
        assertDestroyed(1);
    }

    @RepeatedTest(5)
    void isDestroyedIfNobodyReadTheError() {
        assertThatThrownBy(() -> scopes.withConnection(
                                c -> Flux.from(c.createStatement(ENDS_ITSELF).execute())
                                        .then())
                        .block(LONG))
                .isInstanceOf(R2dbcException.class);
        assertDestroyed(1);
    }

    /** As with dblink, whose own connections fail with class 08: this costs a connection, but no work. */
    @Test
    void isTakenForDyingOnlyAfterTheCommit() {
        Postgres.execute("create table dying (id int)");
        try {
            Function<Connection, Mono<Integer>> work = c -> Mono.from(c.createSavepoint("before"))
                    .then(raises(c, "08001")
                            .onErrorResume(e -> Mono.from(c.rollbackTransactionToSavepoint("before"))
                                    .then(Mono.empty())))
                    .then(Rows.update(c, "insert into dying values (1)").then())
                    .thenReturn(1);
            assertThat(scopes.inTransaction(work).block(LONG)).isEqualTo(1);
            assertThat(scopes.withConnection(c -> scopes.inTransaction(work)
                                    .then(Rows.ints(c, "select 2").next()))
                            .block(LONG))
                    .isEqualTo(2);
            assertThat(Postgres.number("select count(*) from dying")).isEqualTo(2);
            assertDestroyed(2);
        } finally {
            Postgres.execute("drop table dying");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"57014", "40001", "42P01", "22012", "23505", "P0001", "57P01", "57P05", "25P03"})
    void isNotSeenInOtherErrors(String sqlState) {
        assertThatThrownBy(() -> scopes.withConnection(c -> raises(c, sqlState)).block(LONG))
                .isInstanceOf(R2dbcException.class);
        assertDestroyed(0);
    }
}
