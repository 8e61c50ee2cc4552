package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/** Where a session gets its connection from, and gives it back to. */
interface Supply {

    /** Gets a connection for a session, whose entry hears of it by {@link Entry#received} or {@link Entry#failed}. */
    void acquire(Entry entry, ContextView context);

    /** The session no longer waits; a connection that comes all the same is given back by {@link Entry#received}. */
    void abandon();

    /** Gives the connection back, clean or {@linkplain #destroy destroyed}; called once. */
    Mono<Void> release(Connection connection);

    /** Makes sure that nobody else can use the connection, before its release or after one that failed. */
    Mono<Void> destroy(Connection connection);
}
