package dev.r2dbcscope;

/**
 * What a transaction does inside another scope of the same connection factory, and without one. The names and meanings
 * are those of Spring's transactions.
 *
 * <p>A <em>plain scope</em> is one without a transaction. A mode that begins a transaction inside a plain scope uses the
 * plain scope's connection and holds it exclusively meanwhile.
 *
 * <table>
 *   <caption>What each mode does</caption>
 *   <tr><th>mode</th><th>without a scope</th><th>inside a plain scope</th><th>inside a transaction</th></tr>
 *   <tr><td>REQUIRED</td><td>begins a transaction</td><td>begins one on its connection</td><td>joins</td></tr>
 *   <tr><td>REQUIRES_NEW</td><td>begins a transaction</td><td>begins one on its connection</td>
 *       <td>begins one on a second connection</td></tr>
 *   <tr><td>NESTED</td><td>begins a transaction</td><td>begins one on its connection</td><td>sets a savepoint</td></tr>
 *   <tr><td>MANDATORY</td><td>ScopePropagationException</td><td>ScopePropagationException</td><td>joins</td></tr>
 *   <tr><td>SUPPORTS</td><td>plain scope</td><td>joins</td><td>joins</td></tr>
 *   <tr><td>NOT_SUPPORTED</td><td>plain scope</td><td>joins</td><td>plain scope on a second connection</td></tr>
 *   <tr><td>NEVER</td><td>plain scope</td><td>joins</td><td>ScopePropagationException</td></tr>
 * </table>
 *
 * <p>With a {@link ScopePropagationException} fails as well what would join a transaction, or be a savepoint in it, and
 * asks for an isolation level that it was not begun with, for a transaction that writes inside a read-only one, or for
 * {@link SessionSettings} that the outer scope does not have.
 *
 * @see TransactionOptions#withPropagation(Propagation)
 */
public enum Propagation {
    /** Joins the transaction that there is, or begins one. */
    REQUIRED,

    /**
     * Begins a transaction of its own, whatever there is. Inside a transaction that takes a second connection, while the
     * first one is held: if the pool has none to give because scopes that wait hold them all, it fails at once with a
     * {@link NestedAcquireDeadlockException}.
     */
    REQUIRES_NEW,

    /**
     * Inside a transaction, a savepoint: released on success, and rolled back to when the scope fails or is cancelled, while
     * the transaction around it goes on. It holds the connection exclusively, so parallel siblings take turns. Otherwise
     * begins a transaction.
     */
    NESTED,

    /** Joins the transaction that there is, and fails without one. */
    MANDATORY,

    /** Joins the transaction that there is, and runs without one otherwise. */
    SUPPORTS,

    /** Runs without a transaction. Inside one that takes a second connection, as with {@link #REQUIRES_NEW}. */
    NOT_SUPPORTED,

    /** Runs without a transaction, and fails inside one. */
    NEVER
}
