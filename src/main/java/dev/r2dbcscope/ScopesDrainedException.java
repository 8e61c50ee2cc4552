package dev.r2dbcscope;

import java.util.List;

/**
 * The scopes were drained: a new scope was refused, or some of the live ones did not end in time.
 *
 * @see ConnectionScopes#drain(java.time.Duration)
 */
public final class ScopesDrainedException extends ScopeException {

    private static final long serialVersionUID = 1L;

    private final transient List<LiveScope> remaining;

    ScopesDrainedException(String problem, ScopeLabel scope, List<LiveScope> remaining) {
        super(problem, scope, null, null);
        this.remaining = List.copyOf(remaining);
    }

    /**
     * Returns the scopes that were still live when the time was over.
     *
     * @return the scopes; empty if a new scope was refused
     */
    public List<LiveScope> remaining() {
        return remaining;
    }
}
