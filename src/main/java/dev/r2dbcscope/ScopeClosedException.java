package dev.r2dbcscope;

/**
 * A connection, statement, batch, result or row was used after its scope had ended. Nothing was sent to the database.
 *
 * <p>The usual reason is work that the scope's pipeline started and did not wait for, or a handle that escaped from it.
 */
public final class ScopeClosedException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopeClosedException(String problem, ScopeLabel scope) {
        super(problem, scope, null, null);
    }
}
