package dev.r2dbcscope.benchmarks;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Statement;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Predicate;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A statement that answers at once with as many rows as it was told, all of them the same. */
final class NoopStatement implements Statement {

    private final Rows rows;

    NoopStatement(int rows) {
        this.rows = new Rows(rows);
    }

    @Override
    public Flux<Result> execute() {
        return Flux.just(rows);
    }

    @Override
    public Statement add() {
        return this;
    }

    @Override
    public Statement bind(int index, Object value) {
        return this;
    }

    @Override
    public Statement bind(String name, Object value) {
        return this;
    }

    @Override
    public Statement bindNull(int index, Class<?> type) {
        return this;
    }

    @Override
    public Statement bindNull(String name, Class<?> type) {
        return this;
    }

    private record Rows(int count) implements Result {

        @Override
        public Mono<Long> getRowsUpdated() {
            return Mono.just((long) count);
        }

        @Override
        public <T> Flux<T> map(BiFunction<Row, RowMetadata, ? extends T> mappingFunction) {
            return rows().map(row -> mappingFunction.apply(row, row.getMetadata()));
        }

        @Override
        public Result filter(Predicate<Segment> filter) {
            return this;
        }

        @Override
        public <T> Flux<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mappingFunction) {
            return rows().concatMap(row -> mappingFunction.apply((RowSegment) () -> row));
        }

        private Flux<Row> rows() {
            return Flux.range(0, count).map(row -> NoopRow.ONLY);
        }
    }
}
