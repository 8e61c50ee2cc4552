package dev.r2dbcscope;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Consumer;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/** Collects what one pipeline drops and discards, by the hooks that Reactor reads from the Context. */
final class Drops {

    private final List<Throwable> errors = new CopyOnWriteArrayList<>();
    private final List<Object> values = new CopyOnWriteArrayList<>();

    /** Adds the hooks; for {@code contextWrite}. */
    Context watch(Context context) {
        Consumer<Throwable> onErrorDropped = errors::add;
        Consumer<Object> onNextDropped = values::add;
        return Operators.enableOnDiscard(context, values::add)
                .put("reactor.onErrorDropped.local", onErrorDropped)
                .put("reactor.onNextDropped.local", onNextDropped);
    }

    /** The errors that came too late. */
    List<Throwable> errors() {
        return errors;
    }

    /** The values that came too late, dropped or discarded. */
    List<Object> values() {
        return values;
    }
}
