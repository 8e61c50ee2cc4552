package dev.r2dbcscope;

import io.r2dbc.spi.R2dbcException;
import org.jspecify.annotations.Nullable;

/**
 * Root of the errors that scopes raise themselves. Errors of the database, the driver and the user's own code pass
 * through a scope untouched.
 *
 * <p>Every message says in one line what went wrong, what was found, what to do, and which scope it was.
 */
public abstract class ScopeException extends R2dbcException {

    private static final long serialVersionUID = 1L;

    /** The name of the scope. */
    private final String scopeName;

    /** Where the scope was assembled. */
    private final String scopeOrigin;

    ScopeException(String problem, ScopeLabel scope, @Nullable String sql, @Nullable Throwable cause) {
        super(problem + " [" + scope + "]", null, 0, sql, cause);
        this.scopeName = scope.name();
        this.scopeOrigin = scope.origin();
    }

    /**
     * Returns the name of the scope.
     *
     * @return the name
     */
    public final String scopeName() {
        return scopeName;
    }

    /**
     * Returns where the scope was assembled.
     *
     * @return class, method, file and line
     */
    public final String scopeOrigin() {
        return scopeOrigin;
    }
}
