package dev.r2dbcscope;

/**
 * A result was still open while another statement waited behind it on the same connection, and had more rows than the
 * scope may read ahead.
 *
 * <p>A connection serves its results strictly in order, so the scope reads the open result into a buffer to let the next
 * statement run. The open result fails with this error; the connection stays usable. The remedies are named in the
 * message.
 *
 * @see ScopeOptions#withMaxBufferedRows(int)
 */
public final class NestedReadOverflowException extends ScopeException {

    private static final long serialVersionUID = 1L;

    /** The SQL text of the statement that waited. */
    private final String waitingSql;

    /** The bound, in rows. */
    private final int maxBufferedRows;

    NestedReadOverflowException(String openSql, String waitingSql, int maxBufferedRows, ScopeLabel scope) {
        super(
                "The result of \"" + openSql + "\" has more than " + maxBufferedRows
                        + " rows that its subscriber has not asked for, while \"" + waitingSql
                        + "\" waits behind it on the same connection; read it page by page (Statement.fetchSize, in a"
                        + " transaction or with ScopeOptions.withHoldableCursors, where the database has cursors; or"
                        + " LIMIT), consume it before the next statement, use another connection for one of the two, or"
                        + " raise ScopeOptions.withMaxBufferedRows",
                scope,
                openSql,
                null);
        this.waitingSql = waitingSql;
        this.maxBufferedRows = maxBufferedRows;
    }

    /**
     * Returns the statement that waited. The open one is {@link #getSql()}.
     *
     * @return its SQL text
     */
    public String waitingSql() {
        return waitingSql;
    }

    /**
     * Returns the bound that was exceeded.
     *
     * @return the bound, in rows of the whole scope
     */
    public int maxBufferedRows() {
        return maxBufferedRows;
    }
}
