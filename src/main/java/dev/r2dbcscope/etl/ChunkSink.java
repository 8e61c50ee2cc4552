package dev.r2dbcscope.etl;

import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.Objects;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;

/**
 * Writes the rows of a chunk with the connection of its transaction.
 *
 * <p>It is called once for each attempt, so what it does besides, outside the database, may happen more often than the chunk is
 * committed.
 *
 * @param <T> the type of the rows
 */
@FunctionalInterface
public interface ChunkSink<T> {

    /**
     * Writes rows.
     *
     * @param connection the connection of a scope, in a transaction
     * @param rows the chunk's rows, at least one, in the order of the source; not to be changed
     * @return does it when it is subscribed to, and emits how many rows were written, in one number or in several; nothing counts
     *     as zero
     */
    Publisher<Long> write(Connection connection, List<T> rows);

    /**
     * Writes chunks by COPY, the fastest way, which fails on a row that is there already.
     *
     * @param copy the table, its columns, and how their values are written
     * @param <T> the type of the rows
     * @return the sink
     */
    static <T> ChunkSink<T> of(CopyIn<T> copy) {
        return new CopySink<>(Objects.requireNonNull(copy, "copy"));
    }

    /**
     * Writes chunks by COPY into a temporary table, and from there by one statement that says what becomes of rows that are
     * there already.
     *
     * @param upsert the table, its columns, and what is done on a conflict
     * @param <T> the type of the rows
     * @return the sink
     */
    static <T> ChunkSink<T> of(CopyUpsert<T> upsert) {
        Objects.requireNonNull(upsert, "upsert");
        return (connection, rows) -> upsert.write(connection, Flux.fromIterable(rows));
    }

    /**
     * Writes chunks by {@code INSERT ... SELECT ... FROM unnest(...)}; best with chunks of no more rows than its batches.
     *
     * @param writer the table, its columns, and what is done on a conflict
     * @param <T> the type of the rows
     * @return the sink
     */
    static <T> ChunkSink<T> of(UnnestWriter<T> writer) {
        Objects.requireNonNull(writer, "writer");
        return (connection, rows) -> writer.write(connection, Flux.fromIterable(rows));
    }
}
