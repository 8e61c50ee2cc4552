package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A statement inside a transaction that lost the Reactor Context waits for the transaction, which waits for it. */
class LostContextIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
    }

    /** As libraries do that know futures only. */
    private static Mono<Integer> withoutContext(Connection connection, String sql) {
        return Mono.fromFuture(() -> Rows.ints(connection, sql).next().toFuture());
    }

    @Test
    void failsWithinTheAcquireTimeoutInsteadOfHanging() {
        ConnectionScopes scopes = pool.with(options -> options.withAcquireTimeout(Duration.ofSeconds(1)));
        assertThatThrownBy(() -> scopes.withConnection(c -> scopes.inTransaction(t -> withoutContext(c, "select 1")))
                        .block(LONG))
                .isInstanceOf(ScopeAcquisitionException.class)
                .hasMessageContaining("\"select 1\"")
                .hasMessageContaining("lost the Reactor Context");
    }

    @Test
    void canBeCaughtAndBothScopesGoOn() {
        ConnectionScopes scopes = pool.with(options -> options.withAcquireTimeout(Duration.ofSeconds(1)));
        List<Integer> answers = scopes.withConnectionMany(c -> scopes.inTransactionMany(
                                t -> withoutContext(c, "select 1")
                                        .onErrorResume(ScopeAcquisitionException.class, e -> Mono.just(-1))
                                        .concatWith(Rows.ints(t, "select 2")))
                        .concatWith(Rows.ints(c, "select 3")))
                .collectList()
                .block(LONG);
        assertThat(answers).containsExactly(-1, 2, 3);
    }

    @Test
    void doesNotMatterOnTheConnectionThatTheTransactionHandsOut() {
        ConnectionScopes scopes = pool.scopes;
        assertThat(scopes.withConnection(c -> scopes.inTransaction(t -> withoutContext(t, "select 4")))
                        .block(LONG))
                .isEqualTo(4);
    }

    /** Each transaction holds the connection for less than the acquire timeout, all of them for longer. */
    @Test
    void isNotSuspectedOfThoseWhoWaitForTheirTurn() {
        ConnectionScopes scopes = pool.with(options -> options.withAcquireTimeout(Duration.ofSeconds(4)));
        List<Integer> answers = scopes.withConnectionMany(c -> Flux.merge(
                        Flux.range(1, 3)
                                .flatMap(i -> scopes.inTransactionMany(
                                        t -> Rows.ints(t, "select " + i + " from pg_sleep(1.6)"))),
                        Flux.range(4, 3).flatMap(i -> Rows.ints(c, "select " + i)),
                        withoutContext(c, "select 7")))
                .collectList()
                .block(LONG);
        assertThat(answers)
                .containsExactlyInAnyOrderElementsOf(
                        IntStream.rangeClosed(1, 7).boxed().toList());
    }
}
