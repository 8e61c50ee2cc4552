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

/** A statement that says at once that it changed one row. */
final class NoopStatement implements Statement {

    @Override
    public Flux<Result> execute() {
        return Flux.just(new OneRowChanged());
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

    private static final class OneRowChanged implements Result {

        private static final UpdateCount ONE = () -> 1;

        @Override
        public Mono<Long> getRowsUpdated() {
            return Mono.just(1L);
        }

        @Override
        public <T> Flux<T> map(BiFunction<Row, RowMetadata, ? extends T> mappingFunction) {
            return Flux.empty();
        }

        @Override
        public Result filter(Predicate<Segment> filter) {
            return this;
        }

        @Override
        public <T> Flux<T> flatMap(Function<Segment, ? extends Publisher<? extends T>> mappingFunction) {
            return Flux.from(mappingFunction.apply(ONE));
        }
    }
}
