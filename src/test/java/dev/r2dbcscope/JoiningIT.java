package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.function.Function;
import org.jooq.DSLContext;
import org.jooq.SQLDialect;
import org.jooq.impl.DSL;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Libraries that know nothing of scopes join them. */
class JoiningIT {

    @Nested
    class Spring extends JoiningContract {

        private final DatabaseClient client = DatabaseClient.create(scopes.connectionFactory());

        @Override
        Flux<Integer> query(String sql) {
            return client.sql(sql).map(row -> row.get(0, Integer.class)).all();
        }

        @Override
        Mono<Void> change(String sql) {
            return client.sql(sql).then();
        }
    }

    /** jOOQ 3.19 does not pass the Reactor Context on (jOOQ#17920), so its factory is bound to the subscriber's Context. */
    @Nested
    class Jooq extends JoiningContract {

        @Override
        Flux<Integer> query(String sql) {
            return jooq(dsl -> dsl.resultQuery(sql)).map(row -> row.get(0, Integer.class));
        }

        @Override
        Mono<Void> change(String sql) {
            return jooq(dsl -> dsl.query(sql)).then();
        }

        private <T> Flux<T> jooq(Function<DSLContext, Publisher<T>> query) {
            return Flux.deferContextual(
                    context -> query.apply(DSL.using(scopes.connectionFactory(context), SQLDialect.POSTGRES)));
        }

        @Test
        void runsOnAConnectionOfAScope() {
            Integer pid = scopes.inTransaction(connection -> Flux.concat(
                                    Rows.ints(connection, "select pg_backend_pid()"),
                                    Flux.from(DSL.using(connection, SQLDialect.POSTGRES)
                                                    .resultQuery("select pg_backend_pid()"))
                                            .map(row -> row.get(0, Integer.class)))
                            .distinct()
                            .single())
                    .block(BOUND);

            assertThat(pid).isPositive();
        }

        @Test
        @Tag("lifecycle-51")
        void withoutTheContextItNeverUsesAForeignConnection() {
            DSLContext unbound = DSL.using(scopes.connectionFactory(), SQLDialect.POSTGRES);
            Flux<Integer> pid =
                    Flux.from(unbound.resultQuery("select pg_backend_pid()")).map(row -> row.get(0, Integer.class));

            assertThat(pid.as(scopes::connected).single().block(BOUND))
                    .as("outside and inside alike, a connection of its own")
                    .isEqualTo(pid().block(BOUND));
            assertThatThrownBy(() ->
                            scopes.withConnection(connection -> pid.next()).block(Duration.ofSeconds(1)))
                    .as("the only connection is the scope's")
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("Timeout");
            scopes.drain(BOUND).block(BOUND);
        }
    }
}
