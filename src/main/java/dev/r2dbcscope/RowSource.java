package dev.r2dbcscope;

import reactor.core.publisher.Flux;

/** What a result is read from: at most once. */
interface RowSource {

    Scope scope();

    /** Reads it in the given way when subscribed to. */
    <T> Flux<T> read(ResultReading<T> reading);
}
