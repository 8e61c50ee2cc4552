package dev.r2dbcscope.etl;

import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** The first of the failures of what runs at once, kept until the rest has come to its end. */
final class Failure {

    private final AtomicReference<@Nullable Throwable> first = new AtomicReference<>();
    private final Sinks.Empty<Void> happened = Sinks.empty();

    /** Keeps an error, and completes instead; those after the first one are suppressed under it. */
    <R> Mono<R> keep(Throwable error) {
        if (!first.compareAndSet(null, error)) {
            Throwable before = first.get();
            if (before != null && before != error) {
                before.addSuppressed(error);
            }
        }
        happened.tryEmitEmpty();
        return Mono.empty();
    }

    boolean hasHappened() {
        return first.get() != null;
    }

    /** Completes at the first one. */
    Mono<Void> happened() {
        return happened.asMono();
    }

    /** Fails with the first one, or completes if there is none. */
    <R> Mono<R> thrown() {
        return Mono.defer(() -> {
            Throwable error = first.get();
            return error == null ? Mono.empty() : Mono.error(error);
        });
    }
}
