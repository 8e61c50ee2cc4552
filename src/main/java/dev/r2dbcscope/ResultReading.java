package dev.r2dbcscope;

import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import java.util.Objects;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * One of the ways in which the R2DBC SPI lets a result be read.
 *
 * @param <T> what it makes of a row or segment
 */
interface ResultReading<T> {

    /** Subscribes the driver's result as it comes; the mapping runs while the driver delivers. */
    Publisher<?> live(Result driver, ResultReader<T> reader);

    /** Maps segments that were kept because nobody read the result when it came. */
    Flux<T> kept(Flux<Held<Result.Segment>> segments);

    /** The same of one page of a result, whose rows are counted. */
    default ResultReading<T> counted(CountedResult.Counter counter) {
        return new ResultReading<>() {
            @Override
            public Publisher<?> live(Result driver, ResultReader<T> reader) {
                return ResultReading.this.live(new CountedResult(driver, counter), reader);
            }

            @Override
            public Flux<T> kept(Flux<Held<Result.Segment>> segments) {
                throw new IllegalStateException("A page is read when it comes");
            }
        };
    }

    /** Makes of what it makes of all pages what it makes of the whole; the count of all rows is known at their end. */
    default Flux<T> paged(Flux<T> pages, LongSupplier rows) {
        return pages;
    }

    /** {@link Result#map(BiFunction)} of a result without a filter: the driver's fastest way. */
    static <T> ResultReading<T> rows(Scope scope, BiFunction<Row, RowMetadata, ? extends T> mapping) {
        return new ResultReading<>() {
            @Override
            public Publisher<?> live(Result driver, ResultReader<T> reader) {
                return driver.map((row, metadata) ->
                        attempt(reader, () -> mapped(mapping.apply(new ScopedRow(row, scope), metadata))));
            }

            @Override
            public Flux<T> kept(Flux<Held<Result.Segment>> segments) {
                return ResultReading.<T>segments(null, rowMapping(scope, mapping))
                        .kept(segments);
            }
        };
    }

    /** {@link Result#map(Function)} of a result without a filter. */
    static <T> ResultReading<T> readables(Scope scope, Function<? super Readable, ? extends T> mapping) {
        return new ResultReading<>() {
            @Override
            public Publisher<?> live(Result driver, ResultReader<T> reader) {
                return driver.map(readable -> attempt(reader, () -> mapped(mapping.apply(guard(readable, scope)))));
            }

            @Override
            public Flux<T> kept(Flux<Held<Result.Segment>> segments) {
                return ResultReading.<T>segments(null, rowMapping(scope, (row, metadata) -> mapping.apply(row)))
                        .kept(segments);
            }
        };
    }

    /** {@link Result#getRowsUpdated()} of a result without a filter. */
    static ResultReading<Long> rowsUpdated(Scope scope) {
        return new ResultReading<>() {
            @Override
            public Publisher<?> live(Result driver, ResultReader<Long> reader) {
                return driver.getRowsUpdated();
            }

            @Override
            public Flux<Long> kept(Flux<Held<Result.Segment>> segments) {
                return sum(segments(null, updateCount(scope)).kept(segments));
            }

            @Override
            public Flux<Long> paged(Flux<Long> pages, LongSupplier rows) {
                return sum(pages);
            }
        };
    }

    /** Everything else: maps segment by segment, where {@code null} means that there is nothing to emit. */
    static <T> ResultReading<T> segments(
            @Nullable Predicate<Result.Segment> filter, Function<Result.Segment, @Nullable T> mapping) {
        return new ResultReading<>() {
            @Override
            public Publisher<?> live(Result driver, ResultReader<T> reader) {
                return driver.flatMap(segment -> {
                    Throwable error = reader.errorIn(segment);
                    if (error != null) {
                        reader.sawError(error);
                    }
                    Object value = attempt(reader, () -> {
                        if (filter != null && !filter.test(segment)) {
                            return ResultReader.NOTHING;
                        }
                        T mapped = mapping.apply(segment);
                        return mapped == null ? ResultReader.NOTHING : mapped;
                    });
                    return value == ResultReader.NOTHING && !reader.isDeaf() ? Mono.empty() : one(value);
                });
            }

            @Override
            public Flux<T> paged(Flux<T> pages, LongSupplier rows) {
                return pages.concatWith(kept(
                        Flux.defer(() -> Flux.just(new Held<>(new TotalCount(rows.getAsLong()), null)))));
            }

            @Override
            public Flux<T> kept(Flux<Held<Result.Segment>> segments) {
                return Held.releaseDiscarded(segments.<T>handle((held, sink) -> {
                    try {
                        Result.Segment segment = held.value();
                        T mapped = filter == null || filter.test(segment) ? mapping.apply(segment) : null;
                        if (mapped != null) {
                            sink.next(mapped);
                        }
                    } finally {
                        held.release();
                    }
                }));
            }
        };
    }

    static <T> Function<Result.Segment, @Nullable T> rowMapping(
            Scope scope, BiFunction<? super Row, RowMetadata, ? extends T> mapping) {
        return segment -> {
            if (segment instanceof Result.RowSegment rowSegment) {
                Row row = rowSegment.row();
                return mapped(mapping.apply(new ScopedRow(row, scope), row.getMetadata()));
            }
            return failOnError(scope, segment);
        };
    }

    static Function<Result.Segment, @Nullable Long> updateCount(Scope scope) {
        return segment ->
                segment instanceof Result.UpdateCount count ? Long.valueOf(count.value()) : failOnError(scope, segment);
    }

    static Flux<Long> sum(Flux<Long> counts) {
        return counts.reduce((left, right) -> {
                    long sum = left + right;
                    return sum < 0 ? Long.MAX_VALUE : sum;
                })
                .flux();
    }

    /**
     * One value for the driver's own {@code concatMap}. That operator takes a known value a short way, on which a request
     * from another thread at that moment emits it twice; hidden, it is emitted once.
     */
    static <V> Mono<V> one(V value) {
        return Mono.just(value).hide();
    }

    private static Readable guard(Readable readable, Scope scope) {
        return readable instanceof Row row ? new ScopedRow(row, scope) : readable;
    }

    private static <T> @Nullable T failOnError(Scope scope, Result.Segment segment) {
        R2dbcException error = errorIn(segment, scope.dialect());
        if (error != null) {
            throw error;
        }
        return null;
    }

    /** The error that a segment stands for, if it does. */
    static @Nullable R2dbcException errorIn(Result.Segment segment, Dialect dialect) {
        return segment instanceof Result.Message message && dialect.isError(message) ? message.exception() : null;
    }

    private static <T> T mapped(@Nullable T value) {
        return Objects.requireNonNull(value, "The mapping function returned null");
    }

    private static Object attempt(ResultReader<?> reader, Mapping mapping) {
        if (reader.isDeaf()) {
            return ResultReader.NOTHING;
        }
        try {
            return mapping.map();
        } catch (Throwable e) {
            return reader.failed(e);
        }
    }

    /** How many rows a result that was read in pages has: what the driver says of one that was not. */
    record TotalCount(long value) implements Result.UpdateCount {}

    /** A call of a mapping function. */
    interface Mapping {
        Object map();
    }
}
