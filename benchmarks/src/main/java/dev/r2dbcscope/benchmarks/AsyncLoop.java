package dev.r2dbcscope.benchmarks;

import java.util.concurrent.CompletionStage;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

/** Callers without a thread: the next call of each begins on the thread on which its last one has ended. */
final class AsyncLoop implements ClosedLoop {

    private final Supplier<? extends CompletionStage<?>> call;

    AsyncLoop(Supplier<? extends CompletionStage<?>> call) {
        this.call = call;
    }

    @Override
    public Load run(int callers, BooleanSupplier more) throws Exception {
        Load load = new Load(callers);
        for (int i = 0; i < callers; i++) {
            next(load, more);
        }
        return load.await();
    }

    private void next(Load load, BooleanSupplier more) {
        try {
            if (load.hasFailed() || !more.getAsBoolean()) {
                load.leave();
                return;
            }
            long begun = System.nanoTime();
            call.get().whenComplete((value, error) -> {
                load.ended(begun, value, error);
                next(load, more);
            });
        } catch (RuntimeException e) {
            load.fail(e);
            load.leave();
        }
    }
}
