package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/** A scope exceeded one of its time limits. */
public final class ScopeTimeoutException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopeTimeoutException(String problem, ScopeLabel scope, @Nullable String sql, @Nullable Throwable cause) {
        super(problem, scope, sql, cause);
    }
}
