package dev.r2dbcscope.testkit;

import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** The steps of one connection, one at a time in the order in which they came, as a driver's connection serves them. */
final class ProbeTurns {

    private final Queue<Turn> waiting = new ConcurrentLinkedQueue<>();
    private final AtomicInteger free = new AtomicInteger(1);
    private final AtomicInteger rounds = new AtomicInteger();

    private void serve() {
        if (rounds.getAndIncrement() != 0) {
            return;
        }
        int missed = 1;
        do {
            while (!waiting.isEmpty() && free.compareAndSet(1, 0)) {
                Turn next = waiting.poll();
                if (next == null || !next.given.tryEmitEmpty().isSuccess()) {
                    free.set(1);
                }
            }
            missed = rounds.addAndGet(-missed);
        } while (missed != 0);
    }

    /** The time in which a step has the connection for itself. */
    final class Turn {

        private final Sinks.Empty<Void> given = Sinks.empty();
        private final AtomicInteger leaves = new AtomicInteger();

        /** Completes when all that came before have left. */
        Mono<Void> enter() {
            return Mono.defer(() -> {
                waiting.add(this);
                serve();
                return given.asMono();
            });
        }

        /** Called when the step has ended, or is given up before its turn has come. */
        void leave() {
            if (leaves.getAndIncrement() == 0) {
                // it fails only if the turn was given, or is being given, before
                if (!given.tryEmitError(new IllegalStateException("left")).isSuccess()) {
                    free.set(1);
                    serve();
                } else {
                    waiting.remove(this);
                }
            }
        }
    }
}
