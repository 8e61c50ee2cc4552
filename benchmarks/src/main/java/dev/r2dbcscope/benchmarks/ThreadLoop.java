package dev.r2dbcscope.benchmarks;

import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

/** Callers that are threads, one each, and block. */
final class ThreadLoop implements ClosedLoop {

    private final Callable<?> call;
    private final Supplier<ExecutorService> threads;

    /** The threads are made for each run, by an executor that has one for each task. */
    ThreadLoop(Callable<?> call, Supplier<ExecutorService> threads) {
        this.call = call;
        this.threads = threads;
    }

    @Override
    public Load run(int callers, BooleanSupplier more) throws Exception {
        ExecutorService executor = threads.get();
        try {
            Load load = new Load(callers);
            for (int i = 0; i < callers; i++) {
                executor.execute(() -> repeat(load, more));
            }
            return load.await();
        } finally {
            executor.shutdown();
        }
    }

    private void repeat(Load load, BooleanSupplier more) {
        try {
            while (!load.hasFailed() && more.getAsBoolean()) {
                long begun = System.nanoTime();
                load.ended(begun, call.call(), null);
            }
        } catch (Exception e) {
            load.fail(e);
        } finally {
            load.leave();
        }
    }
}
