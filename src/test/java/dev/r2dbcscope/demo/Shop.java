package dev.r2dbcscope.demo;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import java.math.BigDecimal;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The SQL of the shop: plain R2DBC code that knows nothing of scopes. */
final class Shop {

    /** How many orders a nested pipeline asks for the bill of at once. */
    static final int CONCURRENCY = 16;

    /**
     * What one order costs.
     *
     * @param backend the process id of the server's side of the connection that was used
     */
    record Bill(long order, int lines, BigDecimal amount, int backend) {

        Bill plus(Bill other) {
            return new Bill(order, lines + other.lines, amount.add(other.amount), backend);
        }
    }

    private Shop() {}

    /** The pipeline that matters: a query for each row of a query that is still being read. */
    static Flux<Bill> bills(Connection connection, int first, int last) {
        return orders(connection, first, last).flatMap(order -> bill(connection, order), CONCURRENCY);
    }

    static Flux<Long> orders(Connection connection, int first, int last) {
        Statement statement = connection
                .createStatement("select id from orders where id between $1 and $2 order by id")
                .bind(0, first)
                .bind(1, last);
        return Flux.from(statement.execute()).flatMap(result -> result.map((row, metadata) -> row.get(0, Long.class)));
    }

    static Mono<Bill> bill(Connection connection, long order) {
        Statement statement = connection
                .createStatement("select quantity * unit_price, pg_backend_pid() from order_lines where order_id = $1")
                .bind(0, order);
        return Flux.from(statement.execute())
                .flatMap(result -> result.map(
                        (row, metadata) -> new Bill(order, 1, row.get(0, BigDecimal.class), row.get(1, Integer.class))))
                .reduce(Bill::plus);
    }

    /** Adds to a balance; emits the number of accounts that were changed. */
    static Mono<Long> add(Connection connection, String account, int amount) {
        Statement statement = connection
                .createStatement("update accounts set balance = balance + $1 where name = $2")
                .bind(0, amount)
                .bind(1, account);
        return Flux.from(statement.execute())
                .flatMap(result -> result.getRowsUpdated())
                .next();
    }
}
