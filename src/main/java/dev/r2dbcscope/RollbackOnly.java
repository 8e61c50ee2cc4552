package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Whether a transaction may be committed.
 *
 * <p>The scope that began it can ask for a rollback, which is then no error; a scope that has joined it can doom it, which
 * is one for the scope that began it. The former comes first. Once the exit has settled on COMMIT, both are refused: who
 * was told that the transaction rolls back can rely on it.
 */
final class RollbackOnly {

    private static final Object REQUESTED = new Object();
    private static final Object SETTLED = new Object();

    /** {@code null} as long as nothing speaks against COMMIT, one of the constants, or the error of the doom. */
    private final AtomicReference<@Nullable Object> mark = new AtomicReference<>();

    /** The scope that began the transaction wants it rolled back; says whether that was in time. */
    boolean request() {
        return mark.updateAndGet(before -> before == SETTLED ? before : REQUESTED) == REQUESTED;
    }

    /** Something that is part of the transaction failed or wants it rolled back; says whether that was in time. */
    boolean doom(ScopeRolledBackException error) {
        return mark.compareAndSet(null, error) || mark.get() != SETTLED;
    }

    /** Settles on COMMIT, unless something speaks against it; says whether nothing does. */
    boolean settle() {
        return mark.compareAndSet(null, SETTLED);
    }

    boolean isMarked() {
        Object now = mark.get();
        return now != null && now != SETTLED;
    }

    boolean isRequested() {
        return mark.get() == REQUESTED;
    }

    /** The error for the scope that began the transaction, if it is doomed. */
    @Nullable
    ScopeRolledBackException error() {
        return mark.get() instanceof ScopeRolledBackException error ? error : null;
    }
}
