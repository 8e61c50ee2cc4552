package dev.r2dbcscope;

/**
 * A statement was not sent, because too many of the same scope wait for their turn already.
 *
 * <p>The scope and the statements that wait are not affected.
 *
 * @see ScopeOptions#withMaxStatementsWaiting(int)
 */
public final class StatementQueueOverflowException extends ScopeException {

    private static final long serialVersionUID = 1L;

    /** The bound. */
    private final int maxStatementsWaiting;

    StatementQueueOverflowException(String sql, int maxStatementsWaiting, ScopeLabel scope) {
        super(
                "\"" + sql + "\" was not sent, because " + maxStatementsWaiting
                        + " statements of the scope wait for their turn already; limit the concurrency of the flatMap that"
                        + " executes them, or raise ScopeOptions.withMaxStatementsWaiting",
                scope,
                sql,
                null);
        this.maxStatementsWaiting = maxStatementsWaiting;
    }

    /**
     * Returns the bound that was exceeded.
     *
     * @return the bound, in statements of the whole scope
     */
    public int maxStatementsWaiting() {
        return maxStatementsWaiting;
    }
}
