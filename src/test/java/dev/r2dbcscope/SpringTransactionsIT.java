package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.LeakExtension;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Spring's own transactions, on the factory as code inside a scope sees it; the pool has one connection. */
class SpringTransactionsIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    @RegisterExtension
    final LeakExtension leaks = LeakExtension.of();

    private static final ConnectionPool POOL = Postgres.pool(1);
    private final ConnectionScopes scopes = ConnectionScopes.of(leaks.watch(POOL));
    private final DatabaseClient client = DatabaseClient.create(scopes.connectionFactory());
    private final TransactionalOperator spring =
            TransactionalOperator.create(new R2dbcTransactionManager(scopes.connectionFactory()));

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists sprung; create table sprung (n int)");
    }

    @AfterAll
    static void dispose() {
        POOL.disposeLater().block(BOUND);
    }

    private Mono<Integer> insert(int n) {
        return client.sql("insert into sprung values (" + n + ")").then().thenReturn(n);
    }

    private Mono<Integer> fail() {
        return Mono.error(() -> new IllegalArgumentException("the user's"));
    }

    private Mono<Integer> pid() {
        return client.sql("select pg_backend_pid()")
                .map(row -> row.get(0, Integer.class))
                .one();
    }

    /** What another connection can see. */
    private static Mono<Integer> durable() {
        return Mono.usingWhen(
                Postgres.connectionFactory().create(),
                connection -> Rows.ints(connection, "select count(*)::int from sprung")
                        .single(),
                Connection::close);
    }

    @Nested
    class OutsideAScope {

        @Test
        void commitsAndRollsBackAsOnThePlainFactory() {
            insert(1).as(spring::transactional).block(BOUND);
            assertThat(durable().block(BOUND)).isEqualTo(1);

            assertThatThrownBy(() ->
                            insert(2).then(fail()).as(spring::transactional).block(BOUND))
                    .hasMessage("the user's");
            assertThat(durable().block(BOUND)).isEqualTo(1);
        }
    }

    @Nested
    class InsideAPlainScope {

        @Test
        void isATransactionOfItsOwnOnTheConnectionOfTheScope() {
            List<Integer> seen = Flux.concat(
                            pid(), insert(1).then(pid()).as(spring::transactional), durable(), insert(2), durable())
                    .as(scopes::connected)
                    .collectList()
                    .block(BOUND);

            assertThat(seen).hasSize(5);
            assertThat(seen.get(1)).isEqualTo(seen.get(0));
            assertThat(seen.get(2)).as("committed when the operator completed").isEqualTo(1);
            assertThat(seen.get(4)).as("auto-commit again").isEqualTo(2);
        }

        @Test
        void rollsBackWithoutEndingTheScope() {
            List<Integer> seen = Flux.concat(
                            insert(1).then(fail()).as(spring::transactional).onErrorResume(e -> Mono.just(-1)),
                            insert(2),
                            durable())
                    .as(scopes::connected)
                    .collectList()
                    .block(BOUND);

            assertThat(seen).containsExactly(-1, 2, 1);
        }

        @Test
        void twoAtOnceOnOneConnectionAreRefused() {
            Mono<Integer> nested = insert(1)
                    .then(insert(2)
                            .as(spring::transactional)
                            .contextWrite(context -> context.delete(springKey(context))))
                    .as(spring::transactional)
                    .as(scopes::connected);

            assertThatThrownBy(() -> nested.block(BOUND))
                    .hasStackTraceContaining("Another part of the scope has begun a transaction")
                    .hasStackTraceContaining("ConnectionScopes.inTransaction");
            assertThat(durable().block(BOUND)).isZero();
        }

        /** Without it Spring does not see that its transaction is under way and begins another one. */
        private Object springKey(reactor.util.context.ContextView context) {
            return context.stream()
                    .map(java.util.Map.Entry::getKey)
                    .filter(key -> String.valueOf(key).contains("TransactionContextHolder"))
                    .findFirst()
                    .orElseThrow();
        }
    }

    @Nested
    class InsideATransactionalScope {

        @Test
        void joinsAndLeavesTheCommitToTheScope() {
            List<Integer> seen = Flux.concat(insert(1).as(spring::transactional), durable(), insert(2), durable())
                    .as(scopes::transactional)
                    .collectList()
                    .block(BOUND);

            assertThat(seen).containsExactly(1, 0, 2, 0);
            assertThat(durable().block(BOUND)).isEqualTo(2);
        }

        @Test
        void aRollbackThatTheScopeSurvivesFailsItsCommit() {
            Mono<Integer> work = insert(1)
                    .then(fail())
                    .as(spring::transactional)
                    .onErrorResume(e -> insert(2))
                    .as(scopes::transactional);

            assertThatThrownBy(() -> work.block(BOUND)).isInstanceOf(ScopeRolledBackException.class);
            assertThat(durable().block(BOUND)).isZero();
        }

        @Test
        void theUsersErrorRollsBackBoth() {
            Mono<Integer> work =
                    insert(1).then(fail()).as(spring::transactional).as(scopes::transactional);

            assertThatThrownBy(() -> work.block(BOUND)).hasMessage("the user's");
            assertThat(durable().block(BOUND)).isZero();
        }
    }
}
