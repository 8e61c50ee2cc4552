package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What is refused where sessions are handed out for one transaction at a time; the option alone refuses it. */
class TransactionPoolingIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    @RegisterExtension
    private final LogCapture log = new LogCapture();

    private final WatchedPool pool =
            WatchedPool.to(1, c -> c.preparedStatementCacheQueries(0), o -> o.withTransactionPooling(true));
    private final ConnectionScopes scopes = pool.scopes;

    @AfterEach
    void theConnectionWasNeitherChangedNorDestroyed() {
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        assertThat(shown("statement_timeout").block(LONG)).isEqualTo("0");
        assertThat(shown("lock_timeout").block(LONG)).isEqualTo("0");
        assertThat(log.lines()).isEmpty();
        pool.close();
    }

    private ConnectionScopes with(UnaryOperator<ScopeOptions> options) {
        return pool.with(o -> options.apply(o.withTransactionPooling(true)));
    }

    private static Mono<String> shown(Connection connection, String setting) {
        return Flux.from(connection.createStatement("show " + setting).execute())
                .flatMap(result -> result.map(row -> row.get(0, String.class)))
                .next();
    }

    private Mono<String> shown(String setting) {
        return scopes.withConnection(c -> shown(c, setting));
    }

    private static void assertRefused(Mono<?> work, String... words) {
        assertThatThrownBy(() -> work.block(LONG))
                .isInstanceOf(TransactionPoolingException.class)
                .hasMessageContaining("withTransactionPooling")
                .hasMessageContaining("TransactionPoolingIT")
                .message()
                .contains(words);
    }

    @Test
    void settingsOfAPlainScopeAreRefusedAndThoseOfATransactionAreLocalToIt() {
        ConnectionScopes set = with(o -> o.withSettings(SessionSettings.none().withApplicationName("pooled")));
        assertRefused(set.withConnection(c -> shown(c, "application_name")), "session settings", "transaction");
        assertThat(pool.events(ScopeEvent.Waiting.class)).isEmpty();
        assertThat(set.inTransaction(c -> shown(c, "application_name")).block(LONG))
                .isEqualTo("pooled");
        assertThat(shown("application_name").block(LONG)).isNotEqualTo("pooled");
        assertThat(scopes.withConnection(c -> set.inTransaction(t -> shown(t, "application_name")))
                        .block(LONG))
                .isEqualTo("pooled");
    }

    @Test
    void timeoutsOfAPlainScopeAreRefusedAndThoseOfATransactionAreLocalToIt() {
        ConnectionScopes statement = with(o -> o.withStatementTimeout(Duration.ofSeconds(9)));
        ConnectionScopes lockWait = with(o -> o.withLockWaitTimeout(Duration.ofSeconds(9)));
        assertRefused(statement.withConnection(c -> Mono.just(1)), "timeouts");
        assertRefused(lockWait.withConnection(c -> Mono.just(1)), "timeouts");
        assertThat(statement.inTransaction(c -> shown(c, "statement_timeout")).block(LONG))
                .isEqualTo("9s");
        assertThat(lockWait.inTransaction(c -> shown(c, "lock_timeout")).block(LONG))
                .isEqualTo("9s");
    }

    @Test
    void whatTheSpiSetsOnTheConnectionIsRefusedInsideAndOutsideATransaction() {
        List<Function<Connection, Publisher<Void>>> setters = List.of(
                c -> c.setStatementTimeout(Duration.ofSeconds(8)),
                c -> c.setLockWaitTimeout(Duration.ofSeconds(8)),
                c -> c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE));
        for (Function<Connection, Publisher<Void>> setter : setters) {
            assertRefused(scopes.withConnection(setter::apply), "setting the", "local to a transaction");
            assertRefused(scopes.inTransaction(setter::apply), "setting the", "local to a transaction");
        }
        assertThat(shown("default_transaction_isolation").block(LONG)).isEqualTo("read committed");
        ConnectionScopes serializable =
                scopes.transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.SERIALIZABLE));
        assertThat(serializable
                        .inTransaction(c -> shown(c, "transaction_isolation"))
                        .block(LONG))
                .isEqualTo("serializable");
    }

    @Test
    void cursorsThatOutliveTheirTransactionAreRefusedWithTheOptions() {
        assertThatThrownBy(() ->
                        ScopeOptions.defaults().withTransactionPooling(true).withHoldableCursors(true))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("holdableCursors");
        assertThatThrownBy(
                        () -> ScopeOptions.defaults().withHoldableCursors(true).withTransactionPooling(true))
                .isInstanceOf(IllegalArgumentException.class);
    }

    @Test
    void locksOfTheSessionAreRefusedAndThoseOfATransactionAreNot() {
        AdvisoryLock lock = AdvisoryLock.of(4_711);
        assertRefused(scopes.withConnection(lock::acquire), "pg_advisory_lock", "forTransaction()");
        assertRefused(scopes.inTransaction(lock::tryAcquire), "pg_try_advisory_lock", "forTransaction()");
        assertThat(scopes.inTransaction(lock.forTransaction()::tryAcquire).block(LONG))
                .isTrue();
    }

    @Test
    void aDriverThatKeepsPreparedStatementsIsRefused() {
        for (int cached : List.of(-1, 1, 100)) {
            try (WatchedPool caching = WatchedPool.to(
                    1, c -> c.preparedStatementCacheQueries(cached), o -> o.withTransactionPooling(true))) {
                assertRefused(
                        caching.scopes.withConnection(c -> Mono.just(1)),
                        "statement cache",
                        "preparedStatementCacheQueries(0)");
                assertRefused(caching.scopes.inTransaction(c -> Mono.just(1)), "statement cache");
                caching.awaitQuiet();
                assertThat(caching.pool.getMetrics().orElseThrow().allocatedSize())
                        .isZero();
                assertThat(caching.events(ScopeEvent.ReleaseFailed.class)).isEmpty();
                assertThat(caching.events(ScopeEvent.OpenFailed.class)).hasSize(2);
            }
        }
    }

    @Test
    void theDriverIsLookedAtOnceForEachConnection() throws Exception {
        try (FaultyProxy proxy = Postgres.network();
                WatchedPool watched = WatchedPool.to(
                        1,
                        c -> c.port(proxy.port()).preparedStatementCacheQueries(0),
                        o -> o.withTransactionPooling(true))) {
            assertThat(watched.scopes
                            .withConnection(c -> Rows.ints(c, "select 1"))
                            .block(LONG))
                    .isEqualTo(1);
            Mono<Void> lookedAt =
                    proxy.strikeWhen(NetworkTrigger.clientSends("pg_prepared_statements"), NetworkFault.CUT);
            for (int i = 0; i < 10; i++) {
                assertThat(watched.scopes
                                .inTransaction(c -> Rows.ints(c, "select 1"))
                                .block(LONG))
                        .isEqualTo(1);
            }
            assertThat(watched.destroyed()).isZero();
            watched.terminateBackends();
            for (int i = 0; i < 2; i++) { // the first may still get the connection that the server has ended
                watched.scopes
                        .withConnection(c -> Rows.ints(c, "select 1"))
                        .onErrorComplete(R2dbcException.class)
                        .block(LONG);
            }
            lookedAt.block(LONG);
            watched.awaitQuiet();
        }
        log.clear();
    }

    @Test
    void nothingIsRefusedWithoutTheOption() {
        try (WatchedPool direct = WatchedPool.of(1, o -> o.withStatementTimeout(Duration.ofSeconds(9)))) {
            assertThat(direct.scopes
                            .withConnection(c -> Mono.from(c.setLockWaitTimeout(Duration.ofSeconds(7)))
                                    .then(shown(c, "lock_timeout")))
                            .block(LONG))
                    .isEqualTo("7s");
            direct.assertWhole();
        }
    }
}
