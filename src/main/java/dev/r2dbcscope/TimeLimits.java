package dev.r2dbcscope;

import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.scheduler.Schedulers;

/**
 * Ends a scope that holds its connection for too long, or for too long without using it.
 *
 * <p>Whether the connection is used is not noted down for each row, which would cost every row, but looked up now and then: a
 * pause that was the same at {@value #LOOKS} looks in a row, each an equal part of the bound after the one before, has lasted for
 * the bound. The timer is armed anew after each look, so looks never come in a burst after the machine stood still.
 */
final class TimeLimits {

    private static final int LOOKS = 8;

    private final Session session;
    private final Duration maxHold;
    private final Duration maxIdle;
    private final Disposable.Swap holdTimer = Disposables.swap();
    private final Disposable.Swap idleTimer = Disposables.swap();
    private @Nullable Pause last;
    private int seen;

    private TimeLimits(Session session, Duration maxHold, Duration maxIdle) {
        this.session = session;
        this.maxHold = maxHold;
        this.maxIdle = maxIdle;
    }

    /** Whether a scope with such options has any. */
    static boolean areIn(ScopeOptions options) {
        return !options.maxHold().isZero() || !options.maxIdle().isZero();
    }

    /** The limits of a session, or {@code null} if it has none. */
    static @Nullable TimeLimits of(Session session, ScopeOptions options) {
        return areIn(options) ? new TimeLimits(session, options.maxHold(), options.maxIdle()) : null;
    }

    /** The session is open and has held its connection for so long already. */
    void arm(Duration held) {
        if (!maxHold.isZero()) {
            holdTimer.update(after(Math.max(0, maxHold.minus(held).toNanos()), this::heldTooLong));
        }
        if (!maxIdle.isZero()) {
            last = session.pause();
            lookLater();
        }
    }

    /** The session exits. */
    void dispose() {
        holdTimer.dispose();
        idleTimer.dispose();
    }

    /**
     * Replaces the timer without disposing of the former one: on a slow machine the next look may have come, and armed the
     * timer in its turn, before this is done.
     */
    private void lookLater() {
        idleTimer.replace(after(maxIdle.toNanos() / LOOKS + 1, this::look));
    }

    private void look() {
        Pause now = session.pause();
        seen = now != null && now.equals(last) ? seen + 1 : 0;
        last = now;
        if (now != null && seen >= LOOKS) {
            session.expire(
                    ScopeTimeoutException.idle(maxIdle, now, session.report().snapshot(), session.label()));
        } else {
            lookLater();
        }
    }

    private void heldTooLong() {
        session.expire(ScopeTimeoutException.hold(maxHold, session.report().snapshot(), session.label()));
    }

    private static Disposable after(long nanos, Runnable task) {
        return Schedulers.parallel().schedule(task, nanos, TimeUnit.NANOSECONDS);
    }
}
