package dev.r2dbcscope.benchmarks;

/** The table that large results are read from: ids from 1, in the order in which they are stored. */
final class OrderTable {

    static final String COLUMNS = "id, quantity, note, created, price";

    /** All rows up to an id, which is bound. */
    static final String SELECT = "select " + COLUMNS + " from orders where id <= $1";

    private OrderTable() {}

    static void create(Server server, int rows) {
        server.execute("create table orders (id bigint, quantity int, note text, created timestamptz, price float8)");
        server.execute("insert into orders select i, i % 1000, 'order number ' || i || ' of a benchmark',"
                + " timestamptz '2024-01-01' + i * interval '1 second', i * 0.25 from generate_series(1, " + rows
                + ") i");
        server.execute("vacuum analyze orders");
    }
}
