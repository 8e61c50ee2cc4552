package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What code does to a connection that hangs or poisons it with the raw driver, and must not with a scope. */
class CarelessCodeIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table careless (id int)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate careless");
    }

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isZero();
        assertThat(pool.backends()).hasSizeLessThanOrEqualTo(1);
        pool.assertWhole();
        pool.close();
    }

    private static long rows() {
        return Postgres.number("select count(*) from careless");
    }

    private static Statement insert(Connection connection, int id) {
        return connection.createStatement("insert into careless values ($1)").bind(0, id);
    }

    @Nested
    class ResultsThatNobodyReads {

        @ParameterizedTest
        @ValueSource(strings = {"insert into careless values (1)", "insert into careless values ($1)"})
        @Tag("lifecycle-67")
        void insertIsExecutedIfItsResultIsIgnored(String sql) {
            scopes.withConnection(c -> {
                        Statement statement = c.createStatement(sql);
                        return Flux.from((sql.contains("$") ? statement.bind(0, 1) : statement).execute())
                                .then();
                    })
                    .block(LONG);
            assertThat(rows()).isEqualTo(1);
        }

        @Test
        @Tag("lifecycle-67")
        void insertIsExecutedAndCommittedInATransaction() {
            scopes.inTransaction(c -> Flux.from(insert(c, 1).execute())
                            .thenMany(insert(c, 2).execute())
                            .then())
                    .block(LONG);
            assertThat(rows()).isEqualTo(2);
        }

        @Test
        @Tag("lifecycle-67")
        void errorOfAnIgnoredResultIsNotLost() {
            assertThatThrownBy(() -> scopes.withConnection(c -> Flux.from(c.createStatement("select 1 / $1::int")
                                            .bind(0, 0)
                                            .execute())
                                    .then())
                            .block(LONG))
                    .isInstanceOf(R2dbcException.class)
                    .hasMessageContaining("division by zero");
        }

        @ParameterizedTest
        @ValueSource(ints = {1, 255, 256, 300, 20_000})
        @Tag("lifecycle-53")
        void unreadResultIsDiscardedBeforeTheConnectionGoesBack(int count) {
            for (String sql : List.of("select generate_series(1, " + count + ")", "select generate_series(1, $1)")) {
                scopes.withConnection(c -> {
                            Statement statement = c.createStatement(sql);
                            return Flux.from((sql.contains("$") ? statement.bind(0, count) : statement).execute())
                                    .map(result -> "not read");
                        })
                        .block(LONG);
                assertThat(pool.borrow(c -> Rows.ints(c, "select 5"))).containsExactly(5);
            }
        }

        @ParameterizedTest
        @ValueSource(ints = {10, 300, 5_000})
        @Tag("lifecycle-68")
        void resultHeldUnreadDoesNotHoldUpLaterStatements(int count) {
            List<Integer> read = scopes.withConnectionMany(c -> Flux.from(
                                    c.createStatement("select generate_series(1, $1)")
                                            .bind(0, count)
                                            .execute())
                            .concatMap(held -> Flux.concat(
                                    Rows.ints(c, "select -1"),
                                    Rows.ints(
                                            c.createStatement("select $1::int").bind(0, -2)),
                                    Flux.defer(() -> held.map((row, metadata) -> row.get(0, Integer.class))))))
                    .collectList()
                    .block(LONG);
            assertThat(read).hasSize(count + 2).startsWith(-1, -2, 1).endsWith(count);
        }
    }

    @Nested
    class CancelBetweenExecuteAndRead {

        @ParameterizedTest
        @ValueSource(ints = {255, 256, 1_000, 20_000})
        @Tag("lifecycle-65")
        void leavesTheConnectionToTheNextStatement(int count) {
            for (Function<Connection, Flux<? extends Result>> execution : executions(count)) {
                List<Integer> next = scopes.withConnectionMany(c -> execution
                                .apply(c)
                                .take(1)
                                .concatMap(unread -> Mono.empty())
                                .thenMany(Rows.ints(c, "select 9")))
                        .collectList()
                        .block(LONG);
                assertThat(next).containsExactly(9);
            }
        }

        @ParameterizedTest
        @ValueSource(ints = {255, 256, 1_000, 20_000})
        @Tag("lifecycle-65")
        void leavesTheConnectionToTheNextBorrower(int count) throws InterruptedException {
            for (Function<Connection, Flux<? extends Result>> execution : executions(count)) {
                CountDownLatch executed = new CountDownLatch(1);
                Disposable subscription = scopes.withConnectionMany(c -> execution
                                .apply(c)
                                .concatMap(result ->
                                        Mono.fromRunnable(executed::countDown).then(Mono.never())))
                        .subscribe();
                assertThat(executed.await(60, TimeUnit.SECONDS)).isTrue();
                subscription.dispose();
                assertThat(pool.borrow(c -> Rows.ints(c, "select 9"))).containsExactly(9);
            }
        }

        private List<Function<Connection, Flux<? extends Result>>> executions(int count) {
            String sql = "select generate_series(1, " + count + ")";
            return List.of(
                    c -> Flux.from(c.createStatement(sql).execute()),
                    c -> Flux.from(c.createStatement(sql).fetchSize(100).execute()),
                    c -> Flux.from(c.createBatch().add(sql).add(sql).execute()),
                    c -> Flux.from(c.createStatement("select generate_series(1, $1)")
                            .bind(0, count)
                            .execute()));
        }
    }

    @Nested
    class TransactionsOfTheUser {

        @ParameterizedTest
        @ValueSource(strings = {"setAutoCommit", "createSavepoint", "BEGIN", "beginTransaction"})
        @Tag("lifecycle-71")
        void areNotLeftOpenForTheNextBorrower(String how) {
            scopes.withConnection(c -> Flux.from(
                                    switch (how) {
                                        case "setAutoCommit" -> c.setAutoCommit(false);
                                        case "createSavepoint" -> c.createSavepoint("s");
                                        case "BEGIN" -> Rows.update(c, "BEGIN").then();
                                        default -> c.beginTransaction();
                                    })
                            .thenMany(Rows.update(insert(c, 1)))
                            .then())
                    .block(LONG);
            assertThat(pool.borrow(c -> Flux.just(c.isAutoCommit()))).containsExactly(true);
            assertThat(pool.inState("idle in transaction%")).isZero();
            assertThat(rows()).isZero();
            pool.borrow(c -> Rows.update(insert(c, 2)));
            assertThat(rows()).isEqualTo(1);
        }

        @Test
        @Tag("lifecycle-70")
        void swallowedStatementErrorMakesTheCommitFail() {
            Mono<String> transaction = scopes.inTransaction(c -> Rows.update(insert(c, 1))
                    .thenMany(Rows.ints(c, "select 1 / 0").onErrorResume(e -> Flux.empty()))
                    .then(Mono.just("done")));
            assertThatThrownBy(() -> transaction.block(LONG))
                    .isInstanceOf(R2dbcException.class)
                    .isInstanceOf(io.r2dbc.spi.R2dbcRollbackException.class);
            assertThat(rows()).isZero();
            assertThat(pool.events(ScopeEvent.Released.class)).allMatch(event -> event.error() != null);
        }
    }
}
