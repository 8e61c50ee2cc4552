package dev.r2dbcscope;

import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * A completion or an error that comes once, for those who wait for it, now or later. As long as nobody waits it is one word.
 *
 * <p>What has completed gives {@link #NOW}, always the same one, so that whoever has more to do can go on without subscribing.
 */
final class Completion extends AtomicReference<@Nullable Object> {

    private static final long serialVersionUID = 1L;

    /** A step that is over already, and ended well. */
    static final Mono<Void> NOW = Mono.empty();

    private static final Object COMPLETED = new Object();

    private record Failure(Throwable error) {}

    /** Completes; says whether that is news. Those who wait are told by this call. */
    boolean complete() {
        return end(COMPLETED);
    }

    /** Fails; says whether that is news. Those who wait are told by this call. */
    boolean fail(Throwable error) {
        return end(new Failure(error));
    }

    boolean hasEnded() {
        Object state = get();
        return state == COMPLETED || state instanceof Failure;
    }

    /** The end: {@link #NOW} if it has completed. */
    Mono<Void> asMono() {
        Object state = get();
        if (state == null) {
            Sinks.Empty<Void> waiting = Sinks.empty();
            state = compareAndSet(null, waiting) ? waiting : get();
        }
        if (state == COMPLETED) {
            return NOW;
        }
        return state instanceof Failure failure ? Mono.error(failure.error) : waiting(state);
    }

    private boolean end(Object end) {
        Object state;
        do {
            state = get();
            if (state == COMPLETED || state instanceof Failure) {
                return false;
            }
        } while (!compareAndSet(state, end));
        if (state != null) {
            tell(state, end);
        }
        return true;
    }

    private static void tell(Object state, Object end) {
        Sinks.Empty<Void> waiting = sink(state);
        if (end instanceof Failure failure) {
            waiting.tryEmitError(failure.error);
        } else {
            waiting.tryEmitEmpty();
        }
    }

    private static Mono<Void> waiting(@Nullable Object state) {
        return sink(state).asMono();
    }

    @SuppressWarnings("unchecked")
    private static Sinks.Empty<Void> sink(@Nullable Object state) {
        return (Sinks.Empty<Void>) Objects.requireNonNull(state);
    }
}
