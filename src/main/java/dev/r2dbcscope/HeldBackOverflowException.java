package dev.r2dbcscope;

/**
 * A transaction whose {@code Flux} emits after the COMMIT had more elements than it may hold back; it was rolled back.
 *
 * @see TransactionOptions#withEmitAfterCommit(int)
 */
public final class HeldBackOverflowException extends ScopeException {

    private static final long serialVersionUID = 1L;

    HeldBackOverflowException(String problem, ScopeLabel scope) {
        super(problem, scope, null, null);
    }
}
