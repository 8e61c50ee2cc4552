package dev.r2dbcscope;

import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/**
 * The elements of a transaction that emits them after its COMMIT.
 *
 * <p>They leave the scope as one value, which is discarded as one if it never arrives; {@link #discardEach} lets the
 * subscriber's discard hook see the elements instead. They are handed over once: {@code flatMapIterable} discards a value
 * twice when a cancel meets its arrival.
 *
 * @param <T> the type of the elements
 */
final class HeldBack<T> {

    private final AtomicReference<List<T>> elements;

    private HeldBack(List<T> elements) {
        this.elements = new AtomicReference<>(elements);
    }

    private List<T> takeAll() {
        return elements.getAndSet(List.of());
    }

    /** One more is asked for than may be held, which is how the overflow shows. */
    static <T> Mono<HeldBack<T>> collect(Publisher<? extends T> body, int max, ScopeLabel label) {
        return Flux.<T>from(body)
                .take(max + 1L)
                .collectList()
                .flatMap(all -> all.size() <= max ? Mono.just(new HeldBack<>(all)) : overflow(all, max, label));
    }

    private static <T> Mono<HeldBack<T>> overflow(List<T> all, int max, ScopeLabel label) {
        return Mono.deferContextual(context -> {
            Operators.onDiscardMultiple(all, Context.of(context));
            return Mono.error(new HeldBackOverflowException(
                    "The transaction was rolled back because it had more than the " + max + " elements that it may hold"
                            + " back until the COMMIT; raise TransactionOptions.withEmitAfterCommit, or read less in one"
                            + " transaction",
                    label));
        });
    }

    /** Emits what a scope held back; the elements that the subscriber does not get go to its discard hook. */
    static <T> Flux<T> emit(Mono<HeldBack<T>> scope) {
        return scope.flatMapIterable(HeldBack::takeAll).contextWrite(HeldBack::discardEach);
    }

    private static Context discardEach(Context downstream) {
        Consumer<Object> hook = discarded -> {
            if (discarded instanceof HeldBack<?> held) {
                Operators.onDiscardMultiple(held.takeAll(), downstream);
            } else {
                Operators.onDiscard(discarded, downstream);
            }
        };
        return Operators.enableOnDiscard(downstream, hook);
    }
}
