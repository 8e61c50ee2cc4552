package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Predicate;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.SynchronousSink;

/** Values that are rows, and other segments; a message is signalled as an error where segments are not asked for. */
record ProbeResult(Flux<?> rows) implements Result {

    @Override
    public Publisher<Long> getRowsUpdated() {
        return rows.handle(ProbeResult::failOnMessage)
                .map(value -> value instanceof UpdateCount count ? count.value() : 1L)
                .reduce(0L, Long::sum);
    }

    @Override
    public <T> Publisher<T> map(BiFunction<Row, RowMetadata, ? extends T> mapping) {
        return rows.handle(ProbeResult::failOnMessage)
                .filter(value -> !(value instanceof UpdateCount))
                .map(value -> {
                    ProbeRow row = ProbeRow.of(value);
                    return mapping.apply(row, row);
                });
    }

    @Override
    public Result filter(Predicate<Segment> filter) {
        return new ProbeResult(rows.filter(value -> filter.test(segment(value))));
    }

    @Override
    public <T> Publisher<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mapping) {
        return rows.concatMap(value -> mapping.apply(segment(value)));
    }

    private static void failOnMessage(Object value, SynchronousSink<Object> sink) {
        if (value instanceof Message message) {
            sink.error(message.exception());
        } else {
            sink.next(value);
        }
    }

    private static Segment segment(Object value) {
        return value instanceof Segment segment ? segment : (RowSegment) () -> ProbeRow.of(value);
    }
}
