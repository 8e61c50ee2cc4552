package dev.r2dbcscope.etl;

import java.util.function.Function;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Writes some chunks at once, and stops at the first failure: nothing more is read, the chunks that are being written are
 * finished, and the failure comes behind their results. So a chunk whose result was not emitted was not committed, unless the
 * failure or a cancel says otherwise.
 *
 * @param chunks their failure comes behind them
 * @param write writes one
 * @param concurrency how many at once
 * @param ordered whether the results come in the order of the chunks
 */
record ChunkFlow<T>(
        Flux<Chunk<T>> chunks, Function<Chunk<T>, Mono<ChunkResult>> write, int concurrency, boolean ordered) {

    /** Writes them all. */
    Flux<ChunkResult> run() {
        return run(JobControl.create(), Mono.never());
    }

    /**
     * Writes them.
     *
     * @param control says whether another chunk may begin
     * @param end no other chunk begins when it completes
     */
    Flux<ChunkResult> run(JobControl control, Mono<Void> end) {
        return Flux.defer(() -> {
            Failure failure = new Failure();
            Mono<Boolean> mayBegin = Mono.firstWithValue(control.mayBegin(), end.thenReturn(false));
            Flux<Chunk<T>> read = chunks.onErrorResume(failure::keep)
                    .takeUntilOther(Mono.firstWithSignal(failure.happened(), control.stopped(), end));
            Function<Chunk<T>, Mono<ChunkResult>> one =
                    chunk -> mayBegin.flatMap(may -> may ? write.apply(chunk) : Mono.empty())
                            .onErrorStop()
                            .onErrorResume(failure::keep);
            Flux<ChunkResult> results =
                    ordered ? read.flatMapSequential(one, concurrency, 1) : read.flatMap(one, concurrency, 1);
            return results.concatWith(failure.thrown());
        });
    }
}
