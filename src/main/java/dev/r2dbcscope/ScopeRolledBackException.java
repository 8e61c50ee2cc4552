package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/**
 * A transaction was rolled back although its pipeline completed, because a scope that had joined it failed or was
 * cancelled, or because code inside it asked for a rollback; or a savepoint was rolled back to, because a
 * statement after it had failed whose error the pipeline kept to itself. Suppressed under another error, it says how
 * often a transaction was tried in vain.
 */
public final class ScopeRolledBackException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopeRolledBackException(String problem, ScopeLabel scope, @Nullable Throwable cause) {
        super(problem, scope, null, cause);
    }
}
