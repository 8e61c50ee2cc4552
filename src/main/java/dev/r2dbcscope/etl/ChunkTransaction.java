package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.ScopePropagationException;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Predicate;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * The transactions of a writer or job. It is assembled once, where the user calls, so that they all tell that as their origin;
 * each attempt comes to it in the Context.
 */
final class ChunkTransaction<T> {

    private final Mono<Long> transaction;
    private final Backoff retries;
    private final Predicate<Throwable> retried;

    /** One of the attempts at a chunk, and what comes first in its transaction. */
    private record Attempt<T>(Chunk<T> chunk, Function<Connection, Mono<Void>> first, AtomicInteger number) {

        Mono<Long> write(Connection connection, ChunkSink<T> sink) {
            number.incrementAndGet();
            return first.apply(connection)
                    .then(Flux.from(sink.write(connection, chunk.rows())).reduce(0L, Long::sum));
        }

        ChunkResult result(int partition, long written, long start) {
            return new ChunkResult(
                    partition,
                    chunk.number(),
                    chunk.rows().size(),
                    written,
                    chunk.firstRow(),
                    chunk.lastRow(),
                    chunk.firstPosition(),
                    chunk.lastPosition(),
                    number.get(),
                    Duration.ofNanos(System.nanoTime() - start));
        }
    }

    ChunkTransaction(ConnectionScopes scopes, ChunkSink<T> sink, Backoff retries, Predicate<Throwable> retried) {
        this.transaction = scopes.inTransaction(
                connection -> Mono.deferContextual(context -> attempt(context).write(connection, sink)));
        this.retries = retries;
        this.retried = retried;
    }

    @SuppressWarnings("unchecked") // what this puts there
    private Attempt<T> attempt(ContextView context) {
        return (Attempt<T>) context.get(this);
    }

    /** Refuses to be part of a transaction, in which no chunk can be committed. */
    static Mono<Void> requireNone(ConnectionScopes scopes) {
        return scopes.currentScope()
                .onErrorResume(ScopePropagationException.class, none -> Mono.empty())
                .filter(CurrentScope::isTransactional)
                .flatMap(scope -> Mono.error(
                        new IllegalStateException("Chunks cannot be committed one by one inside a transaction, and "
                                + scope + " is one; write them outside of it, or all rows in it without chunks")));
    }

    /** Writes a chunk; {@code first} is the first step of its transaction. */
    Mono<ChunkResult> write(int partition, Chunk<T> chunk, Function<Connection, Mono<Void>> first) {
        return Mono.defer(() -> {
            long start = System.nanoTime();
            Attempt<T> attempt = new Attempt<>(chunk, first, new AtomicInteger());
            return transaction
                    .contextWrite(context -> context.put(this, attempt))
                    .retryWhen(retries.on(retried))
                    .map(written -> attempt.result(partition, written, start))
                    .onErrorMap(error -> ChunkFailedException.of(
                            chunk, Math.max(1, attempt.number().get()), error));
        });
    }
}
