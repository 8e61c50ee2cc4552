package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.function.Function;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.EnumSource.Mode;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The table of {@link Propagation}, cell by cell, as PostgreSQL sees it: closures and operators alike. */
class PropagationIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(2);
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table propagated (n int)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate propagated");
    }

    @AfterEach
    void theConnectionsSurvivedAndAreClean() {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    /** What two statements of the same scope tell of its connection and transaction. */
    private record Seen(int pid, String xid, boolean inTransaction) {}

    private static Mono<Seen> look(Connection connection) {
        Mono<String> xid = Flux.from(connection
                        .createStatement("select pg_backend_pid() || ' ' || pg_current_xact_id()")
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, String.class)))
                .single();
        return xid.zipWhen(first -> xid)
                .map(both -> new Seen(
                        Integer.parseInt(both.getT1().split(" ")[0]),
                        both.getT1().split(" ")[1],
                        both.getT1().equals(both.getT2())));
    }

    private static Mono<Long> insert(Connection connection, int n) {
        return Rows.update(connection
                        .createStatement("insert into propagated values ($1)")
                        .bind(0, n))
                .next();
    }

    private static List<Integer> durable() {
        return Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Rows.ints(c, "select n from propagated order by n").collectList(),
                        Connection::close)
                .blockOptional(LONG)
                .orElseThrow();
    }

    private ConnectionScopes with(Propagation mode) {
        return scopes.transactions(mode);
    }

    /** How a scope is written. */
    private enum Shape {
        MONO_CLOSURE {
            @Override
            <T> Mono<T> run(ConnectionScopes scopes, Function<Connection, Mono<T>> work) {
                return scopes.inTransaction(work);
            }
        },
        FLUX_CLOSURE {
            @Override
            <T> Mono<T> run(ConnectionScopes scopes, Function<Connection, Mono<T>> work) {
                return scopes.inTransactionMany(work).last();
            }
        },
        MONO_OPERATOR {
            @Override
            <T> Mono<T> run(ConnectionScopes scopes, Function<Connection, Mono<T>> work) {
                return Mono.from(scopes.connectionFactory().create())
                        .flatMap(work)
                        .as(scopes::transactional);
            }
        },
        FLUX_OPERATOR {
            @Override
            <T> Mono<T> run(ConnectionScopes scopes, Function<Connection, Mono<T>> work) {
                return Flux.from(scopes.connectionFactory().create())
                        .flatMap(work)
                        .as(scopes::transactional)
                        .last();
            }
        };

        abstract <T> Mono<T> run(ConnectionScopes scopes, Function<Connection, Mono<T>> work);
    }

    private static void inEveryShape(java.util.function.Consumer<Shape> test) {
        for (Shape shape : Shape.values()) {
            test.accept(shape);
        }
    }

    private static Supplier<IllegalArgumentException> usersError() {
        return () -> new IllegalArgumentException("the user's");
    }

    @Nested
    class WithoutAScope {

        @ParameterizedTest
        @EnumSource(names = {"REQUIRED", "REQUIRES_NEW", "NESTED"})
        void begins(Propagation mode) {
            inEveryShape(shape -> assertThat(
                            shape.run(with(mode), PropagationIT::look).block(LONG))
                    .matches(Seen::inTransaction, "in a transaction"));
        }

        @ParameterizedTest
        @EnumSource(names = {"SUPPORTS", "NOT_SUPPORTED", "NEVER"})
        void runsWithoutATransaction(Propagation mode) {
            inEveryShape(shape -> assertThat(
                            shape.run(with(mode), PropagationIT::look).block(LONG))
                    .matches(seen -> !seen.inTransaction(), "not in a transaction"));
        }

        @Test
        void mandatoryFailsAndOpensNothing() {
            inEveryShape(shape -> assertThatThrownBy(() -> shape.run(with(Propagation.MANDATORY), PropagationIT::look)
                            .block(LONG))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("MANDATORY")
                    .hasMessageContaining("PropagationIT"));
            assertThat(pool.events(ScopeEvent.Waiting.class)).isEmpty();
        }
    }

    @Nested
    class InsideAPlainScope {

        private List<Seen> outerAndInner(Shape shape, Propagation mode) {
            return scopes.withConnection(c -> look(c).zipWhen(outer -> shape.run(with(mode), PropagationIT::look)))
                    .map(both -> List.of(both.getT1(), both.getT2()))
                    .blockOptional(LONG)
                    .orElseThrow();
        }

        @ParameterizedTest
        @EnumSource(names = {"REQUIRED", "REQUIRES_NEW", "NESTED"})
        void beginsOnItsConnection(Propagation mode) {
            inEveryShape(shape -> {
                List<Seen> seen = outerAndInner(shape, mode);
                assertThat(seen).extracting(Seen::inTransaction).containsExactly(false, true);
                assertThat(seen.get(1).pid()).isEqualTo(seen.get(0).pid());
            });
        }

        @ParameterizedTest
        @EnumSource(names = {"SUPPORTS", "NOT_SUPPORTED", "NEVER"})
        void joinsWithoutATransaction(Propagation mode) {
            inEveryShape(shape -> {
                List<Seen> seen = outerAndInner(shape, mode);
                assertThat(seen).extracting(Seen::inTransaction).containsExactly(false, false);
                assertThat(seen.get(1).pid()).isEqualTo(seen.get(0).pid());
            });
        }

        @Test
        void mandatoryFailsAndTheScopeGoesOn() {
            inEveryShape(shape -> assertThat(scopes.withConnection(
                                    c -> shape.run(with(Propagation.MANDATORY), PropagationIT::look)
                                            .map(Seen::pid)
                                            .onErrorResume(ScopePropagationException.class, e -> Mono.just(0))
                                            .flatMap(zero -> look(c).map(Seen::pid)))
                            .block(LONG))
                    .isPositive());
        }
    }

    @Nested
    class InsideATransaction {

        private List<Seen> outerAndInner(Shape shape, Propagation mode) {
            return scopes.inTransaction(c -> look(c).zipWhen(outer -> shape.run(with(mode), PropagationIT::look)))
                    .map(both -> List.of(both.getT1(), both.getT2()))
                    .blockOptional(LONG)
                    .orElseThrow();
        }

        @ParameterizedTest
        @EnumSource(names = {"REQUIRED", "MANDATORY", "SUPPORTS", "NESTED"})
        void isPartOfIt(Propagation mode) {
            inEveryShape(shape -> {
                List<Seen> seen = outerAndInner(shape, mode);
                assertThat(seen.get(1)).isEqualTo(seen.get(0));
                assertThat(seen.get(0).inTransaction()).isTrue();
            });
        }

        @Test
        void requiresNewBeginsOnAnotherConnection() {
            inEveryShape(shape -> {
                List<Seen> seen = outerAndInner(shape, Propagation.REQUIRES_NEW);
                assertThat(seen).extracting(Seen::inTransaction).containsExactly(true, true);
                assertThat(seen.get(1).pid()).isNotEqualTo(seen.get(0).pid());
            });
        }

        @Test
        void notSupportedRunsOnAnotherConnectionWithoutOne() {
            inEveryShape(shape -> {
                List<Seen> seen = outerAndInner(shape, Propagation.NOT_SUPPORTED);
                assertThat(seen).extracting(Seen::inTransaction).containsExactly(true, false);
                assertThat(seen.get(1).pid()).isNotEqualTo(seen.get(0).pid());
            });
        }

        @Test
        void neverFailsAndTheTransactionGoesOn() {
            inEveryShape(shape -> {
                emptyTable();
                scopes.inTransaction(c -> insert(c, 1)
                                .then(shape.run(with(Propagation.NEVER), PropagationIT::look)
                                        .map(Seen::inTransaction)
                                        .onErrorResume(ScopePropagationException.class, e -> Mono.just(false)))
                                .then(insert(c, 2)))
                        .block(LONG);
                assertThat(durable()).containsExactly(1, 2);
            });
            assertThatThrownBy(() -> scopes.inTransaction(
                                    c -> with(Propagation.NEVER).inTransaction(PropagationIT::look))
                            .block(LONG))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("NEVER")
                    .hasMessageContaining("NOT_SUPPORTED");
        }

        @ParameterizedTest
        @EnumSource(
                names = {"NEVER"},
                mode = Mode.EXCLUDE)
        void aFailureInsideThatIsCaughtRollsBackWhatTheTableSays(Propagation mode) {
            EnumSet<Propagation> joins = EnumSet.of(Propagation.REQUIRED, Propagation.MANDATORY, Propagation.SUPPORTS);
            inEveryShape(shape -> {
                emptyTable();
                Mono<Long> whole = scopes.inTransaction(c -> insert(c, 1)
                        .then(shape.run(with(mode), inner -> insert(inner, 2).then(Mono.<Long>error(usersError())))
                                .onErrorResume(IllegalArgumentException.class, e -> Mono.just(0L)))
                        .then(insert(c, 3)));
                if (joins.contains(mode)) {
                    assertThatThrownBy(() -> whole.block(LONG)).isInstanceOf(ScopeRolledBackException.class);
                    assertThat(durable()).isEmpty();
                } else {
                    whole.block(LONG);
                    assertThat(durable())
                            .isEqualTo(mode == Propagation.NOT_SUPPORTED ? List.of(1, 2, 3) : List.of(1, 3));
                }
            });
        }

        @ParameterizedTest
        @EnumSource(
                names = {"NEVER"},
                mode = Mode.EXCLUDE)
        void aFailureOutsideAfterwardsRollsBackWhatTheTableSays(Propagation mode) {
            EnumSet<Propagation> independent = EnumSet.of(Propagation.REQUIRES_NEW, Propagation.NOT_SUPPORTED);
            inEveryShape(shape -> {
                emptyTable();
                assertThatThrownBy(() -> scopes.inTransaction(c -> insert(c, 1)
                                        .then(shape.run(with(mode), inner -> insert(inner, 2)))
                                        .then(Mono.<Long>error(usersError())))
                                .block(LONG))
                        .hasMessage("the user's");
                assertThat(durable()).isEqualTo(independent.contains(mode) ? List.of(2) : List.of());
            });
        }
    }

    @Nested
    class Savepoints {

        private final ConnectionScopes nested = with(Propagation.NESTED);

        @Test
        void cancelOfTheInnerPipelineAloneRollsBackToIt() {
            scopes.inTransaction(c -> insert(c, 1)
                            .thenMany(nested.inTransactionMany(
                                            inner -> insert(inner, 2).thenMany(Flux.range(0, 1_000)))
                                    .take(3))
                            .then(nested.inTransaction(inner -> insert(inner, 3).then(Mono.<Long>never()))
                                    .timeout(Duration.ofMillis(200), Mono.just(0L)))
                            .then(insert(c, 4)))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 4);
        }

        @Test
        void aFailedStatementInsideLeavesTheTransactionUsable() {
            scopes.inTransaction(c -> insert(c, 1)
                            .then(nested.inTransaction(inner -> insert(inner, 2)
                                            .thenMany(Rows.ints(inner, "select 1 / 0"))
                                            .next())
                                    .onErrorReturn(0))
                            .then(insert(c, 3)))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 3);
        }

        @Test
        void aSwallowedErrorInsideIsNoSuccess() {
            scopes.inTransaction(c -> insert(c, 1)
                            .then(nested.inTransaction(inner -> insert(inner, 2)
                                            .thenMany(Rows.ints(inner, "select 1 / 0"))
                                            .onErrorResume(e -> Mono.just(0))
                                            .next())
                                    .map(value -> "committed")
                                    .onErrorResume(ScopeRolledBackException.class, e -> Mono.just("rolled back")))
                            .flatMap(how -> insert(c, how.equals("rolled back") ? 3 : 999)))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 3);
        }

        @Test
        void inATransactionThatHasFailedIsRefusedByTheDatabaseAndTheRestIsRolledBack() {
            assertThatThrownBy(() -> scopes.inTransaction(c -> insert(c, 1)
                                    .thenMany(Rows.ints(c, "select 1 / 0").onErrorResume(e -> Mono.empty()))
                                    .then(nested.inTransaction(inner -> insert(inner, 2))))
                            .block(LONG))
                    .hasMessageContaining("current transaction is aborted");
            assertThat(durable()).isEmpty();
        }

        @Test
        void parallelSiblingsTakeTurnsAndDoNotTouchEachOther() {
            List<Integer> kept = scopes.inTransactionMany(c -> Flux.range(0, 200)
                            .flatMap(
                                    n -> nested.inTransaction(inner -> insert(inner, n)
                                                    .then(look(inner))
                                                    .flatMap(seen -> n % 3 == 0
                                                            ? Mono.<Integer>error(usersError())
                                                            : Mono.just(n)))
                                            .onErrorResume(IllegalArgumentException.class, e -> Mono.empty()),
                                    64))
                    .collectSortedList()
                    .blockOptional(LONG)
                    .orElseThrow();
            assertThat(kept).hasSize(133).noneMatch(n -> n % 3 == 0);
            assertThat(durable()).isEqualTo(kept);
        }

        @Test
        void areNestedWithinEachOther() {
            scopes.inTransaction(c -> insert(c, 1)
                            .then(nested.inTransaction(a -> insert(a, 2)
                                    .then(nested.inTransaction(b -> insert(b, 3)
                                                    .then(nested.inTransaction(d -> insert(d, 4)))
                                                    .then(Mono.<Long>error(usersError())))
                                            .onErrorReturn(0L))
                                    .then(nested.inTransaction(b -> insert(b, 5))))))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 2, 5);
        }

        @Test
        void aJoinedFailureInsideRollsBackTheSavepointOnly() {
            scopes.inTransaction(c -> insert(c, 1)
                            .then(nested.inTransaction(a -> insert(a, 2)
                                            .then(scopes.inTransaction(joined ->
                                                            insert(joined, 3).then(Mono.<Long>error(usersError())))
                                                    .onErrorReturn(0L)))
                                    .onErrorResume(ScopeRolledBackException.class, e -> Mono.just(0L)))
                            .then(insert(c, 4)))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 4);
        }

        @Test
        void perRowOfAnOpenResultOfTheTransaction() {
            Postgres.execute("insert into propagated select generate_series(1, 3000)");
            scopes.inTransactionMany(c -> Rows.ints(c, "select n from propagated")
                            .flatMap(
                                    n -> nested.inTransaction(inner -> insert(inner, -n))
                                            .filter(changed -> n % 1000 != 0)
                                            .switchIfEmpty(Mono.error(usersError()))
                                            .onErrorResume(IllegalArgumentException.class, e -> Mono.empty()),
                                    16))
                    .then()
                    .block(LONG);
            assertThat(durable()).hasSize(6_000);
        }

        @Test
        void aStatementOfTheOuterHandleInsideBelongsToTheSavepoint() {
            scopes.inTransaction(outer -> insert(outer, 1)
                            .then(nested.inTransaction(inner -> insert(outer, 2).then(Mono.<Long>error(usersError())))
                                    .onErrorReturn(0L))
                            .then(insert(outer, 3)))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 3);
        }

        @Test
        void theOuterHandleReachesItsOwnConnectionFromWithinAnIndependentTransaction() {
            ConnectionScopes requiresNew = with(Propagation.REQUIRES_NEW);
            scopes.withConnection(plain -> scopes.inTransaction(c -> insert(c, 1)
                            .then(requiresNew
                                    .inTransaction(own -> insert(own, 2)
                                            .then(insert(plain, 3))
                                            .then(insert(c, 4))
                                            .then(Mono.<Long>error(usersError())))
                                    .onErrorReturn(0L))))
                    .block(LONG);
            assertThat(durable()).containsExactly(1, 3, 4);
        }
    }

    @Nested
    class WhatDoesNotFit {

        private ConnectionScopes inner(TransactionOptions options) {
            return scopes.transactions(options);
        }

        @ParameterizedTest
        @EnumSource(names = {"REQUIRED", "MANDATORY", "SUPPORTS", "NESTED"})
        void anotherIsolationLevelIsRefused(Propagation mode) {
            TransactionOptions serializable =
                    TransactionOptions.defaults().withPropagation(mode).withIsolation(IsolationLevel.SERIALIZABLE);
            assertThatThrownBy(
                            () -> scopes.inTransaction(c -> inner(serializable).inTransaction(PropagationIT::look))
                                    .block(LONG))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("SERIALIZABLE")
                    .hasMessageContaining("the database's own level");
            assertThatThrownBy(() -> scopes.transactions(
                                    TransactionOptions.defaults().withIsolation(IsolationLevel.REPEATABLE_READ))
                            .inTransaction(c -> with(Propagation.NESTED)
                                    .inTransaction(n -> inner(serializable).inTransaction(PropagationIT::look)))
                            .block(LONG))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("SERIALIZABLE")
                    .hasMessageContaining("REPEATABLE READ");
        }

        @Test
        void theSameIsolationLevelJoins() {
            ConnectionScopes serializable =
                    inner(TransactionOptions.defaults().withIsolation(IsolationLevel.SERIALIZABLE));
            assertThat(serializable
                            .inTransaction(c -> serializable.inTransaction(PropagationIT::look))
                            .block(LONG))
                    .matches(Seen::inTransaction);
        }

        @Test
        void writingInsideAReadOnlyTransactionIsRefused() {
            ConnectionScopes readOnly = inner(TransactionOptions.defaults().withReadOnly(true));
            ConnectionScopes writing = inner(TransactionOptions.defaults().withReadOnly(false));
            assertThatThrownBy(() -> readOnly.inTransaction(c -> writing.inTransaction(w -> insert(w, 1)))
                            .block(LONG))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("read-only");
            assertThat(writing.inTransaction(c -> readOnly.inTransaction(PropagationIT::look))
                            .block(LONG))
                    .matches(Seen::inTransaction);
        }

        @Test
        void itsOwnTransactionMayHaveAnother() {
            ConnectionScopes serializable = inner(TransactionOptions.defaults()
                    .withPropagation(Propagation.REQUIRES_NEW)
                    .withIsolation(IsolationLevel.SERIALIZABLE));
            assertThat(scopes.inTransaction(c -> serializable.inTransaction(PropagationIT::look))
                            .block(LONG))
                    .matches(Seen::inTransaction);
        }
    }
}
