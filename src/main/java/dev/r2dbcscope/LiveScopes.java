package dev.r2dbcscope;

import java.time.Duration;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Collectors;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** The sessions of one connection factory that hold a connection or wait for one. */
final class LiveScopes {

    /** More of those that were left while they waited are not allowed to wait in the pool's queue. */
    static final int MOST_ABANDONED = 10_000;

    private final Set<Session> live = ConcurrentHashMap.newKeySet();
    private final Set<Session> abandoned = ConcurrentHashMap.newKeySet();
    private final Set<Session> finishing = ConcurrentHashMap.newKeySet();
    private final Sinks.Empty<Void> drainBegan = Sinks.empty();
    private final Sinks.Empty<Void> drained = Sinks.empty();
    private volatile boolean draining;

    /** Adds a session; says whether it may go on. */
    boolean add(Session session) {
        live.add(session);
        if (draining && !session.belongsToALiveOne()) {
            remove(session);
            return false;
        }
        return true;
    }

    void remove(Session session) {
        live.remove(session);
        checkDrained();
    }

    /** Counts a session that nobody waits for, but to which a connection may still come. */
    void abandon(Session session) {
        abandoned.add(session);
    }

    /** Whether so many were left while they waited that another one would only make the queue longer. */
    boolean isFlooded() {
        return abandoned.size() >= MOST_ABANDONED;
    }

    /** No connection comes to an abandoned session any more, or it was given back. */
    void forget(Session session) {
        abandoned.remove(session);
        checkDrained();
    }

    /** Counts a session that gives its connection back, and has hooks to run after that. */
    void finishing(Session session) {
        finishing.add(session);
    }

    /** The hooks of a session have ended. */
    void finished(Session session) {
        finishing.remove(session);
        checkDrained();
    }

    private void checkDrained() {
        if (draining && live.isEmpty() && abandoned.isEmpty() && finishing.isEmpty()) {
            drained.tryEmitEmpty();
        }
    }

    List<LiveScope> snapshot() {
        return live.stream()
                .map(session -> session.report().snapshot())
                .sorted(Comparator.comparingLong(LiveScope::id))
                .toList();
    }

    Mono<Void> draining() {
        return drainBegan.asMono();
    }

    boolean isDraining() {
        return draining;
    }

    ScopesDrainedException refusal(ScopeLabel label) {
        return new ScopesDrainedException(
                "No new scope: these scopes were drained, because the application shuts down", label, List.of());
    }

    /** Refuses new scopes from now on; completes when the last one has ended. */
    Mono<Void> drain(Duration timeout, ScopeLabel label) {
        return Mono.defer(() -> {
            draining = true;
            drainBegan.tryEmitEmpty();
            checkDrained();
            return drained.asMono()
                    .timeout(
                            timeout,
                            Mono.error(() -> {
                                List<LiveScope> remaining = snapshot();
                                return new ScopesDrainedException(
                                        remaining.size() + " scopes were still live after " + timeout + ", "
                                                + abandoned.size() + " that were left while they waited are still to"
                                                + " get a connection, and the hooks of " + finishing.size()
                                                + " have not ended: " + summary(),
                                        label,
                                        remaining);
                            }),
                            Schedulers.parallel());
        });
    }

    /** Who is live, in few words. */
    String summary() {
        Map<ScopeState, Long> states = live.stream()
                .collect(Collectors.groupingBy(
                        session -> session.report().snapshot().state(), TreeMap::new, Collectors.counting()));
        String oldest = snapshot().stream()
                .filter(scope -> !scope.held().isZero())
                .max(Comparator.comparing(LiveScope::held))
                .map(scope -> "; longest held for " + scope.held().toMillis() + " ms by '" + scope.name()
                        + "' assembled at " + scope.origin())
                .orElse("");
        return "live scopes: " + states + oldest;
    }
}
