package dev.r2dbcscope;

/**
 * A scope cannot do inside the scope around it, or without one, what its {@link Propagation} and options ask for.
 * Nothing was opened and nothing was sent; the scope around it goes on, if the error is caught.
 */
public final class ScopePropagationException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopePropagationException(String problem, ScopeLabel scope) {
        super(problem, scope, null, null);
    }
}
