package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/**
 * A step of a scope's exit failed or exceeded the release timeout; the physical connection was destroyed. If the
 * pipeline had failed before, this is suppressed under its error.
 */
public final class ScopeReleaseException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopeReleaseException(String problem, ScopeLabel scope, @Nullable Throwable cause) {
        super(problem, scope, null, cause);
    }
}
