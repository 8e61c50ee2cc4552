package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.NestedAcquireDeadlockException;
import dev.r2dbcscope.PoolCapacity;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.Objects;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.Disposable;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What is found on a real pool and a real database, and that both work as if nobody watched. */
class LeakAssertionsIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final ConnectionPool pool = Postgres.pool(2);
    private final LeakAssertions leaks = LeakAssertions.of();
    private final ConnectionFactory connections = leaks.watch(pool);
    private final ConnectionScopes scopes =
            ConnectionScopes.of(connections).with(ScopeOptions.defaults().withName("orders"));

    @AfterEach
    void nothingIsHeldAtLast() {
        leaks.assertNothingHeld(LONG);
        assertThat(PoolCapacity.inUse(pool)).hasValue(0);
        pool.disposeLater().block(LONG);
    }

    private String leak() {
        return Objects.requireNonNull(
                catchThrowableOfType(AssertionError.class, () -> leaks.assertNothingHeld(Duration.ZERO))
                        .getMessage());
    }

    private static Flux<Integer> ints(Connection connection, String sql) {
        return Flux.from(connection.createStatement(sql).execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class)));
    }

    private static Connection taken(ConnectionFactory factory) {
        return Mono.<Connection>fromDirect(factory.create()).blockOptional(LONG).orElseThrow();
    }

    @Test
    void findsAConnectionThatARepositoryForgot() {
        DatabaseClient client = DatabaseClient.create(connections);
        Connection forgotten = taken(connections);

        assertThat(client.sql("select 1 as one")
                        .map(row -> row.get(0, Integer.class))
                        .one()
                        .block(LONG))
                .isEqualTo(1);
        assertThat(ints(forgotten, "select 2").blockLast(LONG)).isEqualTo(2);

        assertThat(leak())
                .startsWith("1 leak:\n  1. connection taken at " + getClass().getName())
                .endsWith("; last: \"select 2\"");
        Mono.from(forgotten.close()).block(LONG);
    }

    @Test
    void findsAStatementThatIsStillInFlightAndWaitsForTheCancelledScope() {
        Disposable running = scopes.withConnectionMany(c -> ints(c, "select 1 from pg_sleep(30)"))
                .subscribe();
        while (leaks.held().stream().noneMatch(line -> line.contains("pg_sleep"))) {
            Thread.onSpinWait();
        }

        assertThat(leaks.held())
                .singleElement()
                .asString()
                .startsWith("scope 'orders' assembled at ")
                .contains("holds a connection: EXECUTING \"select 1 from pg_sleep(30)\", held for ");
        running.dispose();
    }

    @Test
    void findsAConnectionThatWasTakenPastTheWatchedFactory() {
        Connection stray = taken(pool);

        assertThat(leak())
                .isEqualTo("1 leak:\n  1. the pool of PostgreSQL has handed out 1 connections that were not taken"
                        + " through the watched factory, or were lost on the way");
        leaks.assertNothingHeld(Duration.ZERO);
        Mono.from(stray.close()).block(LONG);
    }

    @Test
    void findsNothingWhereThePoolTakesBackWhatItHasDelivered() {
        Flux.from(connections.create()).subscribe(new BaseSubscriber<Connection>() {
            @Override
            protected void hookOnNext(Connection connection) {
                cancel();
            }
        });

        leaks.assertNothingHeld(LONG);
        assertThat(PoolCapacity.inUse(pool)).hasValue(0);
    }

    @Test
    void findsAUseAfterTheEnd() {
        Connection escaped =
                scopes.inTransaction(Mono::just).blockOptional(LONG).orElseThrow();

        Flux.defer(() -> ints(escaped, "select 3")).onErrorComplete().blockLast(LONG);

        assertThat(leak()).contains("was used after its end: \"select 3\"");
    }

    @Test
    void isNoneOfTheScopesBusiness() {
        assertThat(scopes.inTransactionMany(c -> Flux.from(c.createStatement("select i from generate_series(1, 1000) i")
                                        .fetchSize(100)
                                        .execute())
                                .concatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class)))
                                .concatMap(i -> ints(c, "select " + i)))
                        .count()
                        .block(LONG))
                .isEqualTo(1000);
        scopes.inTransactionMany(c -> ints(c, "select i from generate_series(1, 100000) i"))
                .take(1)
                .blockLast(LONG);
        scopes.withConnectionMany(c -> ints(c, "select 1 from pg_sleep(30)"))
                .subscribe()
                .dispose();
    }

    @Test
    void thePoolAndTheDriverAreFoundThroughIt() {
        assertThat(PoolCapacity.inUse(connections)).hasValue(0);
        Mono<Integer> tooMany = scopes.inTransaction(c -> separate(separate(Mono.just(1))));

        assertThatThrownBy(() -> tooMany.block(LONG)).isInstanceOf(NestedAcquireDeadlockException.class);
        assertThat(scopes.withConnection(c ->
                                Mono.just(Objects.requireNonNull(((Wrapped<?>) c).unwrap(PostgresqlConnection.class))))
                        .block(LONG))
                .isNotNull();
        assertThat(scopes.withConnection(c -> CurrentScope.get().map(CurrentScope::name))
                        .block(LONG))
                .isEqualTo("orders");
    }

    private <T> Mono<T> separate(Mono<T> work) {
        return scopes.transactions(Propagation.REQUIRES_NEW).inTransaction(c -> work);
    }
}
