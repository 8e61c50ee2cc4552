package dev.r2dbcscope.etl;

import io.r2dbc.spi.Connection;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Lets the rows through that are accepted, over all attempts at the chunks of a source.
 *
 * <p>A chunk is written as it is until one fails for its rows. That one is tried again with its bad rows left out, and so are those
 * behind it from the beginning, until one of them has none.
 */
final class Sieve<T> {

    private final ChunkSink<T> sink;
    private final Isolation<T> isolation;
    private final @Nullable Rejects<T> rejects;

    private final AtomicLong rows = new AtomicLong();
    private final AtomicLong rejected = new AtomicLong();
    private volatile boolean isolating;
    private volatile boolean learned;

    Sieve(ChunkSink<T> sink, @Nullable Rejects<T> rejects) {
        this.sink = sink;
        this.isolation = Isolation.of(sink);
        this.rejects = rejects;
    }

    /** What became of a chunk. */
    record Written<T>(long count, List<Reject<T>> rejects) {}

    /** One attempt at a chunk. */
    final class Attempt {

        private final Chunk<T> chunk;
        private final boolean isolated = isolating;

        Attempt(Chunk<T> chunk) {
            this.chunk = chunk;
        }

        Mono<Written<T>> write(Connection connection) {
            if (rejects == null || !isolated) {
                return Flux.from(sink.write(connection, chunk.rows()))
                        .reduce(0L, Long::sum)
                        .map(count -> new Written<>(count, List.of()));
            }
            return isolation.write(connection, chunk.rows()).flatMap(outcome -> {
                List<Reject<T>> all = new ArrayList<>();
                outcome.refused().forEach((index, refusal) -> all.add(chunk.reject(index, refusal)));
                if (!all.isEmpty()) {
                    rejects.check(
                            rejected.get() + all.size(),
                            rows.get() + chunk.rows().size(),
                            all.get(all.size() - 1));
                }
                return rejects.write(connection, all).thenReturn(new Written<>(outcome.written(), all));
            });
        }

        /** Whether the next attempt may succeed because it leaves rows out. */
        boolean learns(Throwable error) {
            if (rejects == null || isolated || !Refusal.isAboutRows(error)) {
                return false;
            }
            isolating = true;
            learned = true;
            return true;
        }
    }

    /** Says whether something was learned since it was last asked, or a chunk was committed. */
    boolean hasLearned() {
        boolean since = learned;
        learned = false;
        return since;
    }

    /** Takes notice of a chunk that was committed, and hands over what was rejected. */
    Mono<Void> committed(Chunk<T> chunk, Written<T> written) {
        return Mono.defer(() -> {
            learned = false;
            rows.addAndGet(chunk.rows().size());
            rejected.addAndGet(written.rejects().size());
            if (rejects == null || written.rejects().isEmpty()) {
                isolating = false;
                return Mono.empty();
            }
            return rejects.committed(written.rejects());
        });
    }
}
