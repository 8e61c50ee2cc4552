package dev.r2dbcscope;

import java.util.List;

/**
 * A scope asked for a second connection while every connection of the pool is held by scopes that wait for a second
 * one themselves: none of them could ever go on. The scope that would have closed the circle fails with this error at
 * once, the others go on when they get its connections.
 *
 * <p>The scopes around it still hold their connections. If they catch the error, they can go on and commit; otherwise
 * they end, and give the others theirs.
 *
 * <p>It is raised for pools whose capacity is known, as that of r2dbc-pool is, see {@link PoolCapacity}; with others the
 * scope waits for its acquire timeout. A scope counts as waiting for what was started inside it: work that lost the
 * Reactor Context on its way is not seen, nor is a connection that was taken without a scope.
 *
 * @see Propagation#REQUIRES_NEW
 */
public final class NestedAcquireDeadlockException extends ScopeException {

    private static final long serialVersionUID = 1L;

    private final transient List<LiveScope> scopes;

    NestedAcquireDeadlockException(String problem, ScopeLabel scope, List<LiveScope> scopes) {
        super(problem, scope, null, null);
        this.scopes = List.copyOf(scopes);
    }

    /**
     * Returns the scopes that waited for each other: those that hold the connections, and those that wait inside them,
     * the failed one among them.
     *
     * @return the scopes as they were when it was found, oldest first
     */
    public List<LiveScope> scopes() {
        return scopes;
    }
}
