package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;

/**
 * A scope got no connection: the connection factory did not answer within the acquire timeout, completed without one, or
 * handed out one that another live scope still holds; or the connection was not ready within that time, or could not begin
 * a transaction because code had begun one of its own on it. It is also the error of a statement that waited for too long
 * behind a transaction or savepoint on the same connection, see {@link ScopeOptions#withAcquireTimeout}.
 *
 * <p>An error that the factory signals itself is passed on as it is, with an exception of this type suppressed under it
 * that names the scope.
 */
public final class ScopeAcquisitionException extends ScopeException {

    private static final long serialVersionUID = 1L;

    ScopeAcquisitionException(String problem, ScopeLabel scope, @Nullable Throwable cause) {
        super(problem, scope, null, cause);
    }
}
