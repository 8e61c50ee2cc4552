package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.Rows;
import dev.r2dbcscope.WatchedPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.reactive.TransactionalOperator;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Issues of pgjdbc/r2dbc-postgresql and spring-projects/spring-data-r2dbc about statements behind an open result. */
class R2dbcPostgresqlIssuesIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int USERS = 1_000;

    private final WatchedPool pool = WatchedPool.of(1);

    @BeforeAll
    static void tables() {
        Postgres.execute("create table issue_users (userid int primary key);"
                + " create table issue_accounts (userid int primary key, login text);"
                + " insert into issue_users select generate_series(1, " + USERS + ");"
                + " insert into issue_accounts select userid, 'login' || userid from issue_users");
    }

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
    }

    /** For each user, its login, by a query of its own, as in #652. */
    private static Flux<String> logins(ConnectionFactory factory, int users, int concurrency) {
        DatabaseClient client = DatabaseClient.create(factory);
        return client.sql("select userid from issue_users where userid >= $1 and userid <= $2")
                .bind("$1", 1)
                .bind("$2", users)
                .map(row -> row.get(0, Integer.class))
                .all()
                .flatMap(
                        user -> client.sql("select login from issue_accounts where userid = $1 limit 1")
                                .bind("$1", user)
                                .map(row -> row.get(0, String.class))
                                .all(),
                        concurrency);
    }

    private static Flux<String> byHand(WatchedPool raw, int users, int concurrency) {
        return logins(raw.pool, users, concurrency)
                .as(TransactionalOperator.create(new R2dbcTransactionManager(raw.pool))::transactional);
    }

    /**
     * A query for each row of another one, in one transaction, failed beyond 255 rows, because the driver's queue of requests
     * was full; the way out was to read everything first. Here any number of rows will do.
     */
    @Test
    @Tag("r2dbc-postgresql#652")
    void aQueryForEachRowInOneTransaction() {
        try (WatchedPool raw = WatchedPool.of(1)) {
            assertThatThrownBy(() -> byHand(raw, 300, 256).blockLast(LONG))
                    .as("the driver was repaired")
                    .hasStackTraceContaining("request queue limit is exceeded");
            raw.terminateBackends();
        }

        assertThat(logins(pool.scopes.connectionFactory(), USERS, 256)
                        .as(pool.scopes::transactional)
                        .collectList()
                        .block(LONG))
                .hasSize(USERS)
                .doesNotHaveDuplicates();
    }

    /**
     * A result of more than 256 rows whose reader was gone was never read to its end, and everything behind it on the
     * connection waited for ever. Here it is read to its end for nobody, and the next statement is answered.
     */
    @Test
    @Tag("r2dbc-postgresql#661")
    void aStatementBehindAResultThatNobodyReads() {
        assertThat(pool.scopes
                        .withConnectionMany(c -> Flux.range(0, 100)
                                .concatMap(i ->
                                        leftUnread(c, Duration.ofMillis(i / 10)).thenMany(Rows.ints(c, "select 1"))))
                        .count()
                        .block(LONG))
                .isEqualTo(100);

        assertThat(pool.scopes
                        .inTransactionMany(c -> Flux.range(0, 100)
                                .concatMap(i ->
                                        leftUnread(c, Duration.ofMillis(i / 10)).thenMany(Rows.ints(c, "select 1"))))
                        .count()
                        .block(LONG))
                .isEqualTo(100);
    }

    /** Gets a result of 350 rows, and goes away after a while without having read it. */
    private static Mono<Void> leftUnread(Connection connection, Duration patience) {
        Flux<? extends Result> results = Flux.from(
                connection.createStatement("select generate_series(1, 350)").execute());
        return results.delayUntil(result -> Mono.delay(patience)).next().then();
    }

    /**
     * A lookup for each row of a big result, on the connection that a transaction pins, stopped after some 250 rows without an
     * error. Here the whole of it comes, with and without a transaction, at any concurrency.
     */
    @Test
    @Tag("spring-data-r2dbc#194")
    void aLookupForEachRowOfABigResult() {
        try (WatchedPool raw = WatchedPool.of(1)) {
            AtomicInteger came = new AtomicInteger();
            assertThat(R2dbcPoolCancelIssuesIT.hangs(byHand(raw, USERS, 2)
                            .doOnNext(login -> came.incrementAndGet())
                            .then(Mono.just(1))))
                    .as("the driver was repaired")
                    .isTrue();
            assertThat(came).hasValueLessThan(USERS);
            raw.terminateBackends();
        }

        ConnectionScopes scopes = pool.scopes;
        for (int concurrency : new int[] {2, 16}) {
            Flux<String> logins = logins(scopes.connectionFactory(), USERS, concurrency);
            assertThat(logins.as(scopes::transactional).count().block(LONG)).isEqualTo(USERS);
            assertThat(logins.as(scopes::connected).count().block(LONG)).isEqualTo(USERS);
        }
    }
}
