package dev.r2dbcscope;

/**
 * Something lasts as long as the transaction that it is done in, and was asked for outside of one. Nothing was sent; the
 * connection stays usable.
 *
 * @see DriverTurn#requireTransaction()
 */
public final class TransactionRequiredException extends ScopeException {

    private static final long serialVersionUID = 1L;

    TransactionRequiredException(String what, ScopeLabel scope) {
        super(
                what + " lasts as long as the transaction that it is done in, and there is none; do it inside"
                        + " ConnectionScopes.inTransaction",
                scope,
                null,
                null);
    }
}
