package dev.r2dbcscope;

import java.util.HashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * The code outside the Reactor world that uses a scope's connection and cannot be cancelled, see {@link ScopeBridge}: what
 * of it runs, and whether more may come.
 */
final class Bridges {

    private Set<BridgedCode> running = Set.of();
    private Sinks.@Nullable Empty<Void> ended;
    private boolean sealed;

    /** Takes note of code that is about to run, unless the scope has ended. */
    synchronized boolean enter(BridgedCode code) {
        if (sealed) {
            return false;
        }
        if (running.isEmpty()) {
            running = new HashSet<>();
        }
        return running.add(code);
    }

    /** It has really ended, or the scope no longer waits for it; says whether that is news. */
    boolean leave(BridgedCode code) {
        Sinks.Empty<Void> told = null;
        synchronized (this) {
            if (!running.contains(code)) {
                return false;
            }
            running.remove(code);
            if (running.isEmpty() && ended != null) {
                sealed = true;
                told = ended;
            }
        }
        if (told != null) {
            told.tryEmitEmpty();
        }
        return true;
    }

    /** Admits no more, if none runs; otherwise admits more until none does. Says which. */
    synchronized boolean sealIfIdle() {
        if (running.isEmpty()) {
            sealed = true;
        } else if (ended == null) {
            ended = Sinks.empty();
        }
        return sealed;
    }

    /** Completes when none runs any more and no more is admitted. */
    synchronized Mono<Void> ended() {
        return Objects.requireNonNull(ended).asMono();
    }

    /** Admits no more; returns what still runs. */
    synchronized List<BridgedCode> seal() {
        sealed = true;
        return List.copyOf(running);
    }
}
