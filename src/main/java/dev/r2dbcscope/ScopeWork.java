package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import org.jspecify.annotations.Nullable;

/**
 * How much of what a scope asked of the database is still without an answer: what {@link OnCancel#COMMIT} must know.
 *
 * <p>A statement counts from before it comes to the gate until its first row or its end, in the scope of its subscriber and
 * in every scope around that on the same connection. One atomic number holds the count and whether the scope was closed
 * because it was zero. So either a statement comes first and the cancel finds it, or the cancel comes first and the
 * statement is refused: a transaction is never committed with a statement of its pipeline half done.
 */
final class ScopeWork {

    private static final int CLOSED = -1;

    private static final AtomicIntegerFieldUpdater<ScopeWork> UNANSWERED =
            AtomicIntegerFieldUpdater.newUpdater(ScopeWork.class, "unanswered");

    private final Scope scope;
    private final @Nullable ScopeWork around;
    private volatile int unanswered;

    ScopeWork(Scope scope, @Nullable ScopeWork around) {
        this.scope = scope;
        this.around = around;
    }

    /** Counts something that waits for an answer from now on, unless the scope, or one around it, was closed. */
    boolean begin() {
        for (ScopeWork level = this; level != null; level = level.around) {
            if (UNANSWERED.getAndUpdate(level, count -> count == CLOSED ? CLOSED : count + 1) == CLOSED) {
                answered(level);
                return false;
            }
        }
        return true;
    }

    /** One of those got its answer, or will never be sent. */
    void answered() {
        answered(null);
    }

    private void answered(@Nullable ScopeWork end) {
        for (ScopeWork level = this; level != null && level != end; level = level.around) {
            UNANSWERED.decrementAndGet(level);
        }
    }

    /** Closes the scope if nothing waits for an answer; says whether it did. Called once. */
    boolean closeIfAnswered() {
        return UNANSWERED.compareAndSet(this, 0, CLOSED);
    }

    /** A result that had begun to arrive has failed: nothing that was closed in spite of it may be committed. */
    void failed(Throwable error) {
        for (ScopeWork level = this; level != null; level = level.around) {
            if (level.unanswered == CLOSED) {
                level.scope
                        .session()
                        .rollbackOnly("a result of the cancelled " + level.scope.label() + " failed", error);
            }
        }
    }
}
