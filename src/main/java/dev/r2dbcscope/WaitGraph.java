package dev.r2dbcscope;

import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Which sessions wait for a connection while scopes around them hold one, over all pools; ends a wait that would last
 * for ever.
 *
 * <p>Only sessions inside others are entered, when the pool did not serve them at once, so that a scope that nests no
 * independent ones pays for one read of a field.
 *
 * <p><strong>When it looks.</strong> A {@link Deadlock} can come about in two ways only: a session starts to wait, or a
 * session below which others wait already gets its connection. So those are the two moments at which it looks, and
 * there are no timers. None is missed: those that start to wait are entered and looked at under one lock, so that of
 * two that close a circle together the second one sees the first. A session that gets its connection takes no lock
 * before it does; it first changes its phase and then reads whether somebody was entered below it, whereas who enters
 * first marks the sessions above and then reads their phases; both are volatile, so one of the two sees the other.
 *
 * <p><strong>No false alarm.</strong> Phases change while they are read. But a session holds its connection, or waits for
 * one, once in its life and without interruption; so what is found true twice was true all the time between. Every
 * phase that a deadlock rests on is read a second time after all were read once: between the two there was a moment at
 * which all of it held, and what is a deadlock once stays one until somebody gives way. Connections on their way to a
 * session, back to the pool, or with a borrower that is not a scope, are held by no session in this sense, and leave
 * the pool with fewer holders than connections.
 *
 * <p><strong>Who gives way.</strong> The session that started to wait last, as the circle was closed by it; or, if it was
 * closed by one that got its connection, the last one that waits below that. Its phase changes under the lock, so whoever
 * looks next finds the circle open: one session fails for each circle.
 */
final class WaitGraph {

    /** One for all, because a circle may go over the pools of several {@link ConnectionScopes}. */
    static final WaitGraph INSTANCE = new WaitGraph();

    /** For each pool the sessions with connections of it below which others wait, and these; guarded by this. */
    private final Map<Pool, Map<Session, Set<Session>>> blocked = new HashMap<>();

    private WaitGraph() {}

    /** Takes notice that a session with scopes around it waits for a connection of its own. */
    void waits(Session waiter) {
        NestedAcquireDeadlockException error;
        synchronized (this) {
            enter(waiter);
            if (!waiter.isAcquiring()) {
                remove(waiter);
                return;
            }
            Deadlock deadlock = Deadlock.on(waiter.pool(), blocked);
            error = deadlock != null && deadlock.holdsUp(waiter) ? giveWay(waiter, deadlock) : null;
        }
        if (error != null) {
            waiter.entry().deadlocked(error);
        }
    }

    /** Takes notice that a session no longer waits. */
    void waitsNoMore(Session waiter) {
        synchronized (this) {
            remove(waiter);
        }
    }

    /** Takes notice that a session below which others wait got its connection. */
    void received(Session holder) {
        while (true) {
            Session last;
            NestedAcquireDeadlockException error;
            synchronized (this) {
                Deadlock deadlock = Deadlock.on(holder.pool(), blocked);
                List<Session> below = deadlock == null ? List.of() : deadlock.waitersBelow(holder);
                if (deadlock == null || below.isEmpty()) {
                    return;
                }
                last = below.get(below.size() - 1);
                error = giveWay(last, deadlock);
            }
            if (error != null) {
                last.entry().deadlocked(error);
            }
        }
    }

    /** Whether nobody waits. */
    boolean isEmpty() {
        synchronized (this) {
            return blocked.isEmpty();
        }
    }

    /** Ends the wait, and says with which error; {@code null} if it ended by itself. */
    private @Nullable NestedAcquireDeadlockException giveWay(Session waiter, Deadlock deadlock) {
        NestedAcquireDeadlockException error = deadlock.error(waiter);
        if (!waiter.entry().giveUpAcquiring()) {
            return null;
        }
        remove(waiter);
        return error;
    }

    private void enter(Session waiter) {
        for (Session above = waiter.parent(); above != null; above = above.parent()) {
            if (!above.isNested() && above.pool().isBounded()) {
                blocked.computeIfAbsent(above.pool(), pool -> new LinkedHashMap<>())
                        .computeIfAbsent(above, session -> new LinkedHashSet<>())
                        .add(waiter);
                above.markBlocked();
            }
        }
    }

    private void remove(Session waiter) {
        for (Session above = waiter.parent(); above != null; above = above.parent()) {
            Session session = above;
            blocked.computeIfPresent(above.pool(), (pool, sessions) -> {
                sessions.computeIfPresent(session, (key, waiters) -> {
                    waiters.remove(waiter);
                    return waiters.isEmpty() ? null : waiters;
                });
                return sessions.isEmpty() ? null : sessions;
            });
        }
    }
}
