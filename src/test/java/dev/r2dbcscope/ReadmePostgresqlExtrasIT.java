package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.postgresql.Notification;
import dev.r2dbcscope.postgresql.Notifications;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The examples of README.md about locks, notifications and PgBouncer. */
class ReadmePostgresqlExtrasIT extends ReadmeShop {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private Mono<Long> writeReport(Connection connection) {
        return balances(connection);
    }

    private Mono<Long> restock(Connection connection, int article) {
        return balances(connection).map(ignored -> (long) article);
    }

    private Mono<Long> balances(Connection connection) {
        return Rows.ints(connection, "select 1").next().map(Integer::longValue);
    }

    @Test
    void locks() {
        int article = 7;
        // example: locks
        Mono<Long> report = AdvisoryLock.of("nightly report").during(scopes, connection -> writeReport(connection));

        Mono<Long> restocked = scopes.inTransaction(connection -> AdvisoryLock.of(1, article)
                .forTransaction()
                .tryAcquire(connection)
                .flatMap(mine -> mine ? restock(connection, article) : Mono.empty()));
        // end
        assertThat(report.block(BOUND)).isEqualTo(1);
        assertThat(restocked.block(BOUND)).isEqualTo(7);
    }

    private final List<String> cache = new CopyOnWriteArrayList<>();

    private Mono<Void> reload(String article) {
        return Mono.fromRunnable(() -> cache.add(article));
    }

    private Mono<Void> reloadAll() {
        return Mono.fromRunnable(() -> cache.add("all"));
    }

    @Test
    void notifications() {
        // example: notifications
        Flux<Void> upToDate = Notifications.of(scopes)
                .listen("prices")
                .concatMap(change -> change instanceof Notification.Received one ? reload(one.payload()) : reloadAll());
        // end
        Disposable listening = upToDate.subscribe();
        Await.until(() -> cache.contains("all"), () -> "never listened");
        Postgres.execute("notify prices, '4711'");
        Await.until(() -> cache.contains("4711"), () -> "heard only " + cache);
        listening.dispose();
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
    }

    @Test
    void pgBouncer() {
        // example: pgbouncer
        PostgresqlConnectionFactory factory = new PostgresqlConnectionFactory(
                Postgres.configuration().preparedStatementCacheQueries(0).build());
        ConnectionPool pooled = new ConnectionPool(
                ConnectionPoolConfiguration.builder(factory).maxSize(20).build());
        ConnectionScopes behindPgBouncer =
                ConnectionScopes.of(pooled).with(ScopeOptions.defaults().withTransactionPooling(true));
        // end
        assertThat(behindPgBouncer.inTransaction(this::balances).block(BOUND)).isEqualTo(1);
        pooled.dispose();
    }
}
