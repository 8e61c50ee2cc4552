package dev.r2dbcscope;

import java.util.function.LongConsumer;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.publisher.MonoSink;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * The sink as bridged code sees it, which tells when the code has ended.
 *
 * @param <T> the type of the value
 */
final class BridgedMonoSink<T> implements MonoSink<T> {

    private final MonoSink<T> sink;
    private final BridgedCode code;

    BridgedMonoSink(MonoSink<T> sink, BridgedCode code) {
        this.sink = sink;
        this.code = code;
    }

    @Override
    public void success() {
        code.end(sink::success);
    }

    @Override
    public void success(@Nullable T value) {
        code.end(() -> code.succeed(value, () -> sink.success(value)));
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
    public MonoSink<T> onRequest(LongConsumer consumer) {
        sink.onRequest(consumer);
        return this;
    }

    @Override
    public MonoSink<T> onCancel(Disposable disposable) {
        sink.onCancel(disposable);
        return this;
    }

    @Override
    public MonoSink<T> onDispose(Disposable disposable) {
        sink.onDispose(disposable);
        return this;
    }
}
