package dev.r2dbcscope.benchmarks;

import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Supplier;

/** Virtual threads, which JDK 21 and later have, for code that is compiled for JDK 17. */
final class VirtualThreads {

    private VirtualThreads() {}

    /** Executors with a virtual thread for each task, or empty if this JVM has none. */
    static Optional<Supplier<ExecutorService>> perTask() {
        return Runtime.version().feature() < 21 ? Optional.empty() : Optional.of(VirtualThreads::executor);
    }

    private static ExecutorService executor() {
        try {
            return (ExecutorService)
                    Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }
}
