package dev.r2dbcscope.testkit;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.LiveScope;
import dev.r2dbcscope.PoolCapacity;
import dev.r2dbcscope.ScopeClosedException;
import dev.r2dbcscope.ScopeEvent;
import dev.r2dbcscope.ScopeListener;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Says after a test whether everything that it opened was given back, and who still has what if it was not.
 *
 * <p>It watches connection factories, and the scopes on them:
 *
 * <pre>{@code
 * LeakAssertions leaks = LeakAssertions.of();
 * ConnectionFactory connections = leaks.watch(pool);
 * ConnectionScopes scopes = ConnectionScopes.of(connections);
 * ...
 * leaks.assertNothingHeld();
 * }</pre>
 *
 * <p>What it finds:
 *
 * <ul>
 *   <li>scopes that hold a connection or wait for one: with name, origin, state, the SQL text in flight, how long the
 *       connection has been held, and how many statements wait at the gate;
 *   <li>connections that code took beside scopes and has not closed: with the line that asked for it, and what runs or ran
 *       last on it. One of which {@code close()} was called counts until what that returned was subscribed to and has ended;
 *   <li>uses after the end: of a handle after its scope has ended, see {@link ScopeEvent.UsedAfterEnd}, and of a
 *       connection that was taken beside scopes after it was closed, even if the code has swallowed the error;
 *   <li>connections that a pool counts as handed out and that nobody has, or that were taken past the watched factory, if
 *       the pool is known, see {@link PoolCapacity}.
 * </ul>
 *
 * <p>SQL text is shown, bind values and rows never are.
 *
 * <p>Thread-safe. What tests do at the same time is not told apart: tests that run concurrently need factories and an
 * instance of their own.
 *
 * @see LeakExtension for JUnit, which asserts it after each test
 */
public final class LeakAssertions implements ScopeListener {

    private static final Logger LOG = LoggerFactory.getLogger(LeakAssertions.class);

    private static final LeakAssertions SHARED = new LeakAssertions();

    private static final Duration PATIENCE = Duration.ofSeconds(10);

    private static final long GLANCE_NANOS = 500_000;

    private final Set<WatchedConnectionFactory> factories = ConcurrentHashMap.newKeySet();
    private final Set<ConnectionScopes> watchedScopes = ConcurrentHashMap.newKeySet();
    private final Set<HeldConnection> connections = ConcurrentHashMap.newKeySet();
    private final Map<Long, LiveScope> scopes = new ConcurrentHashMap<>();
    private final Map<WatchedConnectionFactory, Integer> strays = new ConcurrentHashMap<>();
    private final Queue<Offence> offences = new ConcurrentLinkedQueue<>();
    private final AtomicLong lastConnection = new AtomicLong();
    private final AtomicLong lastScope = new AtomicLong();
    private volatile long ignoredConnections;
    private volatile long ignoredScopes;

    /** A use after the end, and what was thrown for it or who did it. */
    private record Offence(Object cause, String text) {}

    private LeakAssertions() {}

    /**
     * Makes one that watches nothing yet.
     *
     * @return a new one
     */
    public static LeakAssertions of() {
        return new LeakAssertions();
    }

    /**
     * The one that all tests of the JVM can share, for factories that are made where a test cannot hand anything in, such as
     * the beans of a Spring context.
     *
     * @return always the same
     */
    public static LeakAssertions shared() {
        return SHARED;
    }

    /**
     * Watches a factory: every connection that is taken through the returned one, by scopes or beside them, and every scope
     * on it.
     *
     * <p>The returned factory can stand wherever the given one does: it is {@link io.r2dbc.spi.Wrapped}, as are its
     * connections, so that pools, dialects and drivers are found through it. Give it the factory that the application uses,
     * which is the pool: connections that lie idle in a pool above it would count as held.
     *
     * @param factory the factory
     * @return the factory to use instead
     */
    public ConnectionFactory watch(ConnectionFactory factory) {
        WatchedConnectionFactory watched =
                new WatchedConnectionFactory(Objects.requireNonNull(factory, "factory"), this);
        factories.add(watched);
        return watched;
    }

    /**
     * Watches scopes on a factory that is not watched itself.
     *
     * @param scopes the scopes
     * @return a variant of them to use instead, which tells of itself. Its variants by {@link ConnectionScopes#with} do so
     *     as well, if their options have this as a listener
     */
    public ConnectionScopes watch(ConnectionScopes scopes) {
        ConnectionScopes watched = scopes.with(scopes.options().withListener(this));
        watchedScopes.add(watched);
        return watched;
    }

    /** Takes notice of what happens to a scope: for those whose options have this as a listener. */
    @Override
    public void onEvent(ScopeEvent event) {
        LiveScope scope = event.scope();
        if (event instanceof ScopeEvent.Waiting) {
            lastScope.accumulateAndGet(scope.id(), Math::max);
            scopes.put(scope.id(), scope);
        } else if (event instanceof ScopeEvent.Released || event instanceof ScopeEvent.OpenFailed) {
            scopes.remove(scope.id());
        } else if (event instanceof ScopeEvent.UsedAfterEnd use) {
            usedAfterEnd(scope, use.call(), use.error());
        } else {
            scopes.computeIfPresent(scope.id(), (id, before) -> scope);
        }
    }

    private void usedAfterEnd(LiveScope scope, String call, ScopeClosedException error) {
        found(
                error,
                "scope '" + error.scopeName() + "' assembled at " + error.scopeOrigin() + " was used after its end: \""
                        + call + "\", by " + CodeSite.hereOrThread(),
                scope.id() <= ignoredScopes);
    }

    // what the watched factories tell --------------------------------------------------------------------------------

    HeldConnection asked(WatchedConnectionFactory factory, String origin, @Nullable CurrentScope scope) {
        HeldConnection asked = new HeldConnection(this, factory, lastConnection.incrementAndGet(), origin, scope);
        connections.add(asked);
        return asked;
    }

    /** The connection that was asked for, or another one that came in spite of that. */
    HeldConnection given(HeldConnection first) {
        if (first.arrived()) {
            return first;
        }
        HeldConnection another = asked(first.factory(), first.origin(), first.scope());
        another.arrived();
        return another;
    }

    void forget(HeldConnection connection) {
        connections.remove(connection);
    }

    void usedAfterClose(HeldConnection connection, String call) {
        found(
                connection,
                "connection taken at " + connection.origin() + " was used after its close: \"" + call + "\", by "
                        + CodeSite.hereOrThread(),
                connection.number() <= ignoredConnections);
    }

    private void found(Object cause, String text, boolean ofAnEarlierTest) {
        if (ofAnEarlierTest) {
            LOG.warn("Left over from an earlier test: {}", text);
        } else if (offences.stream().noneMatch(offence -> offence.cause() == cause)) {
            offences.add(new Offence(cause, text));
        }
    }

    // what is left ---------------------------------------------------------------------------------------------------

    /**
     * What is held or waited for at the moment, each in one line, except for what {@link #ignoreHeld} ignores.
     *
     * @return the scopes and connections, and what is missing in the pools
     */
    public List<String> held() {
        connections.stream().filter(HeldConnection::wasLeft).forEach(this::forgetIfTakenBack);
        List<String> held = new ArrayList<>();
        Set<Long> told = new HashSet<>();
        List<HeldConnection> inOrder = new ArrayList<>(connections);
        inOrder.sort(Comparator.comparingLong(HeldConnection::number));
        for (HeldConnection connection : inOrder) {
            CurrentScope scope = connection.scope();
            if (scope != null) {
                told.add(scope.snapshot().id());
            }
            if (connection.number() > ignoredConnections) {
                held.add(connection.describe());
            }
        }
        scopes.values().stream()
                .filter(scope -> scope.id() > ignoredScopes && !told.contains(scope.id()))
                .sorted(Comparator.comparingLong(LiveScope::id))
                .forEach(scope -> held.add(ScopeText.of(now(scope))));
        for (WatchedConnectionFactory factory : factories) {
            int missing = missing(factory) - strays.getOrDefault(factory, 0);
            if (missing > 0) {
                held.add("the pool of " + factory.getMetadata().getName() + " has handed out " + missing
                        + " connections that were not taken through the watched factory, or were lost on the way");
            }
        }
        return held;
    }

    /** r2dbc-pool takes back what it has delivered if it is cancelled before it has completed: then it counts one less. */
    private void forgetIfTakenBack(HeldConnection connection) {
        if (missing(connection.factory()) < 0) {
            forget(connection);
        }
    }

    private LiveScope now(LiveScope scope) {
        return watchedScopes.stream()
                .flatMap(each -> each.live().stream())
                .filter(live -> live.id() == scope.id())
                .findFirst()
                .orElse(scope);
    }

    /** How many connections the pool has handed out that are not known here. */
    private int missing(WatchedConnectionFactory factory) {
        int known = (int) connections.stream()
                .filter(connection -> connection.factory().unwrap() == factory.unwrap() && connection.hasArrived())
                .count();
        return PoolCapacity.inUse(factory).orElse(known) - known;
    }

    /**
     * From now on, what is held at this moment is nobody's fault: because it was opened for longer than the next test, or is
     * the leak of an earlier one. What was found so far is forgotten; what code still does with handles from before is
     * logged as a warning and found no more.
     */
    public void ignoreHeld() {
        ignoredConnections = lastConnection.get();
        ignoredScopes = lastScope.get();
        factories.forEach(factory -> strays.put(factory, Math.max(0, missing(factory))));
        offences.clear();
    }

    /**
     * Waits until nothing is held any more, for up to ten seconds, and fails if that does not come, or if something was used
     * after its end.
     *
     * @throws AssertionError as {@link #assertNothingHeld(Duration)}
     */
    public void assertNothingHeld() {
        assertNothingHeld(PATIENCE);
    }

    /**
     * Waits until nothing is held any more, and fails if that does not come, or if something was used after its end. Waiting
     * is needed because a cancelled scope gives its connection back later. Everything is reported once: it ends with {@link
     * #ignoreHeld}.
     *
     * <p>It blocks the thread, which must be one that may be blocked.
     *
     * @param patience how long to wait at most; zero for not at all
     * @throws AssertionError if there is anything; it lists all of it
     */
    public void assertNothingHeld(Duration patience) {
        long start = System.nanoTime();
        List<String> held = held();
        while (!held.isEmpty()
                && System.nanoTime() - start < patience.toNanos()
                && !Thread.currentThread().isInterrupted()) {
            LockSupport.parkNanos(GLANCE_NANOS);
            held = held();
        }
        List<String> all = new ArrayList<>(held);
        offences.forEach(offence -> all.add(offence.text()));
        ignoreHeld();
        if (!all.isEmpty()) {
            throw new AssertionError(text(all, held.isEmpty() ? Duration.ZERO : patience));
        }
    }

    private static String text(List<String> leaks, Duration waited) {
        StringBuilder text = new StringBuilder()
                .append(leaks.size())
                .append(leaks.size() == 1 ? " leak" : " leaks")
                .append(waited.isZero() ? ":" : ", after waiting for " + waited + ":");
        for (int i = 0; i < leaks.size(); i++) {
            text.append("\n  ").append(i + 1).append(". ").append(leaks.get(i));
        }
        return text.toString();
    }
}
