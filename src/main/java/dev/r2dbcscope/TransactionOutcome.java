package dev.r2dbcscope;

/**
 * What became of a scope's transaction.
 *
 * <p>For a savepoint inside a transaction, committed means that it was released: it is as durable as the transaction
 * around it.
 *
 * @see ScopeEvent.Released#transaction()
 * @see CurrentScope#afterCompletion
 */
public enum TransactionOutcome {
    /** The scope was a plain one, without a transaction of its own. */
    NONE,

    /** The database confirmed the COMMIT. */
    COMMITTED,

    /** Nothing of the transaction is durable: it was rolled back, its COMMIT was refused, or it never began. */
    ROLLED_BACK,

    /** COMMIT was sent, and the connection was lost before the database confirmed or refused it. */
    UNKNOWN
}
