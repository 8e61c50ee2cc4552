package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.pool.ConnectionPool;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * What a library that runs its statements on {@link ConnectionScopes#connectionFactory()} must see.
 *
 * <p>The pool has one connection, so whoever asks for a second one inside a scope waits in vain.
 */
abstract class JoiningContract {

    static final Duration BOUND = Duration.ofSeconds(60);

    final ConnectionPool pool = Postgres.pool(1);
    final ConnectionScopes scopes = ConnectionScopes.of(pool);

    /** The first column of each row of a query, through the library. */
    abstract Flux<Integer> query(String sql);

    /** Runs a statement that changes rows, through the library. */
    abstract Mono<Void> change(String sql);

    Mono<Integer> pid() {
        return query("select pg_backend_pid()").single();
    }

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists joined; create table joined (n int)");
    }

    @AfterEach
    void nothingIsHeld() {
        assertThat(scopes.live()).isEmpty();
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
        pool.disposeLater().block(BOUND);
    }

    @Test
    @Tag("lifecycle-50")
    void joinsEveryKindOfScope() {
        Mono<List<Integer>> pids = Flux.concat(pid(), pid()).mergeWith(pid()).collectList();

        assertThat(pids.as(scopes::connected).block(BOUND)).hasSize(3).containsOnly(physical());
        assertThat(pids.as(scopes::transactional).block(BOUND)).hasSize(3).containsOnly(physical());
        assertThat(scopes.withConnectionMany(connection ->
                                Rows.ints(connection, "select pg_backend_pid()").concatWith(pid()))
                        .collectList()
                        .block(BOUND))
                .hasSize(2)
                .containsOnly(physical());
        assertThat(scopes.inTransaction(connection -> pid()).block(BOUND)).isEqualTo(physical());
    }

    private Integer physical() {
        return pid().block(BOUND);
    }

    @Test
    @Tag("lifecycle-44")
    void joinsATransactionInsideAScope() {
        List<Integer> pids = pid().concatWith(pid().as(scopes::transactional))
                .concatWith(scopes.inTransactionMany(connection -> pid()))
                .concatWith(pid())
                .as(scopes::connected)
                .collectList()
                .block(BOUND);

        assertThat(pids).hasSize(4).containsOnly(pids.get(0));
    }

    @Test
    @Tag("lifecycle-48")
    void queriesPerRowShareTheConnection() {
        Flux<Integer> pids = query("select generate_series(1, 400)").flatMap(n -> pid(), 16);

        assertThat(pids.as(scopes::connected).collectList().block(BOUND))
                .hasSize(400)
                .containsOnly(physical());
        assertThat(pids.as(scopes::transactional).collectList().block(BOUND))
                .hasSize(400)
                .containsOnly(physical());
    }

    @Test
    void commitsTogether() {
        change("insert into joined values (1)")
                .then(scopes.inTransaction(c -> Rows.update(c, "insert into joined values (2)")))
                .then(change("insert into joined values (3)"))
                .as(scopes::transactional)
                .block(BOUND);

        assertThat(Postgres.number("select sum(n) from joined")).isEqualTo(6);
    }

    @Test
    void rollsBackTogether() {
        Mono<Integer> work = change("insert into joined values (1)")
                .then(scopes.inTransaction(c -> Rows.update(c, "insert into joined values (2)")))
                .then(query("select 1 / 0").single())
                .as(scopes::transactional);

        assertThatThrownBy(() -> work.block(BOUND)).hasStackTraceContaining("division by zero");
        assertThat(Postgres.number("select count(*) from joined")).isZero();
    }

    @Test
    void outsideAScopeBehavesAsOnThePlainFactory() {
        change("insert into joined values (7)").block(BOUND);

        assertThat(Postgres.number("select sum(n) from joined"))
                .as("committed at once")
                .isEqualTo(7);
        assertThat(query("select n from joined").collectList().block(BOUND)).containsExactly(7);
        assertThatThrownBy(() -> query("select 1 / 0").collectList().block(BOUND))
                .hasStackTraceContaining("division by zero");
        assertThat(scopes.live()).isEmpty();
        assertThat(query("select 8").collectList().block(BOUND))
                .as("the only connection came back each time")
                .containsExactly(8);
    }
}
