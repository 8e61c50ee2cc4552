package dev.r2dbcscope.demo;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.PoolMetrics;

/** Whether a pool has all of its connections back. */
final class PoolCheck {

    private PoolCheck() {}

    static String state(ConnectionPool pool) {
        PoolMetrics metrics = pool.getMetrics().orElseThrow();
        return metrics.acquiredSize() == 0 ? "all" : metrics.acquiredSize() + " are not";
    }
}
