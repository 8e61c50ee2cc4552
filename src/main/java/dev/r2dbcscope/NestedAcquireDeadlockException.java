package dev.r2dbcscope;

/**
 * A scope asked for a second connection while every connection of the pool is held by scopes that wait for a second
 * one themselves: none of them could ever go on.
 */
public final class NestedAcquireDeadlockException extends ScopeException {

    private static final long serialVersionUID = 1L;

    NestedAcquireDeadlockException(String problem, ScopeLabel scope) {
        super(problem, scope, null, null);
    }
}
