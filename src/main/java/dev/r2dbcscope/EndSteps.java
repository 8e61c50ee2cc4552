package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What is to be undone at the end of a session, after its transaction and before its connection goes back. */
final class EndSteps {

    private final List<Step> steps = new ArrayList<>();
    private @Nullable Map<Class<?>, Object> kept;

    private record Step(String what, Function<? super Connection, ? extends Publisher<?>> action) {}

    /** How one step is run. */
    interface Bounded {
        Mono<Void> run(String what, Publisher<?> action);
    }

    /** Adds a step, which runs before those that were added earlier. */
    void add(String what, Function<? super Connection, ? extends Publisher<?>> action) {
        Objects.requireNonNull(what, "what");
        Objects.requireNonNull(action, "step");
        synchronized (steps) {
            steps.add(0, new Step(what, action));
        }
    }

    /** What is kept for the length of the session under a type; made when it is first asked for. */
    <T> T kept(Class<T> type, Supplier<? extends T> first) {
        synchronized (steps) {
            if (kept == null) {
                kept = new HashMap<>();
            }
            return type.cast(kept.computeIfAbsent(type, absent -> first.get()));
        }
    }

    /** Lets go of everything, at the end of the session. */
    void forget() {
        synchronized (steps) {
            steps.clear();
            kept = null;
        }
    }

    boolean isEmpty() {
        synchronized (steps) {
            return steps.isEmpty();
        }
    }

    /** Runs them one after the other; the first failure ends it. */
    Mono<Void> run(Connection connection, Bounded bounded) {
        List<Step> all;
        synchronized (steps) {
            all = List.copyOf(steps);
        }
        return Flux.fromIterable(all)
                .concatMap(
                        step -> bounded.run(
                                step.what(),
                                Flux.defer(() -> Flux.from(step.action().apply(connection)))),
                        0)
                .then();
    }
}
