package dev.r2dbcscope.benchmarks;

import io.r2dbc.spi.Readable;
import java.time.Instant;

/** A row of the {@link OrderTable}, with a value of each kind that a row usually has. */
record Order(long id, int quantity, String note, Instant created, double price) {

    /** Decodes every column. */
    static Order of(Readable row) {
        return new Order(
                row.get(0, Long.class),
                row.get(1, Integer.class),
                row.get(2, String.class),
                row.get(3, Instant.class),
                row.get(4, Double.class));
    }

    /** What the note of an order says. */
    static String note(long id) {
        return "order number " + id + " of a benchmark";
    }
}
