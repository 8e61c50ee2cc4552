package dev.r2dbcscope.benchmarks;

/** One way to read all orders. */
interface RowReader {

    /** Reads the orders up to an id, and reports each of them. */
    void read(int rows, RowTally tally) throws Exception;
}
