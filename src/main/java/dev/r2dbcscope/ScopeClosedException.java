package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/**
 * A connection, statement, batch, result or row was used after its scope had ended. Nothing was sent to the database.
 *
 * <p>The usual reason is work that the scope's pipeline started and did not wait for, or a handle that escaped from it. A
 * scope whose connection could not be opened is as good as ended; the cause says why then.
 */
public final class ScopeClosedException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopeClosedException(String problem, ScopeLabel scope) {
        this(problem, scope, null);
    }

    ScopeClosedException(String problem, ScopeLabel scope, @Nullable Throwable cause) {
        super(problem, scope, null, cause);
    }
}
