package dev.r2dbcscope.demo;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.demo.ShopData.Lines;
import dev.r2dbcscope.demo.ShopData.Orders;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import java.math.BigDecimal;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.IntFunction;
import java.util.stream.IntStream;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Fills the shop: each batch of orders and its lines is one transaction. */
final class LoadScene implements Scene {

    private static final int BATCH = 2_000;
    private static final int CONCURRENCY = 2;

    private static final String[] TABLES = {
        "create table customers (id bigint primary key, name text not null, country text not null)",
        "create table products (id bigint primary key, name text not null, price numeric(10, 2) not null)",
        "create table orders (id bigint primary key, customer_id bigint not null references customers,"
                + " placed_at timestamptz not null, status text not null)",
        "create table order_lines (order_id bigint not null references orders, line_no int not null,"
                + " product_id bigint not null references products, quantity int not null,"
                + " unit_price numeric(10, 2) not null, primary key (order_id, line_no))",
        "create table accounts (name text primary key, balance bigint not null)",
    };

    @Override
    public String name() {
        return "load";
    }

    @Override
    public String title() {
        return "Load orders and their lines, a transaction per " + BATCH + " orders";
    }

    @Override
    public void play(Stage stage) {
        int total = stage.settings().orders();
        DemoDatabase database = stage.database();
        ConnectionScopes scopes = ConnectionScopes.of(database.pool("load", CONCURRENCY))
                .with(ScopeOptions.defaults().withName("load"));
        for (String table : TABLES) {
            database.execute(table);
        }
        Watch watch = new Watch(stage.screen(), scopes, total);
        AtomicReference<BigDecimal> amount = new AtomicReference<>(BigDecimal.ZERO);
        Flux<Orders> batches = Flux.range(0, (total + BATCH - 1) / BATCH)
                .flatMap(
                        batch -> {
                            int first = batch * BATCH + 1;
                            Orders orders = ShopData.orders(first, Math.min(total, first + BATCH - 1), total);
                            return scopes.inTransaction(connection -> insert(connection, orders));
                        },
                        CONCURRENCY)
                .doOnNext(orders -> {
                    amount.accumulateAndGet(orders.lines().amount(), BigDecimal::add);
                    for (int i = 0; i < orders.ids().length; i++) {
                        watch.step();
                    }
                });
        watch.run(
                "  orders",
                scopes.inTransaction(LoadScene::insertMasterData)
                        .thenMany(batches)
                        .count());
        database.execute("analyze");

        stage.report().claim("orders in the database", (long) total, database.number("select count(*) from orders"));
        stage.report()
                .claim(
                        "their amount is what was generated",
                        amount.get(),
                        database.one("select sum(quantity * unit_price) from order_lines", BigDecimal.class));
    }

    private static Mono<Boolean> insertMasterData(Connection connection) {
        Statement customers = connection
                .createStatement("insert into customers select * from unnest($1::bigint[], $2::text[], $3::text[])")
                .bind(0, column(ShopData.CUSTOMERS, id -> (long) id, Long[]::new))
                .bind(1, column(ShopData.CUSTOMERS, ShopData::customerName, String[]::new))
                .bind(2, column(ShopData.CUSTOMERS, ShopData::customerCountry, String[]::new));
        Statement products = connection
                .createStatement("insert into products select * from unnest($1::bigint[], $2::text[], $3::numeric[])")
                .bind(0, column(ShopData.PRODUCTS, id -> (long) id, Long[]::new))
                .bind(1, column(ShopData.PRODUCTS, ShopData::productName, String[]::new))
                .bind(2, column(ShopData.PRODUCTS, ShopData::productPrice, BigDecimal[]::new));
        Statement accounts = connection.createStatement("insert into accounts values ('shop', 1000), ('bank', 1000)");
        return execute(customers)
                .then(execute(products))
                .then(execute(accounts))
                .thenReturn(true);
    }

    private static Mono<Orders> insert(Connection connection, Orders orders) {
        Lines lines = orders.lines();
        Statement ofOrders = connection
                .createStatement(
                        "insert into orders select id, customer, to_timestamp(placed), status from"
                                + " unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) o (id, customer, placed, status)")
                .bind(0, orders.ids())
                .bind(1, orders.customers())
                .bind(2, orders.placedAt())
                .bind(3, orders.statuses());
        Statement ofLines = connection
                .createStatement("insert into order_lines select * from"
                        + " unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::numeric[])")
                .bind(0, lines.orders())
                .bind(1, lines.numbers())
                .bind(2, lines.products())
                .bind(3, lines.quantities())
                .bind(4, lines.prices());
        return execute(ofOrders).then(execute(ofLines)).thenReturn(orders);
    }

    private static Mono<Long> execute(Statement statement) {
        return Flux.from(statement.execute())
                .flatMap(result -> result.getRowsUpdated())
                .next();
    }

    private static <T> T[] column(int count, IntFunction<T> value, IntFunction<T[]> array) {
        return IntStream.rangeClosed(1, count).mapToObj(value).toArray(array);
    }
}
