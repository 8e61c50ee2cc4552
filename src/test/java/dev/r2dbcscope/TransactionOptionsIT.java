package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.publisher.Flux;

/** Transaction options reach the server, and end with the transaction. */
class TransactionOptionsIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table optional (id int primary key, n int)");
        Postgres.execute("insert into optional values (1, 0)");
    }

    @AfterEach
    void theNextBorrowerFindsTheDefaults() {
        assertThat(pool.borrow(TransactionOptionsIT::shown)).containsExactly("read committed", "off", "0");
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private static Flux<String> shown(Connection connection) {
        return Flux.just("transaction_isolation", "transaction_read_only", "lock_timeout")
                .concatMap(setting -> Flux.from(
                                connection.createStatement("show " + setting).execute())
                        .flatMap(result -> result.map((row, metadata) -> row.get(0, String.class))));
    }

    private List<String> shownWith(TransactionOptions options) {
        return pool.scopes
                .transactions(options)
                .inTransactionMany(TransactionOptionsIT::shown)
                .collectList()
                .block(LONG);
    }

    @ParameterizedTest
    @CsvSource({"SERIALIZABLE, serializable", "REPEATABLE READ, repeatable read", "READ COMMITTED, read committed"})
    void isolationLevelIsThatOfTheTransaction(String level, String shown) {
        assertThat(shownWith(TransactionOptions.defaults().withIsolation(IsolationLevel.valueOf(level))))
                .containsExactly(shown, "off", "0");
    }

    @Test
    void readOnlyTransactionRefusesWrites() {
        TransactionOptions readOnly = TransactionOptions.defaults().withReadOnly(true);
        assertThat(shownWith(readOnly)).containsExactly("read committed", "on", "0");
        assertThatThrownBy(() -> pool.scopes
                        .transactions(readOnly)
                        .inTransaction(c -> Rows.update(c, "update optional set n = 1"))
                        .block(LONG))
                .isInstanceOfSatisfying(
                        R2dbcException.class, e -> assertThat(e.getSqlState()).isEqualTo("25006"));
    }

    @Test
    void allOptionsTogether() {
        assertThat(shownWith(TransactionOptions.defaults()
                        .withIsolation(IsolationLevel.SERIALIZABLE)
                        .withReadOnly(true)
                        .withLockWaitTimeout(Duration.ofMillis(1_500))))
                .containsExactly("serializable", "on", "1500ms");
    }

    @Test
    void theyDoNotLeakWhenTheTransactionFailsOrIsCancelled() {
        ConnectionScopes strict = pool.scopes.transactions(TransactionOptions.defaults()
                .withIsolation(IsolationLevel.SERIALIZABLE)
                .withReadOnly(true)
                .withLockWaitTimeout(Duration.ofSeconds(7)));
        assertThatThrownBy(() ->
                        strict.inTransaction(c -> Rows.ints(c, "select 1 / 0")).block(LONG))
                .isInstanceOf(R2dbcException.class);
        assertThat(pool.borrow(TransactionOptionsIT::shown)).containsExactly("read committed", "off", "0");
        Integer first = strict.inTransactionMany(c -> Rows.ints(c, "select generate_series(1, 100)"))
                .next()
                .block(LONG);
        assertThat(first).isEqualTo(1);
    }

    @Test
    @Tag("lifecycle-8")
    void lockWaitTimeoutEndsTheWaitForALock() {
        ConnectionScopes impatient =
                pool.scopes.transactions(TransactionOptions.defaults().withLockWaitTimeout(Duration.ofMillis(200)));
        try (WatchedPool other = WatchedPool.of(1)) {
            String update = "update optional set n = n + 1 where id = 1";
            other.scopes
                    .inTransaction(holder -> Rows.update(holder, update)
                            .then(impatient
                                    .inTransaction(c -> Rows.update(c, update))
                                    .materialize())
                            .doOnNext(signal -> assertThat(signal.getThrowable())
                                    .isInstanceOfSatisfying(ScopeTimeoutException.class, e -> {
                                        assertThat(e.limit()).isEqualTo(ScopeTimeoutException.Limit.LOCK_WAIT);
                                        assertThat(e.bound()).isEqualTo(Duration.ofMillis(200));
                                        assertThat(e.getSql()).isEqualTo(update);
                                    })
                                    .cause()
                                    .isInstanceOfSatisfying(
                                            R2dbcException.class,
                                            e -> assertThat(e.getSqlState()).isEqualTo("55P03"))))
                    .block(LONG);
            other.assertWhole();
        }
        assertThat(Postgres.number("select n from optional")).isEqualTo(1);
    }
}
