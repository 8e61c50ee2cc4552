package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.ScopePropagationException;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.function.Function;
import java.util.function.Predicate;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;
import reactor.util.retry.Retry;

/**
 * The transactions of a writer or job. It is assembled once, where the user calls, so that they all tell that as their origin;
 * what each is to write comes to it in the Context.
 */
final class ChunkTransaction<T> {

    private final Mono<Sieve.Written<T>> transaction;
    private final Backoff retries;
    private final Predicate<Throwable> retried;

    /** The attempts at one chunk, one after the other, and what comes first in the transaction of each. */
    private static final class Attempts<T> {

        private final Chunk<T> chunk;
        private final Function<Connection, Mono<Void>> first;
        private final Sieve<T> sieve;
        private volatile int number;
        private volatile Sieve<T>.Attempt latest;

        Attempts(Chunk<T> chunk, Function<Connection, Mono<Void>> first, Sieve<T> sieve) {
            this.chunk = chunk;
            this.first = first;
            this.sieve = sieve;
            this.latest = sieve.new Attempt(chunk);
        }

        Mono<Sieve.Written<T>> write(Connection connection) {
            Sieve<T>.Attempt attempt = sieve.new Attempt(chunk);
            latest = attempt;
            number = number + 1;
            return first.apply(connection).then(Mono.defer(() -> attempt.write(connection)));
        }

        boolean learns(Throwable error) {
            return latest.learns(error);
        }

        ChunkResult result(int partition, Sieve.Written<T> written, long start) {
            return new ChunkResult(
                    partition,
                    chunk.number(),
                    chunk.rows().size(),
                    written.count(),
                    written.rejects().size(),
                    chunk.firstRow(),
                    chunk.lastRow(),
                    chunk.firstPosition(),
                    chunk.lastPosition(),
                    number,
                    Duration.ofNanos(System.nanoTime() - start));
        }
    }

    ChunkTransaction(ConnectionScopes scopes, Backoff retries, Predicate<Throwable> retried) {
        this.transaction = scopes.inTransaction(
                connection -> Mono.deferContextual(context -> attempts(context).write(connection)));
        this.retries = retries;
        this.retried = retried;
    }

    @SuppressWarnings("unchecked") // what this puts there
    private Attempts<T> attempts(ContextView context) {
        return (Attempts<T>) context.get(this);
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
    Mono<ChunkResult> write(int partition, Chunk<T> chunk, Function<Connection, Mono<Void>> first, Sieve<T> sieve) {
        return Mono.defer(() -> {
            long start = System.nanoTime();
            Attempts<T> attempts = new Attempts<>(chunk, first, sieve);
            return transaction
                    .contextWrite(context -> context.put(this, attempts))
                    .retryWhen(Retry.indefinitely().filter(attempts::learns))
                    .retryWhen(retries.on(retried))
                    .onErrorMap(error -> ChunkFailedException.of(chunk, Math.max(1, attempts.number), error))
                    .delayUntil(written -> sieve.committed(chunk, written))
                    .map(written -> attempts.result(partition, written, start));
        });
    }
}
