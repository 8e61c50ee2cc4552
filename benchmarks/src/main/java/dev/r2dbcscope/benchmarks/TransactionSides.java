package dev.r2dbcscope.benchmarks;

import java.util.List;

/** All ways to make a transaction, each with a pool of its own for a port: that of the server, or of a proxy in front of it. */
final class TransactionSides implements AutoCloseable {

    private final List<TransactionSide> all;

    TransactionSides(int port) {
        all = List.of(
                R2dbcTransactions.raw(port),
                R2dbcTransactions.spring(port),
                R2dbcTransactions.springWithTimeout(port),
                new JdbcTransactions(port),
                R2dbcTransactions.scope(port),
                R2dbcTransactions.scopePipelined(port),
                R2dbcTransactions.scopeWithTimeout(port));
    }

    List<TransactionSide> all() {
        return all;
    }

    @Override
    public void close() throws Exception {
        for (TransactionSide side : all) {
            side.close();
        }
    }
}
