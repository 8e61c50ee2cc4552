package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.springframework.r2dbc.core.DatabaseClient;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.Context;

/** Transactions that meet each other on PostgreSQL, and are tried again. */
class RetryIT {

    private static final Duration LONG = Duration.ofMinutes(5);

    /** More than any machine needs: what is asserted is the outcome, not the luck. */
    private static final RetryPolicy PATIENT = RetryPolicy.serialization(10_000)
            .withBackoff(Duration.ofMillis(1), Duration.ofMillis(10))
            .withJitter(1);

    /** The server looks for deadlocks after 50 ms instead of a second. */
    private final WatchedPool pool = WatchedPool.to(
            4,
            server -> server.options(Map.of("deadlock_timeout", "50ms")),
            options -> options.withAcquireTimeout(LONG));

    private final ConnectionScopes scopes =
            pool.scopes.transactions(TransactionOptions.defaults().withRetry(PATIENT));
    private final ConnectionScopes serializable = pool.scopes.transactions(TransactionOptions.defaults()
            .withIsolation(IsolationLevel.SERIALIZABLE)
            .withRetry(PATIENT)
            .withEmitAfterCommit(100));

    @BeforeAll
    static void createTables() {
        Postgres.execute("create table retried_accounts (id int primary key, balance int not null)");
        Postgres.execute("create table retried_transfers (id int, source int, target int, amount int)");
    }

    @BeforeEach
    void openAccounts() {
        Postgres.execute("truncate retried_accounts, retried_transfers");
        Postgres.execute("insert into retried_accounts select id, 1000 from generate_series(1, 8) id");
    }

    @AfterEach
    void nothingIsLeftOfIt() {
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private List<String> retriedStates() {
        return pool.events(ScopeEvent.Retrying.class).stream()
                .map(ScopeEvent.Retrying::error)
                .map(error -> String.valueOf(((R2dbcException) error).getSqlState()))
                .toList();
    }

    private static Mono<Integer> balance(Connection connection, int id) {
        return Rows.ints(connection
                        .createStatement("select balance from retried_accounts where id = $1")
                        .bind(0, id))
                .single();
    }

    private static Mono<Long> store(Connection connection, int id, int balance) {
        return Rows.update(connection
                        .createStatement("update retried_accounts set balance = $1 where id = $2")
                        .bind(0, balance)
                        .bind(1, id))
                .single();
    }

    /** An update that is lost, or applied twice, shows in the balances: they are computed here, not by the server. */
    private static Mono<Long> transfer(Connection connection, int number, int source, int target, int amount) {
        return Mono.zip(balance(connection, source), balance(connection, target))
                .flatMap(balances -> store(connection, source, balances.getT1() - amount)
                        .then(store(connection, target, balances.getT2() + amount)))
                .then(Rows.update(connection
                                .createStatement("insert into retried_transfers values ($1, $2, $3, $4)")
                                .bind(0, number)
                                .bind(1, source)
                                .bind(2, target)
                                .bind(3, amount))
                        .single());
    }

    private static void assertBooked(int transfers) {
        assertThat(Postgres.number("select count(*) from retried_transfers")).isEqualTo(transfers);
        assertThat(Postgres.number("select count(distinct id) from retried_transfers"))
                .isEqualTo(transfers);
        assertThat(Postgres.number("select sum(balance) from retried_accounts")).isEqualTo(8_000);
        assertThat(Postgres.number("select count(*) from retried_accounts a where balance <> 1000"
                        + " - (select coalesce(sum(amount), 0) from retried_transfers where source = a.id)"
                        + " + (select coalesce(sum(amount), 0) from retried_transfers where target = a.id)"))
                .as("accounts whose balance is not that of their transfers")
                .isZero();
    }

    @Test
    void transfersThatContendAreEachBookedOnce() {
        int transfers = 5_000;
        SplittableRandom random = new SplittableRandom(7);

        Long booked = Flux.range(1, transfers)
                .flatMap(
                        number -> {
                            int source = random.nextInt(1, 9);
                            int target = 1 + (source - 1 + random.nextInt(1, 8)) % 8;
                            int amount = random.nextInt(1, 100);
                            return serializable.inTransaction(c -> transfer(c, number, source, target, amount));
                        },
                        4)
                .count()
                .block(LONG);

        assertThat(booked).isEqualTo(transfers);
        assertBooked(transfers);
        List<String> states = retriedStates();
        assertThat(states).isNotEmpty().isSubsetOf("40001", "40P01");
    }

    @Test
    void twoTransfersThatMeetAtEveryStepAreBothBooked() {
        int pairs = 50;
        Flux.range(0, pairs)
                .concatMap(pair -> Flux.just(1, 2)
                        .flatMap(half -> serializable.transactional(
                                Mono.from(serializable.connectionFactory().create())
                                        .flatMap(c -> transfer(c, 2 * pair + half, half, 3 - half, half)))))
                .blockLast(LONG);

        assertBooked(2 * pairs);
        assertThat(retriedStates()).isNotEmpty();
    }

    @Test
    void aDeadlockedPairResolves() {
        int pairs = 10;
        for (int pair = 1; pair <= pairs; pair++) {
            Sinks.Empty<Void> both = Sinks.empty();
            AtomicInteger locked = new AtomicInteger();
            Function<Integer, Mono<Long>> half = first -> {
                AtomicInteger attempts = new AtomicInteger();
                return scopes.inTransaction(c -> Rows.update(c, "set local deadlock_timeout = 20")
                        .then(add(c, first))
                        .then(Mono.defer(() -> {
                            if (attempts.getAndIncrement() == 0 && locked.incrementAndGet() == 2) {
                                both.tryEmitEmpty();
                            }
                            return both.asMono();
                        }))
                        .then(add(c, 3 - first)));
            };

            Mono.zip(half.apply(1), half.apply(2)).block(LONG);
        }

        assertThat(retriedStates()).hasSizeGreaterThanOrEqualTo(pairs).containsOnly("40P01");
        assertThat(Postgres.number("select sum(balance) from retried_accounts where id <= 2"))
                .isEqualTo(2_000 + 4 * pairs);
    }

    private static Mono<Long> add(Connection connection, int id) {
        return Rows.update(connection, "update retried_accounts set balance = balance + 1 where id = " + id)
                .single();
    }

    @Test
    @Tag("lifecycle-2")
    void aConflictThatShowsAtCommitIsTriedAgain() {
        AtomicInteger attempts = new AtomicInteger();
        Mono<Void> rival = pool.scopes
                .transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.SERIALIZABLE))
                .inTransaction(c -> sum(c).then(add(c, 2)).then());

        // both have read what the other writes, and the rival commits first
        Integer total = serializable
                .inTransaction(c -> sum(c).flatMap(sum -> add(c, 1).thenReturn(sum))
                        .flatMap(sum -> attempts.incrementAndGet() == 1
                                ? rival.contextWrite(context -> Context.empty()).thenReturn(sum)
                                : Mono.just(sum)))
                .block(LONG);

        assertThat(attempts).hasValue(2);
        assertThat(total).as("what the second attempt has read").isEqualTo(2_001);
        assertThat(retriedStates()).containsExactly("40001");
        assertThat(pool.events(ScopeEvent.StatementEnded.class))
                .extracting(ScopeEvent.StatementEnded::error)
                .containsOnlyNulls();
        assertThat(Postgres.number("select sum(balance) from retried_accounts where id <= 2"))
                .isEqualTo(2_002);
    }

    private static Mono<Integer> sum(Connection connection) {
        return Rows.ints(connection, "select sum(balance)::int from retried_accounts where id <= 2")
                .single();
    }

    @Nested
    class AConflict {

        private final AtomicInteger attempts = new AtomicInteger();

        private String once() {
            return attempts.incrementAndGet() == 1
                    ? "do $$ begin raise sqlstate '40001'; end $$"
                    : "update retried_accounts set balance = balance + 1 where id = 1";
        }

        private void assertDoneOnce() {
            assertThat(attempts).hasValue(2);
            assertThat(pool.events(ScopeEvent.Retrying.class)).hasSize(1);
            assertThat(Postgres.number("select sum(balance) from retried_accounts"))
                    .isEqualTo(8_001);
        }

        @Test
        void isRecognizedWhenALibraryHasTranslatedIt() {
            DatabaseClient client = DatabaseClient.create(scopes.connectionFactory());

            Mono.defer(() -> client.sql(once()).fetch().rowsUpdated())
                    .as(scopes::transactional)
                    .block(LONG);

            assertThat(pool.events(ScopeEvent.Retrying.class).get(0).error()).isNotInstanceOf(R2dbcException.class);
            assertDoneOnce();
        }

        @Test
        @Tag("lifecycle-70")
        void isRecognizedWhenItWasSwallowed() {
            scopes.inTransaction(c -> Rows.update(c, once()).onErrorComplete().then())
                    .block(LONG);

            assertDoneOnce();
        }

        @Test
        void isRecognizedWhenItWasSwallowedAndTheNextStatementRefused() {
            DatabaseClient client = DatabaseClient.create(scopes.connectionFactory());

            Mono.defer(() -> client.sql(once()).fetch().rowsUpdated())
                    .onErrorComplete()
                    .then(client.sql("select 1").fetch().first())
                    .as(scopes::transactional)
                    .block(LONG);

            assertDoneOnce();
        }

        @Test
        void isNotSeenInAnotherErrorThatWasSwallowed() {
            assertThatThrownBy(() -> scopes.inTransaction(c -> Rows.update(c, "select 1 / 0")
                                    .onErrorComplete()
                                    .then())
                            .block(LONG))
                    .isInstanceOf(R2dbcException.class)
                    .satisfies(error -> assertThat(error.getSuppressed())
                            .filteredOn(R2dbcException.class::isInstance)
                            .singleElement()
                            .extracting(behind -> ((R2dbcException) behind).getSqlState())
                            .isEqualTo("22012"));
            assertThat(pool.events(ScopeEvent.Retrying.class)).isEmpty();
        }

        @Test
        void emitsTheElementsOfTheLastAttemptOnly() {
            List<Long> changed = serializable
                    .inTransactionMany(c -> Flux.just(7L).concatWith(Flux.defer(() -> Rows.update(c, once()))))
                    .collectList()
                    .block(LONG);

            assertThat(changed).containsExactly(7L, 1L);
            assertDoneOnce();
        }
    }
}
