package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.Notifications;
import dev.r2dbcscope.postgresql.UnnestWriter;
import dev.r2dbcscope.testkit.RollbackSandboxExtension;
import dev.r2dbcscope.testkit.SandboxBusyException;
import dev.r2dbcscope.testkit.SandboxUnsupportedException;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import org.jooq.DSLContext;
import org.jooq.SQLDialect;
import org.jooq.impl.DSL;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What applications are made of, on a rollback sandbox instead of their database. */
class SandboxOfAnApplicationIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private static final WatchedPool REAL = WatchedPool.of(1);

    @RegisterExtension
    static final RollbackSandboxExtension DATABASE = RollbackSandboxExtension.of(REAL.pool);

    private final ConnectionScopes scopes = ConnectionScopes.of(DATABASE.connectionFactory());

    @BeforeAll
    static void table() {
        Postgres.execute("drop table if exists app_rows; create table app_rows (n int primary key, tenant text"
                + " default current_setting('app.tenant', true))");
    }

    @AfterAll
    static void drop() {
        REAL.assertWhole();
        REAL.close();
        assertThat(Postgres.number("select count(*) from app_rows")).isZero();
        Postgres.execute("drop table app_rows");
    }

    @BeforeEach
    void fixture() {
        scopes.withConnection(c -> insert(c, 1000)).block(BOUND);
    }

    @AfterEach
    void nothingIsHeld() {
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
        assertThat(Postgres.number("select count(*) from app_rows")).isZero();
    }

    private static Mono<Void> insert(Connection connection, int n) {
        return Rows.update(connection
                        .createStatement("insert into app_rows values ($1)")
                        .bind(0, n))
                .then();
    }

    private List<Integer> rows() {
        return scopes.withConnectionMany(c -> Rows.ints(c, "select n from app_rows where n < 1000 order by n"))
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
    }

    private static <T> Mono<T> fail() {
        return Mono.error(() -> new IllegalArgumentException("the user's"));
    }

    @Nested
    class Scopes {

        @Test
        void seeWhatWasWrittenBeforeTheTest() {
            assertThat(scopes.withConnectionMany(c -> Rows.ints(c, "select n from app_rows"))
                            .collectList()
                            .block(BOUND))
                    .containsExactly(1000);
        }

        @Test
        void commitAndRollBack() {
            scopes.inTransaction(c -> insert(c, 1)).block(BOUND);
            assertThatThrownBy(() ->
                            scopes.inTransaction(c -> insert(c, 2).then(fail())).block(BOUND))
                    .hasMessage("the user's");
            scopes.inTransaction(c -> insert(c, 3)
                            .then(scopes.transactions(Propagation.NESTED)
                                    .inTransaction(nested -> insert(nested, 4).then(fail()))
                                    .onErrorComplete())
                            .then(scopes.inTransaction(joined -> insert(joined, 5))))
                    .block(BOUND);

            assertThat(rows()).containsExactly(1, 3, 5);
        }

        @ParameterizedTest
        @EnumSource(Propagation.class)
        void knowEveryPropagationOutsideATransaction(Propagation propagation) {
            Mono<Void> work = scopes.transactions(propagation).inTransaction(c -> insert(c, 1));
            if (propagation == Propagation.MANDATORY) {
                assertThatThrownBy(() -> work.block(BOUND)).isInstanceOf(ScopePropagationException.class);
            } else {
                work.block(BOUND);
                assertThat(rows()).containsExactly(1);
            }
        }

        @ParameterizedTest
        @EnumSource(Propagation.class)
        void knowEveryPropagationInsideATransaction(Propagation propagation) {
            Mono<Void> work = scopes.inTransaction(c ->
                    insert(c, 1).then(scopes.transactions(propagation).inTransaction(other -> insert(other, 2))));
            switch (propagation) {
                case REQUIRED, NESTED, MANDATORY, SUPPORTS -> {
                    work.block(BOUND);
                    assertThat(rows()).containsExactly(1, 2);
                }
                case REQUIRES_NEW, NOT_SUPPORTED -> {
                    assertThatThrownBy(() -> work.block(BOUND)).isInstanceOf(SandboxBusyException.class);
                    assertThat(rows()).isEmpty();
                }
                case NEVER -> {
                    assertThatThrownBy(() -> work.block(BOUND)).isInstanceOf(ScopePropagationException.class);
                    assertThat(rows()).isEmpty();
                }
            }
        }

        @Test
        void runTheirHooks() {
            List<String> told = new CopyOnWriteArrayList<>();
            Mono<Void> hooked = scopes.inTransaction(c -> insert(c, 1)
                    .then(CurrentScope.get())
                    .doOnNext(scope -> {
                        scope.afterCommit(Mono.fromRunnable(() -> told.add("committed")));
                        scope.afterRollback(Mono.fromRunnable(() -> told.add("rolled back")));
                    })
                    .then());
            hooked.block(BOUND);
            assertThatThrownBy(() -> hooked.block(BOUND)).isInstanceOf(R2dbcException.class);

            assertThat(told).containsExactly("committed");
            scopes.inTransaction(c -> insert(c, 2).then(CurrentScope.get()).doOnNext(scope -> {
                        scope.afterRollback(Mono.fromRunnable(() -> told.add("rolled back")));
                        scope.setRollbackOnly();
                    }))
                    .block(BOUND);
            assertThat(told).containsExactly("committed", "rolled back");
        }

        @Test
        void failWhenAStatementFailedWhoseErrorNobodyMinded() {
            assertThatThrownBy(() -> scopes.inTransaction(
                                    c -> insert(c, 1).then(insert(c, 1).onErrorComplete()))
                            .block(BOUND))
                    .isInstanceOf(R2dbcException.class);
            assertThat(rows()).isEmpty();
        }

        @Test
        void haveSettingsThatEndWithThem() {
            ConnectionScopes tenant = scopes.with(
                    ScopeOptions.defaults().withSettings(SessionSettings.none().with("app.tenant", "acme")));

            assertThat(tenant().block(BOUND)).isEmpty();
            assertThat(tenant.inTransaction(c -> insert(c, 1).then(tenantOf(c))).block(BOUND))
                    .isEqualTo("acme");
            assertThat(tenant().block(BOUND)).as("after a transaction").isEmpty();
            assertThat(tenant.withConnection(c -> insert(c, 2).then(tenantOf(c)))
                            .block(BOUND))
                    .isEqualTo("acme");
            assertThat(tenant().block(BOUND)).as("after a plain scope").isEmpty();
        }

        @Test
        void haveSettingsThatOthersDoNotSee() {
            List<String> seen = Flux.range(0, 40)
                    .flatMap(i -> scopes.with(ScopeOptions.defaults()
                                    .withSettings(SessionSettings.none().with("app.tenant", "t" + i)))
                            .withConnection(c -> Mono.delay(Duration.ofMillis(1))
                                    .then(tenantOf(c))
                                    .map(found -> i + found)))
                    .collectList()
                    .blockOptional(BOUND)
                    .orElseThrow();

            assertThat(seen).hasSize(40).allMatch(found -> found.matches("(\\d+)t\\1"));
        }

        private Mono<String> tenant() {
            return scopes.withConnection(SandboxOfAnApplicationIT::tenantOf);
        }

        @Test
        void haveTimeLimits() {
            ConnectionScopes hasty = scopes.with(ScopeOptions.defaults().withStatementTimeout(Duration.ofMillis(200)));

            assertThatThrownBy(() -> hasty.inTransaction(c -> insert(c, 1)
                                    .thenMany(Rows.ints(c, "select 1 from pg_sleep(600)"))
                                    .then())
                            .block(BOUND))
                    .isInstanceOf(ScopeTimeoutException.class);
            assertThat(rows()).isEmpty();
        }

        @Test
        void readPageByPage() {
            Long read = scopes.inTransactionMany(c -> Rows.ints(
                                    c.createStatement("select g from generate_series(1, 30000) g")
                                            .fetchSize(1000))
                            .concatMap(n -> n % 3000 == 0 ? insert(c, n).thenReturn(n) : Mono.just(n), 1))
                    .count()
                    .block(BOUND);

            assertThat(read).isEqualTo(30_000);
            assertThat(scopes.withConnectionMany(
                                    c -> Rows.ints(c.createStatement("select g from generate_series(1, 30000) g")
                                            .fetchSize(1000)))
                            .count()
                            .block(BOUND))
                    .isEqualTo(30_000);
        }

        @Test
        void canceledInTheMiddleOfAQueryLetTheServerStop() {
            assertThat(scopes.inTransactionMany(
                                    c -> insert(c, 1).thenMany(Rows.ints(c, "select generate_series(1, 20000000)")))
                            .blockFirst(BOUND))
                    .isEqualTo(1);
            assertThat(scopes.withConnectionMany(c -> Rows.ints(c, "select generate_series(1, 20000000)"))
                            .blockFirst(BOUND))
                    .isEqualTo(1);

            assertThat(rows()).isEmpty();
        }

        @Test
        void copyAndWriteInBatches() {
            CopyIn<Integer> copy = CopyIn.<Integer>into("app_rows").column("n", CopyType.INTEGER, n -> n);
            UnnestWriter<Integer> writer =
                    UnnestWriter.<Integer>into("app_rows").column("n", "int", n -> n);

            assertThat(copy.write(scopes, Flux.range(0, 100)).block(BOUND)).isEqualTo(100);
            assertThat(scopes.inTransaction(c -> copy.write(c, Flux.range(100, 100)))
                            .block(BOUND))
                    .isEqualTo(100);
            assertThat(scopes.withConnection(c -> copy.write(c, Flux.range(200, 100)))
                            .block(BOUND))
                    .isEqualTo(100);
            assertThat(writer.write(scopes, Flux.range(300, 100)).block(BOUND)).isEqualTo(100);
            assertThat(rows()).hasSize(400);
        }

        @Test
        void takeLocks() {
            assertThat(AdvisoryLock.of("sandbox lock")
                            .during(scopes, c -> insert(c, 1).thenReturn(1))
                            .block(BOUND))
                    .isEqualTo(1);
            assertThat(scopes.inTransaction(c -> AdvisoryLock.of("sandbox lock")
                                    .forTransaction()
                                    .tryAcquire(c))
                            .block(BOUND))
                    .isTrue();
        }

        @Test
        void areToldThatNothingCanBeHeard() {
            assertThatThrownBy(() -> Notifications.of(scopes).listen("news").blockFirst(BOUND))
                    .isInstanceOf(SandboxUnsupportedException.class);
        }

        @Test
        void retryWhatTheyWould() {
            AtomicInteger attempts = new AtomicInteger();
            scopes.transactions(TransactionOptions.defaults()
                            .withIsolation(IsolationLevel.SERIALIZABLE)
                            .withRetry(RetryPolicy.serialization(3)))
                    .inTransaction(c -> insert(c, attempts.incrementAndGet())
                            .then(
                                    attempts.get() < 3
                                            ? Rows.update(c, "do $$ begin raise sqlstate '40001'; end $$")
                                                    .then()
                                            : Mono.empty()))
                    .block(BOUND);

            assertThat(rows()).containsExactly(3);
        }
    }

    private static Mono<String> tenantOf(Connection connection) {
        return Flux.from(connection
                        .createStatement("select coalesce(current_setting('app.tenant', true), '')")
                        .execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, String.class)))
                .single();
    }

    @Nested
    class Spring {

        private final DatabaseClient client = DatabaseClient.create(DATABASE.connectionFactory());
        private final R2dbcTransactionManager manager = new R2dbcTransactionManager(DATABASE.connectionFactory());
        private final TransactionalOperator transaction = TransactionalOperator.create(manager);

        private Mono<Integer> insert(int n) {
            return client.sql("insert into app_rows values (:n)")
                    .bind("n", n)
                    .then()
                    .thenReturn(n);
        }

        @Test
        void commitsAndRollsBack() {
            insert(1).as(transaction::transactional).block(BOUND);
            assertThatThrownBy(() -> insert(2)
                            .then(fail())
                            .as(transaction::transactional)
                            .block(BOUND))
                    .hasMessage("the user's");
            assertThatThrownBy(() -> insert(1).as(transaction::transactional).block(BOUND))
                    .isInstanceOf(org.springframework.dao.DataIntegrityViolationException.class);

            assertThat(rows()).containsExactly(1);
        }

        @Test
        void nestsByItsSavepoints() {
            org.springframework.transaction.support.DefaultTransactionDefinition nested =
                    new org.springframework.transaction.support.DefaultTransactionDefinition(
                            org.springframework.transaction.TransactionDefinition.PROPAGATION_NESTED);
            insert(1)
                    .then(insert(2)
                            .then(SandboxOfAnApplicationIT.<Integer>fail())
                            .as(TransactionalOperator.create(manager, nested)::transactional)
                            .onErrorComplete())
                    .then(insert(3))
                    .as(transaction::transactional)
                    .block(BOUND);

            assertThat(rows()).containsExactly(1, 3);
        }

        @Test
        void readsWhileItWritesWithAConnectionForEachStatement() {
            Long written = client.sql("select g from generate_series(1, 200) g")
                    .map(row -> row.get(0, Integer.class))
                    .all()
                    .flatMap(this::insert)
                    .count()
                    .block(BOUND);

            assertThat(written).isEqualTo(200);
            assertThat(rows()).hasSize(200);
        }

        @Test
        void worksForManyAtOnce() {
            Flux.range(0, 100)
                    .flatMap(
                            i -> insert(i)
                                    .then(i % 2 == 0 ? Mono.just(i) : SandboxOfAnApplicationIT.<Integer>fail())
                                    .as(transaction::transactional)
                                    .onErrorResume(IllegalArgumentException.class, e -> Mono.empty()),
                            100)
                    .then()
                    .block(BOUND);

            assertThat(rows()).hasSize(50).allMatch(n -> n % 2 == 0);
        }
    }

    @Nested
    class Jooq {

        private final DSLContext jooq = DSL.using(DATABASE.connectionFactory(), SQLDialect.POSTGRES);

        @Test
        void readsWritesAndRunsTransactions() {
            Mono.from(jooq.query("insert into app_rows values (1)")).block(BOUND);
            Flux.from(jooq.transactionPublisher(inside -> DSL.using(inside).query("insert into app_rows values (2)")))
                    .blockLast(BOUND);
            assertThatThrownBy(() -> Flux.from(jooq.transactionPublisher(
                                    inside -> Flux.from(DSL.using(inside).query("insert into app_rows values (3)"))
                                            .then(fail())))
                            .blockLast(BOUND))
                    .hasStackTraceContaining("the user's");

            assertThat(Flux.from(jooq.resultQuery("select n from app_rows where n < 1000 order by n"))
                            .map(row -> row.get(0, Integer.class))
                            .collectList()
                            .block(BOUND))
                    .containsExactly(1, 2);
        }
    }

    @Test
    void aFailedCopyHurtsNobodyElse() {
        CopyIn<Integer> copy = CopyIn.<Integer>into("app_rows").column("n", CopyType.INTEGER, n -> n);

        assertThatThrownBy(() -> copy.write(scopes, Flux.just(1, 2, 1)).block(BOUND))
                .isInstanceOf(CopyException.class);
        assertThat(rows()).isEmpty();
        scopes.inTransaction(c -> insert(c, 7)).block(BOUND);
        assertThat(rows()).containsExactly(7);
    }
}
