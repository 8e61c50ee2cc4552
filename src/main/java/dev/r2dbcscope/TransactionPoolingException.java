package dev.r2dbcscope;

/**
 * Something needs the same database session for longer than a transaction, and the scope's options say that there is none:
 * sessions are handed out for one transaction at a time. It was refused before it was sent; on somebody else's session it
 * would have had its effect there.
 *
 * @see ScopeOptions#withTransactionPooling(boolean)
 */
public final class TransactionPoolingException extends ScopeException {

    private static final long serialVersionUID = 1L;

    /** What was refused. */
    private final String feature;

    private TransactionPoolingException(String feature, String problem, String hint, ScopeLabel scope) {
        super(
                feature + " " + problem + ", but the scope's sessions are handed out for one transaction at a time"
                        + " (ScopeOptions.withTransactionPooling); " + hint,
                scope,
                null,
                null);
        this.feature = feature;
    }

    static TransactionPoolingException session(String feature, String hint, ScopeLabel scope) {
        return new TransactionPoolingException(feature, "needs a database session of its own", hint, scope);
    }

    static TransactionPoolingException statementCache(ScopeLabel scope) {
        return new TransactionPoolingException(
                "The driver's statement cache",
                "keeps prepared statements on the database's session, where another client's may have the same name and"
                        + " run instead",
                "switch it off where the connection factory is configured (r2dbc-postgresql:"
                        + " preparedStatementCacheQueries(0)); the connection was closed",
                scope);
    }

    /**
     * Returns what was refused.
     *
     * @return what it was, in words, without values
     */
    public String feature() {
        return feature;
    }
}
