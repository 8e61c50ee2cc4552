package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;

/** The example of README.md about large results. */
class ReadmePostgresqlPagingIT extends ReadmeShop {

    @Test
    void paging() {
        // example: paging
        ConnectionScopes reads =
                scopes.transactions(TransactionOptions.defaults().withReadOnly(true));

        Flux<Long> amounts = reads.inTransactionMany(
                connection -> allOrderIds(connection).flatMap(id -> amount(connection, id), 16));
        // end
        assertThat(amounts.reduce(Long::sum).block(BOUND)).isEqualTo(ORDERS * 20L);
    }

    // example: pages
    Flux<Long> allOrderIds(Connection connection) {
        return Flux.from(connection
                        .createStatement("select id from readme_orders where id > $1 order by id")
                        .bind(0, 0L)
                        .fetchSize(500)
                        .execute())
                .flatMap(result -> result.map(row -> row.get("id", Long.class)));
    }
    // end
}
