package dev.r2dbcscope.benchmarks;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import reactor.netty.resources.LoopResources;

/**
 * A pool on the event loops that the driver takes by default, or on loops that are not colocated. With the default ones, a
 * connection that is opened on an event loop stays on that loop, which can bring all connections of a pool onto one thread (see
 * r2dbc-pool#190). There are as many loops of both kinds, so that this alone differs. Of an even number of loops, connections
 * that were opened one after the other were seen on every second one only (Reactor Netty 1.3.6).
 */
final class EventLoops implements AutoCloseable {

    private final LoopResources own;
    private final String suffix;
    private final ConnectionPool pool;

    private EventLoops(LoopResources own, String suffix, PostgresqlConnectionConfiguration.Builder server, int size) {
        this.own = own;
        this.suffix = suffix;
        this.pool = Server.pool(server, size);
    }

    static EventLoops byDefault(Server server, int size) {
        return new EventLoops(null, "", server.configuration(), size);
    }

    static EventLoops notColocated(Server server, int size) {
        LoopResources loops =
                LoopResources.create("not-colocated", -1, LoopResources.DEFAULT_IO_WORKER_COUNT, true, false);
        return new EventLoops(
                loops, ", loops not colocated", server.configuration().loopResources(loops), size);
    }

    ConnectionPool pool() {
        return pool;
    }

    /** What a group's name has at its end. */
    String suffix() {
        return suffix;
    }

    @Override
    public void close() {
        pool.disposeLater().block(Server.LONG);
        if (own != null) {
            own.disposeLater().block(Server.LONG);
        }
    }
}
