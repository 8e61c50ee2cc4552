package dev.r2dbcscope;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import reactor.core.Disposable;
import reactor.core.scheduler.Schedulers;

/** What one session tells of itself: its times, its state, its events, and the warning that it may have leaked. */
final class SessionReport {

    private static final Logger LOG = LoggerFactory.getLogger(ConnectionScopes.class);

    private static final AtomicLong IDS = new AtomicLong();

    private final long id = IDS.incrementAndGet();
    private final Session session;
    private final List<ScopeListener> listeners;

    private volatile long askedAt;
    private volatile long gotAt;
    private volatile long gaveBackAt;
    private volatile long heldSince;
    private volatile boolean opened;
    private boolean leakSuspected;
    private boolean leakDecided;
    private volatile @Nullable Disposable leakTimer;

    SessionReport(Session session) {
        this.session = session;
        this.listeners = session.root().withItsListeners(session.options().listeners());
    }

    long id() {
        return id;
    }

    void waiting() {
        askedAt = System.nanoTime();
        tell(ScopeEvent.Waiting::new);
    }

    void opening() {
        gotAt = System.nanoTime();
        heldSince = Schedulers.parallel().now(TimeUnit.NANOSECONDS);
        Duration threshold = session.options().leakThreshold();
        if (!threshold.isZero()) {
            leakTimer = Schedulers.parallel().schedule(this::suspectLeak, threshold.toNanos(), TimeUnit.NANOSECONDS);
        }
    }

    /** For how long the connection has been held, by the clock of the timers, which a test may have replaced. */
    Duration held() {
        return Duration.ofNanos(Schedulers.parallel().now(TimeUnit.NANOSECONDS) - heldSince);
    }

    void opened() {
        opened = true;
        tell(ScopeEvent.Opened::new);
    }

    void openFailed(Throwable error) {
        tell(scope -> new ScopeEvent.OpenFailed(scope, error));
    }

    void deadlockAverted(NestedAcquireDeadlockException error) {
        tell(scope -> new ScopeEvent.DeadlockAverted(scope, error));
    }

    void statementEnded(String sql, long nanos, long rows, @Nullable Throwable error) {
        tell(scope -> new ScopeEvent.StatementEnded(scope, sql, Duration.ofNanos(nanos), rows, error));
    }

    void cancelRequested(String sql, long ran, long took, @Nullable Throwable error) {
        if (error != null) {
            LOG.warn("The request to cancel a statement failed: {} [{}]", ErrorText.of(error), label());
        }
        tell(scope -> new ScopeEvent.CancelRequested(scope, sql, Duration.ofNanos(ran), Duration.ofNanos(took), error));
    }

    void foundDirty() {
        LOG.warn("The connection factory delivered a connection in an open transaction; rolled it back [{}]", label());
    }

    void leftDirty() {
        LOG.warn("The scope's code left a transaction open on its connection; rolled it back [{}]", label());
    }

    void exiting(ScopeOutcome outcome) {
        if (opened) {
            tell(scope -> new ScopeEvent.Exiting(scope, outcome));
        }
    }

    void releaseFailed(Throwable error) {
        LOG.warn(
                "The connection could not be released and was destroyed: {} [{}]",
                ErrorText.of(error),
                label(),
                ErrorText.forLog(error));
        tell(scope -> new ScopeEvent.ReleaseFailed(scope, error));
    }

    void released(ScopeOutcome outcome, TransactionOutcome transaction, @Nullable Throwable error, boolean destroyed) {
        gaveBackAt = System.nanoTime();
        Disposable timer = leakTimer;
        if (timer != null) {
            timer.dispose();
        }
        if (wasSuspected()) {
            LOG.info("A connection that was reported as possibly leaked has been given back [{}]", label());
            tell(ScopeEvent.LeakResolved::new);
        }
        if (opened) {
            tell(scope -> new ScopeEvent.Released(scope, outcome, transaction, error, destroyed));
        }
    }

    void hookFailed(Throwable error) {
        LOG.warn(
                "A hook of the scope failed: {}; what the scope did is not affected [{}]",
                ErrorText.of(error),
                label(),
                ErrorText.forLog(error));
        tell(scope -> new ScopeEvent.HookFailed(scope, error));
    }

    void usedAfterEnd(String call, ScopeClosedException error) {
        tell(scope -> new ScopeEvent.UsedAfterEnd(scope, call, error));
    }

    /** The last that this session tells: what comes after it is told by the session of the next attempt. */
    void retrying(int attempt, Duration backoff, Throwable error) {
        tell(scope -> new ScopeEvent.Retrying(scope, attempt, backoff, error));
    }

    /** Under the lock, so that it is told before the release or not at all. */
    synchronized void detached() {
        if (!leakDecided) {
            tell(ScopeEvent.Detached::new);
        }
    }

    /** Under the lock, so that the suspicion is told before the release or not at all. */
    private synchronized void suspectLeak() {
        if (!leakDecided) {
            leakSuspected = true;
            Duration threshold = session.options().leakThreshold();
            LOG.warn("A connection has been held for more than the leak threshold of {}: {}", threshold, snapshot());
            tell(scope -> new ScopeEvent.LeakSuspected(scope, threshold));
        }
    }

    private synchronized boolean wasSuspected() {
        leakDecided = true;
        return leakSuspected;
    }

    private void tell(Function<LiveScope, ScopeEvent> event) {
        if (listeners.isEmpty()) {
            return;
        }
        ScopeEvent told = event.apply(snapshot());
        for (ScopeListener listener : listeners) {
            try {
                listener.onEvent(told);
            } catch (Throwable e) {
                LOG.warn("A scope listener failed on {}", told, e);
            }
        }
    }

    LiveScope snapshot() {
        long now = gaveBackAt != 0 ? gaveBackAt : System.nanoTime();
        long got = gotAt;
        Gate gate = session.gateIfAny();
        Exchange oldest = gate == null ? null : gate.oldest();
        return new LiveScope(
                id,
                label().name(),
                label().origin(),
                state(oldest),
                session.isTransactional(),
                Duration.ofNanos(askedAt == 0 ? 0 : (got == 0 ? now : got) - askedAt),
                Duration.ofNanos(got == 0 ? 0 : now - got),
                Duration.ofNanos(gate == null ? 0 : gate.busyNanos()),
                gate == null ? 0 : gate.started(),
                gate == null ? 0 : gate.inFlight(),
                gate == null ? 0 : gate.waitingCount(),
                session.budget().used(),
                oldest == null ? null : oldest.sql());
    }

    private ScopeState state(@Nullable Exchange oldest) {
        return switch (session.phase()) {
            case NEW, ACQUIRING, ABANDONED -> ScopeState.WAITING;
            case OPENING -> ScopeState.OPENING;
            case OPEN -> oldest == null ? ScopeState.IDLE : oldest.state();
            case EXITING, CLOSED -> ScopeState.EXITING;
        };
    }

    private ScopeLabel label() {
        return session.label();
    }
}
