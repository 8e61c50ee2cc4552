package dev.r2dbcscope;

import reactor.core.publisher.Mono;

/**
 * Steps, each of which begins when the one before it has completed; the first error ends them.
 *
 * <p>Steps that are over at once ({@link Completion#NOW}, which most are) follow each other without a subscription, so the
 * first ones have run when this returns.
 */
final class Steps {

    /** One step. */
    interface Step {

        /** Begins; {@link Completion#NOW} if it is over at once. */
        Mono<Void> begin();
    }

    private Steps() {}

    /** Begins; {@link Completion#NOW} if all of them were over at once. */
    static Mono<Void> run(Step... steps) {
        return from(0, steps);
    }

    private static Mono<Void> from(int first, Step[] steps) {
        for (int i = first; i < steps.length; i++) {
            Mono<Void> step = begun(steps[i]);
            if (step != Completion.NOW) {
                int next = i + 1;
                return next == steps.length ? step : step.then(Mono.defer(() -> from(next, steps)));
            }
        }
        return Completion.NOW;
    }

    private static Mono<Void> begun(Step step) {
        try {
            return step.begin();
        } catch (Throwable e) {
            return Mono.error(e);
        }
    }
}
