package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import dev.r2dbcscope.testkit.RollbackSandbox;
import dev.r2dbcscope.testkit.SandboxBusyException;
import dev.r2dbcscope.testkit.SandboxClosedException;
import dev.r2dbcscope.testkit.SandboxLeakException;
import dev.r2dbcscope.testkit.SandboxOptions;
import dev.r2dbcscope.testkit.SandboxUnsupportedException;
import io.r2dbc.postgresql.api.PostgresTransactionDefinition;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import java.util.List;
import java.util.function.Function;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The rollback sandbox on a real pool: what an application sees of it, and that nothing of that stays. */
class SandboxIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private static final WatchedPool REAL = WatchedPool.of(2);

    private final RollbackSandbox sandbox = RollbackSandbox.of(REAL.pool);

    @BeforeAll
    static void table() {
        Postgres.execute("drop table if exists boxed; create table boxed (n int primary key)");
    }

    @AfterAll
    static void drop() {
        REAL.close();
        Postgres.execute("drop table boxed");
    }

    @BeforeEach
    void begin() {
        sandbox.begin().block(BOUND);
    }

    @AfterEach
    void nothingStays() {
        sandbox.rollback().block(BOUND);
        assertThat(Postgres.number("select count(*) from boxed")).isZero();
        REAL.assertWhole();
    }

    private <T> List<T> with(Function<Connection, Publisher<T>> work) {
        return with(sandbox, work);
    }

    private static <T> List<T> with(RollbackSandbox sandbox, Function<Connection, Publisher<T>> work) {
        return Flux.usingWhen(sandbox.create(), work, Connection::close)
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
    }

    private static Flux<Long> insert(Connection connection, int n) {
        return Rows.update(
                connection.createStatement("insert into boxed values ($1)").bind(0, n));
    }

    private static Flux<Integer> all(Connection connection) {
        return Rows.ints(connection, "select n from boxed order by n");
    }

    private List<Integer> all() {
        return with(SandboxIT::all);
    }

    private Connection open() {
        return sandbox.create().blockOptional(BOUND).orElseThrow();
    }

    private static void run(Publisher<?> work) {
        Flux.from(work).blockLast(BOUND);
    }

    @Nested
    class InAutoCommit {

        @Test
        void whatOneConnectionWritesTheNextOneSees() {
            with(c -> insert(c, 1));

            assertThat(all()).containsExactly(1);
            assertThat(Postgres.number("select count(*) from boxed")).isZero();
        }

        @Test
        void aStatementThatFailsUndoesOnlyItself() {
            with(c -> insert(c, 1));

            assertThatThrownBy(() -> with(c -> insert(c, 1)))
                    .isInstanceOf(R2dbcException.class)
                    .extracting(e -> ((R2dbcException) e).getSqlState())
                    .isEqualTo("23505");
            with(c -> insert(c, 2).thenMany(insert(c, 3)));

            assertThat(all()).containsExactly(1, 2, 3);
        }

        @Test
        void aStatementThatFailsAmongItsRowsUndoesOnlyItself() {
            with(c -> insert(c, 1));
            assertThatThrownBy(() -> with(c -> Rows.ints(c, "select 10 / (5 - g) from generate_series(1, 9) g")))
                    .isInstanceOf(R2dbcException.class);

            assertThat(all()).containsExactly(1);
        }

        @Test
        void manyBindingsOfWhichOneFailsAreUndoneAsOne() {
            assertThatThrownBy(() -> with(c -> Rows.update(c.createStatement("insert into boxed values ($1)")
                            .bind(0, 1)
                            .add()
                            .bind(0, 1)
                            .add()
                            .bind(0, 2))))
                    .isInstanceOf(R2dbcException.class);

            assertThat(all()).isEmpty();
            with(c -> Rows.update(c.createStatement("insert into boxed values ($1)")
                    .bind(0, 1)
                    .add()
                    .bind(0, 2)));
            assertThat(all()).containsExactly(1, 2);
        }

        @Test
        void aBatchIsExecuted() {
            assertThat(with(c -> Flux.from(c.createBatch()
                                    .add("insert into boxed values (1)")
                                    .add("insert into boxed values (2)")
                                    .execute())
                            .flatMap(Result::getRowsUpdated)))
                    .containsExactly(1L, 1L);
            assertThatThrownBy(() -> with(c -> Flux.from(c.createBatch()
                                    .add("insert into boxed values (3)")
                                    .add("insert into boxed values (1)")
                                    .execute())
                            .flatMap(Result::getRowsUpdated)))
                    .isInstanceOf(R2dbcException.class);

            assertThat(all()).containsExactly(1, 2);
        }

        @Test
        void rowsThatAreReadSlowlyLetOtherConnectionsWork() {
            List<Integer> seen = with(c -> Rows.ints(c, "select g from generate_series(1, 300) g")
                    .concatMap(
                            n -> Flux.usingWhen(sandbox.create(), other -> insert(other, n), Connection::close)
                                    .then(Mono.just(n)),
                            1));

            assertThat(seen).hasSize(300);
            assertThat(all()).hasSize(300);
        }

        @Test
        void rowsThatAreReadSlowlyLetTheSameConnectionWork() {
            List<Long> seen = with(
                    c -> Rows.ints(c, "select g from generate_series(1, 300) g").concatMap(n -> insert(c, n), 1));

            assertThat(seen).hasSize(300).containsOnly(1L);
        }

        @Test
        void aResultThatIsNeverReadStopsNobody() {
            Connection careless = open();
            Result unread = Flux.from(careless.createStatement("select g from generate_series(1, 5000) g")
                            .execute())
                    .blockFirst(BOUND);

            with(c -> insert(c, 1));

            assertThat(unread).isNotNull();
            assertThat(all()).containsExactly(1);
            run(careless.close());
        }

        @Test
        void whoeverLeavesAfterOneRowLeavesTheOthersTheConnection() {
            for (int i = 0; i < 5; i++) {
                Integer first = Flux.usingWhen(
                                sandbox.create(),
                                c -> Rows.ints(c, "select g from generate_series(1, 20000) g"),
                                Connection::close)
                        .blockFirst(BOUND);
                assertThat(first).isEqualTo(1);
            }
            with(c -> insert(c, 1));
            assertThat(all()).containsExactly(1);
        }

        @Test
        void whatStillRunsWhenItsConnectionIsClosedIsCancelledByTheServer() {
            with(c -> insert(c, 1));
            long begun = System.nanoTime();
            Mono.usingWhen(
                            sandbox.create(),
                            c -> Rows.update(c, "insert into boxed select 2 from pg_sleep(600)")
                                    .then(),
                            Connection::close)
                    .timeout(Duration.ofMillis(300), Mono.empty())
                    .block(BOUND);

            assertThat(all()).containsExactly(1);
            assertThat(Duration.ofNanos(System.nanoTime() - begun)).isLessThan(BOUND);
        }
    }

    @Nested
    class InATransaction {

        @Test
        void commitKeepsAndRollbackUndoes() {
            with(c -> Flux.from(c.beginTransaction()).thenMany(insert(c, 1)).thenMany(c.commitTransaction()));
            with(c -> Flux.from(c.beginTransaction()).thenMany(insert(c, 2)).thenMany(c.rollbackTransaction()));
            with(c -> Flux.from(c.beginTransaction()).thenMany(insert(c, 3)));

            assertThat(all()).containsExactly(1);
        }

        @Test
        void aStatementThatFailsFailsTheTransactionUntilItsRollback() {
            Connection c = open();
            run(c.beginTransaction());
            run(insert(c, 1));
            assertThatThrownBy(() -> run(insert(c, 1))).isInstanceOf(R2dbcException.class);

            assertThatThrownBy(() -> run(insert(c, 2)))
                    .extracting(e -> ((R2dbcException) e).getSqlState())
                    .isEqualTo("25P02");
            assertThatThrownBy(() -> run(c.commitTransaction())).isInstanceOf(R2dbcRollbackException.class);
            assertThat(c.isAutoCommit()).isTrue();
            run(insert(c, 3));
            run(c.close());

            assertThat(all()).containsExactly(3);
        }

        @Test
        void aFailedTransactionCanBeRolledBackAndTheConnectionUsed() {
            Connection c = open();
            run(c.beginTransaction());
            assertThatThrownBy(() -> run(Rows.ints(c, "select 1/0"))).isInstanceOf(R2dbcException.class);
            run(c.rollbackTransaction());
            run(c.beginTransaction());
            run(insert(c, 1));
            run(c.commitTransaction());
            run(c.close());

            assertThat(all()).containsExactly(1);
        }

        @Test
        void savepointsAreSavepoints() {
            with(c -> Flux.from(c.beginTransaction())
                    .thenMany(insert(c, 1))
                    .thenMany(c.createSavepoint("one"))
                    .thenMany(insert(c, 2))
                    .thenMany(c.rollbackTransactionToSavepoint("one"))
                    .thenMany(insert(c, 3))
                    .thenMany(c.releaseSavepoint("one"))
                    .thenMany(c.commitTransaction()));

            assertThat(all()).containsExactly(1, 3);
        }

        @Test
        void savepointsBySqlAreSavepoints() {
            with(c -> Flux.from(c.beginTransaction())
                    .thenMany(Rows.update(c, "savepoint one"))
                    .thenMany(insert(c, 2))
                    .thenMany(Rows.update(c, "/* not COMMIT */ rollback transaction to one"))
                    .thenMany(insert(c, 3))
                    .thenMany(c.commitTransaction()));

            assertThat(all()).containsExactly(3);
        }

        @Test
        void aSavepointBeginsATransactionAsTheDriverDoes() {
            Connection c = open();
            run(c.createSavepoint("one"));
            assertThat(c.isAutoCommit()).isFalse();
            run(insert(c, 1));
            run(c.rollbackTransactionToSavepoint("one"));
            run(c.commitTransaction());
            run(c.close());

            assertThat(all()).isEmpty();
        }

        @Test
        void autoCommitIsSwitched() {
            Connection c = open();
            run(c.setAutoCommit(false));
            assertThat(c.isAutoCommit()).isFalse();
            run(insert(c, 1));
            run(c.setAutoCommit(true));
            assertThat(c.isAutoCommit()).isTrue();
            run(c.rollbackTransaction());
            run(c.close());

            assertThat(all()).containsExactly(1);
        }

        @Test
        void othersWaitForItsEnd() {
            Connection c = open();
            run(c.beginTransaction());
            run(insert(c, 1));
            Mono<List<Integer>> other = Flux.usingWhen(sandbox.create(), SandboxIT::all, Connection::close)
                    .collectList()
                    .cache();
            other.subscribe();
            run(insert(c, 2));
            run(c.rollbackTransaction());
            run(c.close());

            assertThat(other.block(BOUND)).isEmpty();
        }

        @Test
        void itsDefinitionIsSeen() {
            Connection c = open();
            IsolationLevel before = c.getTransactionIsolationLevel();
            run(c.beginTransaction(PostgresTransactionDefinition.from(IsolationLevel.SERIALIZABLE)
                    .readOnly()));

            assertThat(c.getTransactionIsolationLevel()).isEqualTo(IsolationLevel.SERIALIZABLE);
            assertThatThrownBy(() -> run(insert(c, 1)))
                    .extracting(e -> ((R2dbcException) e).getSqlState())
                    .isEqualTo("25006");
            run(c.rollbackTransaction());
            assertThat(c.getTransactionIsolationLevel()).isEqualTo(before);
            run(c.beginTransaction(PostgresTransactionDefinition.from(IsolationLevel.SERIALIZABLE)
                    .readOnly()));
            run(all(c));
            run(c.commitTransaction());
            run(insert(c, 2));
            run(c.close());

            assertThat(all()).containsExactly(2);
        }

        @Test
        void whatIsSubscribedToRightBehindItsBeginBelongsToIt() {
            Connection c = open();
            run(Mono.when(c.beginTransaction(), insert(c, 1), insert(c, 2)));
            run(c.rollbackTransaction());
            run(c.close());

            assertThat(all()).isEmpty();
        }

        @Test
        void whatFollowsItsCommitDoesNotBelongToIt() {
            Connection c = open();
            run(c.beginTransaction());
            run(Mono.when(insert(c, 1), c.rollbackTransaction(), insert(c, 2)));
            run(c.close());

            assertThat(all()).containsExactly(2);
        }

        @Test
        void nestedQueriesOnItsConnectionMakeProgress() {
            List<Long> seen = with(c -> Flux.from(c.beginTransaction())
                    .thenMany(Rows.ints(c, "select g from generate_series(1, 300) g")
                            .concatMap(n -> insert(c, n), 1))
                    .concatWith(Flux.from(c.commitTransaction()).then(Mono.empty())));

            assertThat(seen).hasSize(300);
            assertThat(all()).hasSize(300);
        }

        @Test
        void closingAConnectionWithAStatementUnderWayRollsBackAtOnce() {
            with(c -> insert(c, 1));
            Mono.usingWhen(
                            sandbox.create(),
                            c -> Flux.from(c.beginTransaction())
                                    .thenMany(insert(c, 2))
                                    .thenMany(Rows.update(c, "insert into boxed select 3 from pg_sleep(600)"))
                                    .then(),
                            Connection::close)
                    .timeout(Duration.ofMillis(300), Mono.empty())
                    .block(BOUND);

            assertThat(all()).containsExactly(1);
        }

        @Test
        void deferredConstraintsAreCheckedAtCommitIfThatIsWanted() {
            Postgres.execute("drop table if exists child; drop table if exists parent;"
                    + " create table parent (id int primary key);"
                    + " create table child (id int references parent deferrable initially deferred)");
            RollbackSandbox checking = RollbackSandbox.of(
                    Postgres.connectionFactory(), SandboxOptions.defaults().withDeferredConstraintsChecked(true));
            checking.begin().block(BOUND);
            try {
                assertThatThrownBy(() -> with(
                                checking,
                                c -> Flux.from(c.beginTransaction())
                                        .thenMany(Rows.update(c, "insert into child values (1)"))
                                        .thenMany(c.commitTransaction())))
                        .extracting(e -> ((R2dbcException) e).getSqlState())
                        .isEqualTo("23503");
                with(
                        checking,
                        c -> Flux.from(c.beginTransaction())
                                .thenMany(Rows.update(c, "insert into child values (2)"))
                                .thenMany(Rows.update(c, "insert into parent values (2)"))
                                .thenMany(c.commitTransaction()));
                with(
                        checking,
                        c -> Flux.from(c.beginTransaction())
                                .thenMany(Rows.update(c, "insert into child values (3)"))
                                .thenMany(Rows.update(c, "insert into parent values (3)"))
                                .thenMany(c.commitTransaction()));

                assertThat(with(checking, c -> Rows.ints(c, "select id from child order by id")))
                        .containsExactly(2, 3);
            } finally {
                checking.rollback().block(BOUND);
                Postgres.execute("drop table child; drop table parent");
            }
        }
    }

    @Nested
    class ThatWouldWaitForItself {

        private final RollbackSandbox impatient =
                RollbackSandbox.of(REAL.pool, SandboxOptions.defaults().withWaitLimit(Duration.ofSeconds(1)));
        private final RollbackSandbox nesting = RollbackSandbox.of(
                REAL.pool,
                SandboxOptions.defaults().withWaitLimit(Duration.ofSeconds(1)).withNesting(true));

        @AfterEach
        void rollBack() {
            impatient.rollback().block(BOUND);
            nesting.rollback().block(BOUND);
        }

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void failsAndNamesTheHolder(boolean begins) {
            impatient.begin().block(BOUND);
            Connection holder = impatient.create().blockOptional(BOUND).orElseThrow();
            run(holder.beginTransaction());

            Throwable error = catchThrowable(() -> with(
                    impatient, c -> begins ? Flux.from(c.beginTransaction()).cast(Integer.class) : all(c)));

            assertThat(error)
                    .isInstanceOf(SandboxBusyException.class)
                    .hasMessageContaining("connection #2")
                    .hasMessageContaining("connection #1 created by " + SandboxIT.class.getName());
            run(insert(holder, 1));
            run(holder.commitTransaction());
            run(holder.close());
            assertThat(with(impatient, SandboxIT::all)).containsExactly(1);
        }

        @Test
        void failsAtOnceWhereTheContextTells() {
            ConnectionScopes scopes = ConnectionScopes.of(sandbox);

            Throwable error = catchThrowable(() -> scopes.inTransaction(c -> insert(c, 1)
                            .then(scopes.transactions(Propagation.REQUIRES_NEW)
                                    .inTransaction(other -> insert(other, 2).then())))
                    .block(Duration.ofSeconds(5)));

            assertThat(error).isInstanceOf(SandboxBusyException.class);
            assertThat(all()).isEmpty();
        }

        @Test
        void isNestedIfThatIsWanted() {
            nesting.begin().block(BOUND);
            Connection holder = nesting.create().blockOptional(BOUND).orElseThrow();
            run(holder.beginTransaction());
            run(insert(holder, 1));
            with(
                    nesting,
                    c -> Flux.from(c.beginTransaction()).thenMany(insert(c, 2)).thenMany(c.commitTransaction()));
            with(
                    nesting,
                    c -> Flux.from(c.beginTransaction()).thenMany(insert(c, 3)).thenMany(c.rollbackTransaction()));
            with(nesting, c -> insert(c, 4));
            run(insert(holder, 5));
            run(holder.commitTransaction());
            run(holder.close());

            assertThat(with(nesting, SandboxIT::all)).containsExactly(1, 2, 4, 5);
        }

        @Test
        void isNestedAtOnceWhereTheContextTells() {
            RollbackSandbox patient = RollbackSandbox.of(
                    REAL.pool,
                    SandboxOptions.defaults().withWaitLimit(Duration.ofHours(1)).withNesting(true));
            patient.begin().block(BOUND);
            ConnectionScopes scopes = ConnectionScopes.of(patient);

            scopes.inTransaction(c -> insert(c, 1)
                            .then(scopes.transactions(Propagation.REQUIRES_NEW)
                                    .inTransaction(other -> insert(other, 2).then()))
                            .then(insert(c, 3).then()))
                    .block(BOUND);

            assertThat(with(patient, SandboxIT::all)).containsExactly(1, 2, 3);
            patient.rollback().block(BOUND);
        }
    }

    @Nested
    class AtItsEnd {

        @ParameterizedTest
        @ValueSource(strings = {"plain", "transaction", "running"})
        void aConnectionThatIsStillOpenIsNamed(String state) {
            RollbackSandbox strict =
                    RollbackSandbox.of(REAL.pool, SandboxOptions.defaults().withCloseGrace(Duration.ZERO));
            strict.begin().block(BOUND);
            Connection leaked = strict.create().blockOptional(BOUND).orElseThrow();
            run(insert(leaked, 1));
            if (!state.equals("plain")) {
                run(leaked.beginTransaction());
                run(insert(leaked, 2));
            }
            if (state.equals("running")) {
                Rows.ints(leaked, "select 1 from pg_sleep(600)").subscribe(n -> {}, e -> {});
            }

            Throwable error = catchThrowable(() -> strict.rollback().block(BOUND));

            assertThat(error).isInstanceOf(SandboxLeakException.class).hasMessageContaining(SandboxIT.class.getName());
            assertThat(((SandboxLeakException) error).origins()).hasSize(1);
            assertThatThrownBy(() -> run(all(leaked))).isInstanceOf(IllegalStateException.class);
            strict.begin().block(BOUND);
            assertThat(with(strict, SandboxIT::all)).isEmpty();
            strict.rollback().block(BOUND);
        }

        @Test
        void aConnectionThatIsClosedSoonIsWaitedFor() {
            Connection late = open();
            run(late.beginTransaction());
            run(insert(late, 1));
            Mono<Void> rollback = sandbox.rollback().cache();
            rollback.subscribe();
            run(insert(late, 2));
            run(late.close());

            rollback.block(BOUND);
        }

        @Test
        void itGivesNoConnectionsOutsideATest() {
            sandbox.rollback().block(BOUND);

            assertThatThrownBy(() -> with(SandboxIT::all)).isInstanceOf(SandboxClosedException.class);
        }

        @Test
        void itGivesRealConnectionsOutsideATestIfThatIsWanted() {
            RollbackSandbox open =
                    RollbackSandbox.of(REAL.pool, SandboxOptions.defaults().withRealConnectionsOutside(true));

            assertThat(with(open, SandboxIT::all)).isEmpty();
            open.begin().block(BOUND);
            with(open, c -> insert(c, 1));
            open.rollback().block(BOUND);
            assertThat(with(open, SandboxIT::all)).isEmpty();
        }

        @Test
        void itServesOneTestAtATime() {
            assertThatThrownBy(() -> sandbox.begin().block(BOUND))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining(SandboxIT.class.getName());
            with(c -> insert(c, 1));
        }

        @Test
        void aSecondRollbackDoesNothing() {
            sandbox.rollback().block(BOUND);
            sandbox.rollback().block(BOUND);
        }
    }

    @Nested
    class ByItsSqlText {

        @ParameterizedTest
        @ValueSource(
                strings = {
                    "begin",
                    "COMMIT",
                    "-- a comment\n /* and another */ Rollback",
                    "START TRANSACTION",
                    "set transaction isolation level serializable",
                    "set session characteristics as transaction read only",
                    "end",
                    "abort",
                    "prepare transaction 'x'",
                    "insert into boxed values (1); commit",
                    "listen news"
                })
        void whatWouldBreakTheSandboxIsRefused(String sql) {
            assertThatThrownBy(() -> with(c -> Rows.update(c, sql)))
                    .isInstanceOf(SandboxUnsupportedException.class)
                    .hasMessageContaining(sql);
            assertThatThrownBy(() -> with(c -> Flux.from(
                                    c.createBatch().add("select 1").add(sql).execute())
                            .flatMap(Result::getRowsUpdated)))
                    .isInstanceOf(SandboxUnsupportedException.class);
            assertThat(all()).isEmpty();
        }

        @Test
        void aSavepointNeedsATransaction() {
            assertThatThrownBy(() -> with(c -> Rows.update(c, "savepoint one")))
                    .isInstanceOf(SandboxUnsupportedException.class);
        }

        @Test
        void aSettingOfOneConnectionIsNotSeenByOthers() {
            Connection c = open();
            run(Rows.update(c, "set application_name = 'mine'"));
            Mono<List<String>> other = Flux.usingWhen(
                            sandbox.create(), o -> text(o, "show application_name"), Connection::close)
                    .collectList()
                    .cache();
            other.subscribe();

            assertThat(text(c, "show application_name").collectList().block(BOUND))
                    .containsExactly("mine");
            run(insert(c, 1));
            run(Rows.update(c, "reset application_name"));
            run(c.close());

            assertThat(other.block(BOUND)).doesNotContain("mine");
            assertThat(all()).containsExactly(1);
        }
    }

    private static Flux<String> text(Connection connection, String sql) {
        return Flux.from(connection.createStatement(sql).execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, String.class)));
    }

    @Nested
    class TheConnection {

        @Test
        void isValidUntilItIsClosed() {
            Connection c = open();
            assertThat(Mono.from(c.validate(ValidationDepth.LOCAL)).block(BOUND))
                    .isTrue();
            assertThat(Mono.from(c.validate(ValidationDepth.REMOTE)).block(BOUND))
                    .isTrue();
            assertThat(c.getMetadata().getDatabaseProductName()).isEqualTo("PostgreSQL");
            run(c.close());
            run(c.close());
            assertThat(Mono.from(c.validate(ValidationDepth.LOCAL)).block(BOUND))
                    .isFalse();
            assertThat(Mono.from(c.validate(ValidationDepth.REMOTE)).block(BOUND))
                    .isFalse();
            assertThatThrownBy(() -> c.createStatement("select 1")).isInstanceOf(IllegalStateException.class);
        }

        @Test
        void doesNothingOutsideATransactionWhereTheDriverDoesNothing() {
            with(c -> Flux.from(c.commitTransaction())
                    .thenMany(c.rollbackTransaction())
                    .thenMany(c.releaseSavepoint("none"))
                    .thenMany(c.rollbackTransactionToSavepoint("none")));
        }

        @Test
        void hasItsOwnTimeouts() {
            Connection c = open();
            run(c.setStatementTimeout(Duration.ofMillis(100)));
            assertThatThrownBy(() -> run(Rows.ints(c, "select 1 from pg_sleep(600)")))
                    .extracting(e -> ((R2dbcException) e).getSqlState())
                    .isEqualTo("57014");
            run(insert(c, 1));
            run(c.close());

            assertThat(with(o -> text(o, "show statement_timeout"))).containsExactly("0");
            assertThat(all()).containsExactly(1);
        }
    }
}
