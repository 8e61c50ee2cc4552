package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The tables and queries that the examples of README.md use. */
abstract class ReadmeShop {

    static final Duration BOUND = Duration.ofSeconds(60);
    static final int ORDERS = 1_000;

    ConnectionPool pool = Postgres.pool(1);
    ConnectionScopes scopes = ConnectionScopes.of(pool);

    // example: queries
    Flux<Long> orderIds(Connection connection) {
        Statement select = connection.createStatement("select id from readme_orders order by id");
        return Flux.from(select.execute()).flatMap(result -> result.map((row, metadata) -> row.get(0, Long.class)));
    }

    Mono<Long> amount(Connection connection, long orderId) {
        Statement select = connection
                .createStatement("select sum(price)::bigint from readme_lines where order_id = $1")
                .bind(0, orderId);
        return Flux.from(select.execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, Long.class)))
                .next();
    }

    Mono<Long> add(Connection connection, String account, int amount) {
        Statement update = connection
                .createStatement("update readme_accounts set balance = balance + $1 where name = $2")
                .bind(0, amount)
                .bind(1, account);
        return Flux.from(update.execute())
                .flatMap(result -> result.getRowsUpdated())
                .next();
    }
    // end

    @BeforeEach
    void fill() {
        Postgres.execute("create table readme_orders as select generate_series(1, " + ORDERS + ")::bigint id;"
                + "create table readme_lines as select id order_id, 10::bigint price from readme_orders, generate_series(1, 2);"
                + "create index on readme_lines (order_id);"
                + "create table readme_accounts (name text primary key, balance bigint not null);"
                + "insert into readme_accounts values ('ann', 500), ('bob', 0);"
                + "create table readme_audit (entry text, tenant text)");
    }

    @AfterEach
    void givesEveryConnectionBack() {
        scopes.drain(BOUND).block();
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
        pool.dispose();
        Postgres.execute("drop table readme_orders, readme_lines, readme_accounts, readme_audit");
    }

    static long balance(String account) {
        return Postgres.number("select balance from readme_accounts where name = '" + account + "'");
    }

    static final class NoSuchAccount extends RuntimeException {
        private static final long serialVersionUID = 1L;
    }
}
