package dev.r2dbcscope.etl;

import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.RejectingCopy;
import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.SortedMap;
import java.util.TreeMap;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Writes chunks by COPY; if rows are to be left out, by way of a temporary table. */
record CopySink<T>(CopyIn<T> copy) implements ChunkSink<T> {

    @Override
    public Publisher<Long> write(Connection connection, List<T> rows) {
        return copy.write(connection, Flux.fromIterable(rows));
    }

    Mono<Isolation.Outcome> isolate(Connection connection, List<T> rows) {
        return RejectingCopy.of(copy).write(connection, Flux.fromIterable(rows)).map(outcome -> {
            SortedMap<Integer, Refusal> refused = new TreeMap<>();
            outcome.rejected().forEach(row -> refused.put((int) row.row() - 1, Refusal.of(row)));
            return new Isolation.Outcome(outcome.written(), refused);
        });
    }
}
