package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.WatchedPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import java.time.Duration;
import java.util.List;
import java.util.function.Function;
import org.jooq.DSLContext;
import org.jooq.SQLDialect;
import org.jooq.impl.DSL;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.util.RaceTestUtils;

/** Issues of jOOQ/jOOQ about the connections that it gets for a query. */
class JooqIssuesIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists jooq_issues; create table jooq_issues (id int primary key)");
    }

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
    }

    private <T> Flux<T> jooq(Function<DSLContext, Publisher<T>> query) {
        return Flux.deferContextual(
                context -> query.apply(DSL.using(pool.scopes.connectionFactory(context), SQLDialect.POSTGRES)));
    }

    private Flux<Integer> insert(int id) {
        return jooq(dsl -> dsl.query("insert into jooq_issues values ({0})", DSL.val(id)));
    }

    private Flux<Integer> select() {
        return jooq(dsl -> dsl.resultQuery("select id from jooq_issues")).map(row -> row.get(0, Integer.class));
    }

    /**
     * When an insert met a key that was there already, the connection was not closed, and the next query waited for it for
     * ever. Here a statement that fails gives its connection back like any other, whatever comes after it in the scope.
     */
    @Test
    @Tag("jOOQ#13669")
    void theConnectionOfAStatementThatFailedIsBack() {
        insert(1).as(pool.scopes::connected).blockLast(LONG);
        assertThatThrownBy(() -> insert(1).as(pool.scopes::connected).blockLast(LONG))
                .hasCauseInstanceOf(R2dbcDataIntegrityViolationException.class);
        assertThat(durable()).containsExactly(1);

        assertThat(insert(1)
                        .onErrorComplete()
                        .thenMany(select())
                        .as(pool.scopes::connected)
                        .collectList()
                        .block(LONG))
                .containsExactly(1);
        assertThatThrownBy(() -> insert(2)
                        .thenMany(insert(1))
                        .as(pool.scopes::transactional)
                        .blockLast(LONG))
                .hasCauseInstanceOf(R2dbcDataIntegrityViolationException.class);
        assertThat(durable()).containsExactly(1);
    }

    private List<Integer> durable() {
        return select().as(pool.scopes::connected).collectList().block(LONG);
    }

    /**
     * A query that was cancelled while it waited for a connection of an exhausted pool got it all the same, and nobody gave it
     * back. Here a scope that was left gives back at once what comes to it.
     */
    @Test
    @Tag("jOOQ#17094")
    void aConnectionThatComesToAQueryThatWasLeftIsBack() {
        int rounds = 500;
        for (int i = 0; i < rounds; i++) {
            Connection holder = pool.pool.create().blockOptional(LONG).orElseThrow();
            Disposable waits = select().as(pool.scopes::connected).subscribe();
            Disposable alsoWaits = select().as(pool.scopes::transactional).subscribe();
            waits.dispose();
            RaceTestUtils.race(
                    alsoWaits::dispose, () -> Mono.from(holder.close()).subscribe());
            pool.awaitQuiet();
        }
        assertThat(pool.events(ScopeEvent.OpenFailed.class)).hasSizeBetween(rounds, 2 * rounds);
        assertThat(pool.backends()).hasSize(1);
    }
}
