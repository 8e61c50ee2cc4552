package dev.r2dbcscope.benchmarks;

/** A way to insert some lines in one transaction, one statement for each, on a pool of its own. */
interface TransactionSide extends AutoCloseable {

    String name();

    /** Transactions of so many statements each. */
    ClosedLoop transactions(int statements);
}
