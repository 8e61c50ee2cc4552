package dev.r2dbcscope.etl;

import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * Writes some chunks at once, and stops at the first failure: nothing more is read, the chunks that are being written are
 * finished, and the failure comes behind their results. So a chunk whose result was not emitted was not committed, unless the
 * failure or a cancel says otherwise.
 */
final class ChunkFlow {

    private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();
    private final Sinks.Empty<Void> stop = Sinks.empty();

    private ChunkFlow() {}

    /**
     * Writes them.
     *
     * @param chunks their failure comes behind them
     * @param write writes one
     * @param concurrency how many at once
     * @param ordered whether the results come in the order of the chunks
     */
    static <T> Flux<ChunkResult> of(
            Flux<Chunk<T>> chunks, Function<Chunk<T>, Mono<ChunkResult>> write, int concurrency, boolean ordered) {
        return Flux.defer(() -> new ChunkFlow().run(chunks, write, concurrency, ordered));
    }

    private <T> Flux<ChunkResult> run(
            Flux<Chunk<T>> chunks, Function<Chunk<T>, Mono<ChunkResult>> write, int concurrency, boolean ordered) {
        Flux<Chunk<T>> read = chunks.onErrorResume(this::failed).takeUntilOther(stop.asMono());
        Function<Chunk<T>, Mono<ChunkResult>> one =
                chunk -> write.apply(chunk).onErrorStop().onErrorResume(this::failed);
        Flux<ChunkResult> results =
                ordered ? read.flatMapSequential(one, concurrency, 1) : read.flatMap(one, concurrency, 1);
        return results.concatWith(Mono.defer(() -> {
            Throwable error = failure.get();
            return error == null ? Mono.empty() : Mono.error(error);
        }));
    }

    private <R> Mono<R> failed(Throwable error) {
        if (!failure.compareAndSet(null, error)) {
            Throwable first = failure.get();
            if (first != null && first != error) {
                first.addSuppressed(error);
            }
        }
        stop.tryEmitEmpty();
        return Mono.empty();
    }
}
