package dev.r2dbcscope.testkit;

import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * Holds a step of a {@link ProbeConnectionFactory} until the test lets it go on: {@code probe.on("commit",
 * ProbeFault.hold(hold))}.
 *
 * <p>Thread-safe. It can hold several steps, which go on together; once released it holds no more.
 */
public final class ProbeHold {

    private final Sinks.Empty<Void> reached = Sinks.empty();
    private final Sinks.Empty<Void> end = Sinks.empty();

    private ProbeHold() {}

    /**
     * Makes a hold.
     *
     * @return one that holds
     */
    public static ProbeHold of() {
        return new ProbeHold();
    }

    /**
     * Tells when a step has come so far.
     *
     * @return completes when a step is held, at once if one is or was
     */
    public Mono<Void> reached() {
        return reached.asMono();
    }

    /** Lets the steps go on that are held; does nothing if they do already. */
    public void release() {
        end.tryEmitEmpty();
    }

    /**
     * Lets the steps fail that are held, without an effect; does nothing if they have gone on already.
     *
     * @param error what they fail with
     */
    public void fail(Throwable error) {
        end.tryEmitError(error);
    }

    Mono<Void> end() {
        return end.asMono().doOnSubscribe(subscription -> reached.tryEmitEmpty());
    }
}
