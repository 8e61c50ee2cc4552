package dev.r2dbcscope;

/**
 * When and how often a transaction is tried again. Immutable and thread-safe.
 *
 * @see TransactionOptions#withRetry(RetryPolicy)
 */
public final class RetryPolicy {

    private RetryPolicy() {}
}
