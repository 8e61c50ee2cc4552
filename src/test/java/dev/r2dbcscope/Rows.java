package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import reactor.core.publisher.Flux;

/** Short ways to run statements in tests, with plain SPI code. */
public final class Rows {

    private Rows() {}

    /** The first column of each row, as a number. */
    public static Flux<Integer> ints(Connection connection, String sql) {
        return ints(connection.createStatement(sql));
    }

    public static Flux<Integer> ints(Statement statement) {
        return Flux.from(statement.execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class)));
    }

    /** The number of rows that a statement changed. */
    public static Flux<Long> update(Statement statement) {
        return Flux.from(statement.execute()).flatMap(result -> result.getRowsUpdated());
    }

    public static Flux<Long> update(Connection connection, String sql) {
        return update(connection.createStatement(sql));
    }
}
