package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/**
 * Something that is derived from a segment of a result and needs the segment to stay valid until it is released.
 *
 * @param <T> what is derived
 */
final class Held<T> {

    private final T value;
    private final AtomicReference<@Nullable Runnable> release;

    Held(T value, @Nullable Runnable release) {
        this.value = value;
        this.release = new AtomicReference<>(release);
    }

    /** Releases what an operator between the reader and its subscriber throws away. */
    @SuppressWarnings("rawtypes")
    static <T> Flux<T> releaseDiscarded(Flux<T> flux) {
        return flux.doOnDiscard(Held.class, Held::release);
    }

    /** Throws a value away, and releases it if it is held. */
    static void discard(Object value, Context context) {
        if (value instanceof Held<?> held) {
            held.release();
        } else {
            Operators.onDiscard(value, context);
        }
    }

    T value() {
        return value;
    }

    /** Lets the driver have its memory back. Idempotent. */
    void release() {
        Runnable action = release.getAndSet(null);
        if (action != null) {
            action.run();
        }
    }
}
