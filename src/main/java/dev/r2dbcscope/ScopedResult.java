package dev.r2dbcscope;

import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import java.util.Objects;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;

/** A result that a scope hands out: faithful to the driver's, but read through the scope's gate. */
final class ScopedResult implements Result {

    private final RowSource source;
    private final Scope scope;
    private final @Nullable Predicate<Segment> filter;

    ScopedResult(RowSource source) {
        this(source, null);
    }

    private ScopedResult(RowSource source, @Nullable Predicate<Segment> filter) {
        this.source = source;
        this.scope = source.scope();
        this.filter = filter;
    }

    /** What it is read from. */
    RowSource source() {
        return source;
    }

    @Override
    public Publisher<Long> getRowsUpdated() {
        return filter == null
                ? source.read(ResultReading.rowsUpdated(scope))
                : ResultReading.sum(source.read(ResultReading.segments(filter, ResultReading.updateCount(scope))));
    }

    @Override
    public <T> Publisher<T> map(BiFunction<Row, RowMetadata, ? extends T> mapping) {
        Objects.requireNonNull(mapping, "mappingFunction");
        return source.read(
                filter == null
                        ? ResultReading.rows(scope, mapping)
                        : ResultReading.segments(filter, ResultReading.rowMapping(scope, mapping)));
    }

    @Override
    public <T> Publisher<T> map(Function<? super Readable, ? extends T> mapping) {
        Objects.requireNonNull(mapping, "mappingFunction");
        return source.read(
                filter == null
                        ? ResultReading.readables(scope, mapping)
                        : ResultReading.segments(
                                filter, ResultReading.rowMapping(scope, (row, metadata) -> mapping.apply(row))));
    }

    @Override
    public Result filter(Predicate<Segment> more) {
        Objects.requireNonNull(more, "filter");
        Predicate<Segment> guarded = segment -> more.test(guard(segment));
        return new ScopedResult(source, filter == null ? guarded : filter.and(guarded));
    }

    @Override
    public <T> Publisher<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mapping) {
        Objects.requireNonNull(mapping, "mappingFunction");
        Dialect dialect = scope.dialect();
        Function<Segment, @Nullable Held<Publisher<? extends T>>> hold = segment -> {
            Publisher<? extends T> publisher = Objects.requireNonNull(
                    mapping.apply(guard(segment)), "The mapping function returned a null publisher");
            return new Held<>(publisher, dialect.retain(segment));
        };
        return Held.releaseDiscarded(source.read(ResultReading.segments(filter, hold))
                .concatMap(held -> Flux.<T>from(held.value()).doFinally(end -> held.release()), 0));
    }

    private Segment guard(Segment segment) {
        return segment instanceof RowSegment rowSegment
                ? new ScopedRowSegment(rowSegment, new ScopedRow(rowSegment.row(), scope), scope)
                : segment;
    }

    /** A row segment as a scope hands it out. */
    record ScopedRowSegment(RowSegment driver, Row row, Scope scope) implements RowSegment {

        /** Keeps it valid beyond the call in which it was handed out, see {@link Dialect#retain}. */
        @Nullable
        Runnable retain() {
            return scope.dialect().retain(driver);
        }
    }
}
