package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.TransactionsAsSpringKnowsThemIT.Subject.Work;
import dev.r2dbcscope.testkit.LeakAssertions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.springframework.dao.DataIntegrityViolationException;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.IllegalTransactionStateException;
import org.springframework.transaction.ReactiveTransaction;
import org.springframework.transaction.TransactionDefinition;
import org.springframework.transaction.reactive.TransactionSynchronization;
import org.springframework.transaction.reactive.TransactionSynchronizationManager;
import org.springframework.transaction.reactive.TransactionalOperator;
import org.springframework.transaction.support.DefaultTransactionDefinition;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * What Spring's users know of {@code TransactionalOperator} and {@code R2dbcTransactionManager}, under the names of
 * Spring's own tests: each test runs twice, with Spring's transactions and with ours, and must find the same.
 *
 * <p>The exceptions differ in type, see {@link Subject}. Where more differs on purpose, it is stated.
 */
class TransactionsAsSpringKnowsThemIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final LeakAssertions leaks = LeakAssertions.of();
    private final ConnectionPool pool = Postgres.pool(3);
    private final ConnectionScopes scopes = ConnectionScopes.of(leaks.watch(pool));

    /** Whose transactions. */
    enum Subject {
        SPRING(IllegalTransactionStateException.class, DataIntegrityViolationException.class) {
            @Override
            DatabaseClient client(ConnectionPool pool, ConnectionScopes scopes) {
                return DatabaseClient.create(pool);
            }

            @Override
            <T> Flux<T> run(ConnectionPool pool, ConnectionScopes scopes, TransactionOptions options, Work<T> work) {
                return TransactionalOperator.create(new R2dbcTransactionManager(pool), definition(options))
                        .execute(transaction -> work.in(new SpringStatus(transaction)));
            }
        },
        OURS(ScopePropagationException.class, R2dbcDataIntegrityViolationException.class) {
            @Override
            DatabaseClient client(ConnectionPool pool, ConnectionScopes scopes) {
                return DatabaseClient.create(scopes.connectionFactory());
            }

            @Override
            <T> Flux<T> run(ConnectionPool pool, ConnectionScopes scopes, TransactionOptions options, Work<T> work) {
                return Flux.from(CurrentScope.get().flatMapMany(current -> work.in(new OurStatus(current))))
                        .as(scopes.transactions(options)::transactional);
            }
        };

        final Class<? extends Throwable> illegalState;
        final Class<? extends Throwable> commitFailure;

        Subject(Class<? extends Throwable> illegalState, Class<? extends Throwable> commitFailure) {
            this.illegalState = illegalState;
            this.commitFailure = commitFailure;
        }

        abstract DatabaseClient client(ConnectionPool pool, ConnectionScopes scopes);

        abstract <T> Flux<T> run(
                ConnectionPool pool, ConnectionScopes scopes, TransactionOptions options, Work<T> work);

        /** What runs in a transaction. */
        interface Work<T> {
            Flux<T> in(Status status);
        }

        /** The transaction as its code sees it. */
        interface Status {
            void setRollbackOnly();

            boolean isRollbackOnly();

            boolean hasTransaction();

            Mono<Void> afterCompletion(Runnable afterCommit, AtomicReference<String> outcome);
        }

        private record SpringStatus(ReactiveTransaction transaction) implements Status {
            @Override
            public void setRollbackOnly() {
                transaction.setRollbackOnly();
            }

            @Override
            public boolean isRollbackOnly() {
                return transaction.isRollbackOnly();
            }

            @Override
            public boolean hasTransaction() {
                return transaction.hasTransaction();
            }

            @Override
            public Mono<Void> afterCompletion(Runnable afterCommit, AtomicReference<String> outcome) {
                return TransactionSynchronizationManager.forCurrentTransaction()
                        .doOnNext(manager -> manager.registerSynchronization(new TransactionSynchronization() {
                            @Override
                            public Mono<Void> afterCommit() {
                                return Mono.fromRunnable(afterCommit);
                            }

                            @Override
                            public Mono<Void> afterCompletion(int status) {
                                return Mono.fromRunnable(
                                        () -> outcome.set(status == STATUS_COMMITTED ? "COMMITTED" : "ROLLED_BACK"));
                            }
                        }))
                        .then();
            }
        }

        private record OurStatus(CurrentScope scope) implements Status {
            @Override
            public void setRollbackOnly() {
                scope.setRollbackOnly();
            }

            @Override
            public boolean isRollbackOnly() {
                return scope.isRollbackOnly();
            }

            @Override
            public boolean hasTransaction() {
                return scope.isTransactional();
            }

            @Override
            public Mono<Void> afterCompletion(Runnable afterCommit, AtomicReference<String> outcome) {
                return Mono.fromRunnable(() -> {
                    scope.afterCommit(Mono.fromRunnable(afterCommit));
                    scope.afterCompletion(how -> Mono.fromRunnable(() -> outcome.set(how.name())));
                });
            }
        }

        private static TransactionDefinition definition(TransactionOptions options) {
            DefaultTransactionDefinition definition = new DefaultTransactionDefinition();
            definition.setPropagationBehaviorName(
                    "PROPAGATION_" + options.propagation().name());
            if (IsolationLevel.SERIALIZABLE.equals(options.isolation())) {
                definition.setIsolationLevel(TransactionDefinition.ISOLATION_SERIALIZABLE);
            }
            definition.setReadOnly(Boolean.TRUE.equals(options.readOnly()));
            return definition;
        }
    }

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table known (n int, constraint known_once unique (n) deferrable initially deferred)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate known");
    }

    @AfterEach
    void nothingIsHeld() {
        leaks.assertNothingHeld();
        pool.disposeLater().block(BOUND);
    }

    private static TransactionOptions mode(Propagation propagation) {
        return TransactionOptions.defaults().withPropagation(propagation);
    }

    private <T> Flux<T> run(Subject subject, TransactionOptions options, Work<T> work) {
        return subject.run(pool, scopes, options, work);
    }

    private <T> Flux<T> run(Subject subject, Propagation propagation, Work<T> work) {
        return run(subject, mode(propagation), work);
    }

    private Mono<Integer> insert(Subject subject, int n) {
        return subject.client(pool, scopes)
                .sql("insert into known values (" + n + ")")
                .then()
                .thenReturn(n);
    }

    private Mono<String> show(Subject subject, String setting) {
        return subject.client(pool, scopes)
                .sql("show " + setting)
                .map(row -> row.get(0, String.class))
                .one();
    }

    private static <T> Mono<T> usersError() {
        return Mono.error(() -> new IllegalStateException("the user's"));
    }

    private static List<Integer> durable() {
        return Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Rows.ints(c, "select n from known order by n").collectList(),
                        Connection::close)
                .blockOptional(BOUND)
                .orElseThrow();
    }

    @ParameterizedTest
    @EnumSource
    void simpleTransaction(Subject subject) {
        AtomicReference<String> outcome = new AtomicReference<>();
        AtomicReference<List<Integer>> seenAfterCommit = new AtomicReference<>();
        assertThat(run(
                                subject,
                                Propagation.REQUIRED,
                                status -> status.afterCompletion(() -> seenAfterCommit.set(List.of()), outcome)
                                        .thenMany(insert(subject, 1)))
                        .collectList()
                        .block(BOUND))
                .containsExactly(1);
        assertThat(durable()).containsExactly(1);
        assertThat(seenAfterCommit).doesNotHaveNullValue();
        assertThat(outcome).hasValue("COMMITTED");
    }

    @ParameterizedTest
    @EnumSource
    void commitWithFlux(Subject subject) {
        assertThat(run(subject, Propagation.REQUIRED, status -> Flux.range(1, 4).concatMap(n -> insert(subject, n)))
                        .collectList()
                        .block(BOUND))
                .containsExactly(1, 2, 3, 4);
        assertThat(durable()).containsExactly(1, 2, 3, 4);
    }

    @ParameterizedTest
    @EnumSource
    void rollback(Subject subject) {
        AtomicReference<String> outcome = new AtomicReference<>();
        assertThatThrownBy(() -> run(
                                subject,
                                Propagation.REQUIRED,
                                status -> status.afterCompletion(() -> {}, outcome)
                                        .then(insert(subject, 1))
                                        .thenMany(usersError()))
                        .blockLast(BOUND))
                .hasMessage("the user's");
        assertThat(durable()).isEmpty();
        assertThat(outcome).hasValue("ROLLED_BACK");
    }

    @ParameterizedTest
    @EnumSource
    void appliesIsolationLevel(Subject subject) {
        TransactionOptions serializable = TransactionOptions.defaults().withIsolation(IsolationLevel.SERIALIZABLE);
        assertThat(run(
                                subject,
                                serializable,
                                status -> show(subject, "transaction_isolation").flux())
                        .blockLast(BOUND))
                .isEqualTo("serializable");
        assertThat(run(
                                subject,
                                Propagation.REQUIRED,
                                status -> show(subject, "transaction_isolation").flux())
                        .blockLast(BOUND))
                .isEqualTo("read committed");
    }

    @ParameterizedTest
    @EnumSource
    void appliesReadOnly(Subject subject) {
        TransactionOptions readOnly = TransactionOptions.defaults().withReadOnly(true);
        assertThat(run(
                                subject,
                                readOnly,
                                status -> show(subject, "transaction_read_only").flux())
                        .blockLast(BOUND))
                .isEqualTo("on");
        assertThatThrownBy(() -> run(
                                subject, readOnly, status -> insert(subject, 1).flux())
                        .blockLast(BOUND))
                .hasMessageContaining("insert into known");
        assertThat(durable()).isEmpty();
    }

    /** Spring translates the driver's exception; we pass it on. */
    @ParameterizedTest
    @EnumSource
    void commitFails(Subject subject) {
        assertThatThrownBy(() -> run(
                                subject,
                                Propagation.REQUIRED,
                                status -> insert(subject, 1).thenMany(insert(subject, 1)))
                        .blockLast(BOUND))
                .isInstanceOf(subject.commitFailure);
        assertThat(durable()).isEmpty();
    }

    @ParameterizedTest
    @EnumSource
    void transactionSetRollbackOnly(Subject subject) {
        AtomicReference<String> outcome = new AtomicReference<>();
        assertThat(run(subject, Propagation.REQUIRED, status -> {
                            assertThat(status.hasTransaction()).isTrue();
                            assertThat(status.isRollbackOnly()).isFalse();
                            status.setRollbackOnly();
                            assertThat(status.isRollbackOnly()).isTrue();
                            return status.afterCompletion(
                                            () -> {
                                                throw new AssertionError("not committed");
                                            },
                                            outcome)
                                    .thenMany(insert(subject, 1));
                        })
                        .collectList()
                        .block(BOUND))
                .containsExactly(1);
        assertThat(durable()).isEmpty();
        assertThat(outcome).hasValue("ROLLED_BACK");
    }

    /**
     * Spring documents an UnexpectedRollbackException. Its reactive transaction manager marks the connection and does not
     * look at the mark when it commits: Spring 7.0 keeps both rows, without an error. Ours does what is documented.
     */
    @ParameterizedTest
    @EnumSource
    void participatingTransactionSetRollbackOnly(Subject subject) {
        assertUnexpectedRollback(
                subject,
                run(
                        subject,
                        Propagation.REQUIRED,
                        outer -> insert(subject, 1).thenMany(run(subject, Propagation.REQUIRED, inner -> {
                            inner.setRollbackOnly();
                            return insert(subject, 2).flux();
                        }))));
    }

    /** As {@link #participatingTransactionSetRollbackOnly}. */
    @ParameterizedTest
    @EnumSource
    void participatingTransactionThatFailsAndIsCaught(Subject subject) {
        assertUnexpectedRollback(
                subject,
                run(
                        subject,
                        Propagation.REQUIRED,
                        outer -> insert(subject, 1)
                                .thenMany(run(
                                        subject,
                                        Propagation.REQUIRED,
                                        inner -> insert(subject, 2).thenMany(usersError())))
                                .onErrorResume(IllegalStateException.class, e -> Mono.empty())));
    }

    private static void assertUnexpectedRollback(Subject subject, Flux<?> transaction) {
        if (subject == Subject.SPRING) {
            transaction.blockLast(BOUND);
            assertThat(durable()).containsExactly(1, 2);
        } else {
            assertThatThrownBy(() -> transaction.blockLast(BOUND)).isInstanceOf(ScopeRolledBackException.class);
            assertThat(durable()).isEmpty();
        }
    }

    @ParameterizedTest
    @EnumSource
    void propagationNeverWithExistingTransaction(Subject subject) {
        assertThatThrownBy(() -> run(
                                subject,
                                Propagation.REQUIRES_NEW,
                                outer -> insert(subject, 1)
                                        .thenMany(run(
                                                subject,
                                                Propagation.NEVER,
                                                inner -> insert(subject, 2).flux())))
                        .blockLast(BOUND))
                .isInstanceOf(subject.illegalState);
        assertThat(durable()).isEmpty();
    }

    @ParameterizedTest
    @EnumSource
    void propagationMandatoryWithoutExistingTransaction(Subject subject) {
        assertThatThrownBy(() -> run(
                                subject,
                                Propagation.MANDATORY,
                                status -> insert(subject, 1).flux())
                        .blockLast(BOUND))
                .isInstanceOf(subject.illegalState);
        assertThat(durable()).isEmpty();
    }

    @ParameterizedTest
    @EnumSource
    void propagationNestedWithExistingTransaction(Subject subject) {
        Function<Integer, Flux<Integer>> kept = n ->
                run(subject, Propagation.NESTED, status -> insert(subject, n).flux());
        Function<Integer, Flux<Integer>> rolledBack = n -> run(subject, Propagation.NESTED, status -> {
            status.setRollbackOnly();
            return insert(subject, n).flux();
        });
        run(
                        subject,
                        Propagation.REQUIRES_NEW,
                        outer -> Flux.concat(
                                kept.apply(1),
                                rolledBack.apply(2),
                                kept.apply(3),
                                run(subject, Propagation.NESTED, status -> {
                                    status.setRollbackOnly();
                                    return Flux.concat(kept.apply(4), rolledBack.apply(5), kept.apply(6));
                                })))
                .blockLast(BOUND);
        assertThat(durable()).containsExactly(1, 3);
    }

    @ParameterizedTest
    @EnumSource
    void propagationNestedWithExistingTransactionAndFailure(Subject subject) {
        run(
                        subject,
                        Propagation.REQUIRED,
                        outer -> Flux.concat(
                                insert(subject, 1),
                                run(
                                                subject,
                                                Propagation.NESTED,
                                                inner -> insert(subject, 2).thenMany(usersError()))
                                        .onErrorResume(e -> Mono.empty())
                                        .cast(Integer.class),
                                insert(subject, 3)))
                .blockLast(BOUND);
        assertThat(durable()).containsExactly(1, 3);
    }

    @ParameterizedTest
    @EnumSource(names = {"NESTED", "REQUIRES_NEW"})
    void propagationSupportsAndNestedOrRequiresNew(Propagation inner) {
        for (Subject subject : Subject.values()) {
            emptyTable();
            run(subject, Propagation.SUPPORTS, outer -> {
                        assertThat(outer.hasTransaction()).isFalse();
                        return run(subject, inner, status -> {
                            assertThat(status.hasTransaction()).isTrue();
                            return insert(subject, 1).flux();
                        });
                    })
                    .blockLast(BOUND);
            assertThat(durable()).as("%s", subject).containsExactly(1);
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"NESTED", "REQUIRES_NEW"})
    void propagationSupportsAndNestedOrRequiresNewWithRollback(Propagation inner) {
        for (Subject subject : Subject.values()) {
            run(
                            subject,
                            Propagation.SUPPORTS,
                            outer -> run(subject, inner, status -> {
                                status.setRollbackOnly();
                                return insert(subject, 1).flux();
                            }))
                    .blockLast(BOUND);
            assertThat(durable()).as("%s", subject).isEmpty();
        }
    }

    @ParameterizedTest
    @EnumSource
    void propagationRequiresNewCommitsAlthoughTheOuterRollsBack(Subject subject) {
        assertThatThrownBy(() -> run(
                                subject,
                                Propagation.REQUIRED,
                                outer -> insert(subject, 1)
                                        .thenMany(run(
                                                subject,
                                                Propagation.REQUIRES_NEW,
                                                inner -> insert(subject, 2).flux()))
                                        .thenMany(usersError()))
                        .blockLast(BOUND))
                .hasMessage("the user's");
        assertThat(durable()).containsExactly(2);
    }

    @ParameterizedTest
    @EnumSource
    void propagationNotSupportedSuspendsTheTransaction(Subject subject) {
        assertThatThrownBy(() -> run(
                                subject,
                                Propagation.REQUIRED,
                                outer -> insert(subject, 1)
                                        .thenMany(run(subject, Propagation.NOT_SUPPORTED, inner -> {
                                            assertThat(inner.hasTransaction()).isFalse();
                                            return insert(subject, 2).flux();
                                        }))
                                        .thenMany(usersError()))
                        .blockLast(BOUND))
                .hasMessage("the user's");
        assertThat(durable()).containsExactly(2);
    }

    @ParameterizedTest
    @EnumSource
    void cancelRollsBack(Subject subject) {
        run(subject, Propagation.REQUIRED, status -> insert(subject, 1).concatWith(Mono.never()))
                .blockFirst(BOUND);
        Await.until(() -> pool.getMetrics().orElseThrow().acquiredSize() == 0, () -> "held");
        assertThat(durable()).isEmpty();
    }
}
