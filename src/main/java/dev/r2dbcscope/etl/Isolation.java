package dev.r2dbcscope.etl;

import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.SortedMap;
import reactor.core.publisher.Mono;

/** Writes those rows of a chunk that the database accepts, in the chunk's transaction. */
@FunctionalInterface
interface Isolation<T> {

    /**
     * What became of them.
     *
     * @param written how many the sink says it wrote
     * @param refused the others, by their index in the chunk
     */
    record Outcome(long written, SortedMap<Integer, Refusal> refused) {}

    /** Writes what can be written; fails with what is not an error of single rows. */
    Mono<Outcome> write(Connection connection, List<T> rows);

    /** The way that fits the sink: after a COPY that has failed a connection takes no further statement. */
    static <T> Isolation<T> of(ChunkSink<T> sink) {
        return sink instanceof CopySink<T> copy ? copy::isolate : new Bisection<>(sink);
    }
}
