package dev.r2dbcscope.benchmarks;

import io.vertx.core.Future;
import io.vertx.core.Vertx;
import io.vertx.pgclient.PgBuilder;
import io.vertx.pgclient.PgConnectOptions;
import io.vertx.sqlclient.PoolOptions;
import io.vertx.sqlclient.Row;
import io.vertx.sqlclient.RowSet;
import io.vertx.sqlclient.SqlClient;
import io.vertx.sqlclient.Tuple;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;

/**
 * Reads a row by its key with the client of Vert.x, with its cache of prepared statements on, as the drivers of the other sides
 * have it.
 */
final class VertxSelect implements AutoCloseable {

    private final Vertx vertx = Vertx.vertx();
    private final SqlClient pool;
    private final SqlClient pipelined;

    VertxSelect(int port, int size) {
        PgConnectOptions server = new PgConnectOptions()
                .setHost("localhost")
                .setPort(port)
                .setUser("postgres")
                .setPassword("postgres")
                .setDatabase("postgres")
                .setCachePreparedStatements(true);
        PoolOptions options = new PoolOptions().setMaxSize(size);
        pool = PgBuilder.pool().with(options).connectingTo(server).using(vertx).build();
        pipelined = PgBuilder.client()
                .with(options)
                .connectingTo(server)
                .using(vertx)
                .build();
    }

    /** A call has its connection to itself. */
    CompletionStage<String> exclusive() {
        return select(pool);
    }

    /** Calls share connections: a connection sends a call before the earlier ones were answered. */
    CompletionStage<String> pipelined() {
        return select(pipelined);
    }

    private static CompletionStage<String> select(SqlClient client) {
        int id = Notes.anyId();
        return client.preparedQuery(Notes.SELECT)
                .execute(Tuple.of(id))
                .map(rows -> Notes.require(id, only(rows)))
                .toCompletionStage();
    }

    private static String only(RowSet<Row> rows) {
        if (rows.size() != 1) {
            throw new IllegalStateException(rows.size() + " rows instead of one");
        }
        return rows.iterator().next().getString(0);
    }

    @Override
    public void close() throws Exception {
        await(pool.close());
        await(pipelined.close());
        await(vertx.close());
    }

    private static void await(Future<Void> closed) throws Exception {
        closed.toCompletionStage().toCompletableFuture().get(1, TimeUnit.MINUTES);
    }
}
