package dev.r2dbcscope.etl;

import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.SortedMap;
import java.util.TreeMap;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Finds the rows that are refused by halves: each part is written behind a savepoint, and split when it fails. So b bad rows of n
 * take some b * log2(n / b) attempts more.
 */
record Bisection<T>(ChunkSink<T> sink) implements Isolation<T> {

    private static final String SAVEPOINT = "r2dbc_scope_chunk";

    @Override
    public Mono<Outcome> write(Connection connection, List<T> rows) {
        return Mono.defer(() -> {
            SortedMap<Integer, Refusal> refused = new TreeMap<>();
            return part(connection, rows, 0, refused).map(written -> new Outcome(written, refused));
        });
    }

    private Mono<Long> part(Connection connection, List<T> rows, int from, SortedMap<Integer, Refusal> refused) {
        if (rows.isEmpty()) {
            return Mono.just(0L);
        }
        String savepoint = SAVEPOINT + "_" + from + "_" + rows.size();
        return Mono.from(connection.createSavepoint(savepoint))
                .then(Mono.defer(() -> Flux.from(sink.write(connection, rows)).reduce(0L, Long::sum)))
                .delayUntil(written -> connection.releaseSavepoint(savepoint))
                .onErrorResume(
                        Refusal::isAboutRows,
                        error -> Mono.from(connection.rollbackTransactionToSavepoint(savepoint))
                                .then(Mono.from(connection.releaseSavepoint(savepoint)))
                                .then(Mono.defer(() -> split(connection, rows, from, refused, error))));
    }

    private Mono<Long> split(
            Connection connection, List<T> rows, int from, SortedMap<Integer, Refusal> refused, Throwable error) {
        if (rows.size() == 1) {
            refused.put(from, Refusal.of(error));
            return Mono.just(0L);
        }
        int half = rows.size() / 2;
        return part(connection, rows.subList(0, half), from, refused)
                .flatMap(first -> part(connection, rows.subList(half, rows.size()), from + half, refused)
                        .map(second -> first + second));
    }
}
