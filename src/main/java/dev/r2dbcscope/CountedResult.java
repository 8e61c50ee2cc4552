package dev.r2dbcscope;

import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Predicate;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * One page of a query as the driver delivers it, whose rows are counted. How many rows the page has is the page's affair:
 * it has no update count.
 */
final class CountedResult implements Result {

    private final Result driver;
    private final Counter counter;

    /** Who counts; called on the driver's thread, before the page ends. */
    interface Counter {
        void counted(long rows);
    }

    CountedResult(Result driver, Counter counter) {
        this.driver = driver;
        this.counter = counter;
    }

    @Override
    public Publisher<Long> getRowsUpdated() {
        return Flux.from(driver.getRowsUpdated()).doOnNext(counter::counted);
    }

    @Override
    public <T> Publisher<T> map(BiFunction<Row, RowMetadata, ? extends T> mapping) {
        return driver.map((row, metadata) -> {
            counter.counted(1);
            return mapping.apply(row, metadata);
        });
    }

    @Override
    public <T> Publisher<T> map(Function<? super Readable, ? extends T> mapping) {
        return driver.map(readable -> {
            counter.counted(1);
            return mapping.apply(readable);
        });
    }

    @Override
    public Result filter(Predicate<Segment> filter) {
        throw new UnsupportedOperationException("Filters are applied by the reading");
    }

    @Override
    public <T> Publisher<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mapping) {
        return driver.flatMap(segment -> {
            if (segment instanceof UpdateCount) {
                return Mono.empty();
            }
            if (segment instanceof RowSegment) {
                counter.counted(1);
            }
            return mapping.apply(segment);
        });
    }
}
