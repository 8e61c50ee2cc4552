package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.util.function.Supplier;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;

/** A statement that takes all bindings and keeps none; each {@code add()} executes it once more. */
final class ProbeStatement implements Statement {

    private final Supplier<Flux<Result>> execution;
    private int bindings = 1;

    ProbeStatement(Supplier<Flux<Result>> execution) {
        this.execution = execution;
    }

    @Override
    public Statement add() {
        bindings++;
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

    @Override
    public Publisher<? extends Result> execute() {
        Flux<Result> once = execution.get();
        return bindings == 1 ? once : Flux.range(0, bindings).concatMap(binding -> once);
    }
}
