package dev.r2dbcscope;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Pools that will never again hand out a connection unless somebody gives way.
 *
 * <p>A pool is <em>stuck</em> if each of its connections is held by a session below which another one waits for a
 * connection of a pool that is stuck; usually it is the same one. The sessions that hold the connections are those that
 * have got them and whose exit has not begun: an exit waits for nobody.
 */
final class Deadlock {

    /** How many holders a message names. */
    private static final int NAMED = 16;

    /** The stuck pools, who holds their connections, and who waits for a connection of a stuck pool below each. */
    private final Map<Pool, Map<Session, List<Session>>> stuck;

    private Deadlock(Map<Pool, Map<Session, List<Session>>> stuck) {
        this.stuck = stuck;
    }

    /** The deadlock in which the pool is stuck, if it is; see {@link WaitGraph} for why this is exact. */
    static @Nullable Deadlock on(Pool pool, Map<Pool, Map<Session, Set<Session>>> blocked) {
        while (true) {
            Map<Pool, Map<Session, List<Session>>> full = full(pool, blocked);
            while (full.entrySet().removeIf(entry -> canGoOn(entry.getValue(), full.keySet()))) {
                // one pool that can go on may let another one go on
            }
            if (!full.containsKey(pool)) {
                return null;
            }
            Deadlock deadlock = new Deadlock(full);
            if (deadlock.stillHolds()) {
                return deadlock;
            }
        }
    }

    /** Among a pool and those that are waited for in turn, the ones that are wholly held by sessions below which others wait. */
    private static Map<Pool, Map<Session, List<Session>>> full(
            Pool first, Map<Pool, Map<Session, Set<Session>>> blocked) {
        Map<Pool, Map<Session, List<Session>>> full = new LinkedHashMap<>();
        Deque<Pool> toVisit = new ArrayDeque<>(List.of(first));
        while (!toVisit.isEmpty()) {
            Pool pool = toVisit.remove();
            Map<Session, Set<Session>> sessions = blocked.getOrDefault(pool, Map.of());
            int capacity = pool.capacity();
            if (full.containsKey(pool) || sessions.size() < capacity) {
                continue;
            }
            Map<Session, List<Session>> holders = holders(sessions);
            if (holders.size() >= capacity) {
                full.put(pool, holders);
                holders.values().forEach(waiters -> waiters.forEach(waiter -> toVisit.add(waiter.pool())));
            }
        }
        return full;
    }

    private static Map<Session, List<Session>> holders(Map<Session, Set<Session>> sessions) {
        Map<Session, List<Session>> holders = new LinkedHashMap<>();
        sessions.forEach((session, below) -> {
            List<Session> waiters =
                    below.stream().filter(Session::isAcquiring).collect(Collectors.toCollection(ArrayList::new));
            if (session.isHolding() && !waiters.isEmpty()) {
                holders.put(session, waiters);
            }
        });
        return holders;
    }

    /** Whether one of the holders is not held up: whoever waits below it waits for pools that are not full. */
    private static boolean canGoOn(Map<Session, List<Session>> holders, Set<Pool> full) {
        holders.values().forEach(waiters -> waiters.removeIf(waiter -> !full.contains(waiter.pool())));
        return holders.values().stream().anyMatch(List::isEmpty);
    }

    private boolean stillHolds() {
        return stuck.values().stream()
                .allMatch(holders -> holders.keySet().stream().allMatch(Session::isHolding)
                        && holders.values().stream().flatMap(List::stream).allMatch(Session::isAcquiring));
    }

    /** Whether the session is one of those that the deadlock consists of, and not one that comes on top. */
    boolean holdsUp(Session waiter) {
        return stuck.values().stream()
                .anyMatch(holders -> holders.values().stream().anyMatch(waiters -> waiters.contains(waiter)));
    }

    /** Who waits for a connection of a stuck pool below a session, the last one last. */
    List<Session> waitersBelow(Session holder) {
        return stuck.getOrDefault(holder.pool(), Map.of()).getOrDefault(holder, List.of());
    }

    /** What to tell a session that gives way. */
    NestedAcquireDeadlockException error(Session waiter) {
        List<LiveScope> scopes = stuck.values().stream()
                .flatMap(holders -> holders.entrySet().stream())
                .flatMap(entry -> Stream.concat(Stream.of(entry.getKey()), entry.getValue().stream()))
                .distinct()
                .map(session -> session.report().snapshot())
                .sorted(Comparator.comparingLong(LiveScope::id))
                .toList();
        return new NestedAcquireDeadlockException(
                "The scope would wait for a connection for ever, because all " + connections(waiter.pool())
                        + " are held by scopes that wait for one themselves: " + waits()
                        + "; give the pool more connections, let the inner scope join the outer one (Propagation.REQUIRED)"
                        + " instead of taking a second connection inside it, or do the inner work before the outer scope"
                        + " takes its connection",
                waiter.label(),
                scopes);
    }

    private String connections(Pool own) {
        String others = stuck.keySet().stream()
                .filter(pool -> !pool.equals(own))
                .map(pool -> ", and all " + pool.capacity() + " of another pool that these wait for,")
                .collect(Collectors.joining());
        return own.capacity() + " connections of its pool" + others;
    }

    private String waits() {
        List<Map.Entry<Session, List<Session>>> holders = stuck.values().stream()
                .flatMap(perPool -> perPool.entrySet().stream())
                .toList();
        String named = holders.stream()
                .limit(NAMED)
                .map(entry -> describe(entry.getKey(), entry.getValue()))
                .collect(Collectors.joining("; "));
        return holders.size() > NAMED ? named + "; and " + (holders.size() - NAMED) + " more" : named;
    }

    private static String describe(Session holder, List<Session> waiters) {
        LiveScope scope = holder.report().snapshot();
        String others = waiters.size() > 1 ? " and " + (waiters.size() - 1) + " more" : "";
        return holder.label() + " (" + scope.state() + ", held for "
                + scope.held().toMillis() + " ms) waits for " + waiters.get(0).label() + others;
    }
}
