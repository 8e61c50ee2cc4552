package dev.r2dbcscope;

import java.util.function.LongConsumer;
import reactor.core.Disposable;
import reactor.core.publisher.FluxSink;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * The sink as bridged code sees it, which tells when the code has ended.
 *
 * @param <T> the type of the elements
 */
final class BridgedFluxSink<T> implements FluxSink<T> {

    private final FluxSink<T> sink;
    private final BridgedCode code;

    BridgedFluxSink(FluxSink<T> sink, BridgedCode code) {
        this.sink = sink;
        this.code = code;
    }

    @Override
    public FluxSink<T> next(T value) {
        code.succeed(value, () -> sink.next(value));
        return this;
    }

    @Override
    public void complete() {
        code.end(sink::complete);
    }

    @Override
    public void error(Throwable error) {
        code.end(() -> code.fail(error, sink::error));
    }

    @Override
    @Deprecated
    @SuppressWarnings("deprecation")
    public Context currentContext() {
        return sink.currentContext();
    }

    @Override
    public ContextView contextView() {
        return sink.contextView();
    }

    @Override
    public long requestedFromDownstream() {
        return sink.requestedFromDownstream();
    }

    @Override
    public boolean isCancelled() {
        return sink.isCancelled();
    }

    @Override
    public FluxSink<T> onRequest(LongConsumer consumer) {
        sink.onRequest(consumer);
        return this;
    }

    @Override
    public FluxSink<T> onCancel(Disposable disposable) {
        sink.onCancel(disposable);
        return this;
    }

    @Override
    public FluxSink<T> onDispose(Disposable disposable) {
        sink.onDispose(disposable);
        return this;
    }
}
