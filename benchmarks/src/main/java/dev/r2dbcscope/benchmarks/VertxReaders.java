package dev.r2dbcscope.benchmarks;

import io.vertx.core.Future;
import io.vertx.core.Promise;
import io.vertx.core.Vertx;
import io.vertx.pgclient.PgConnectOptions;
import io.vertx.pgclient.PgConnection;
import io.vertx.sqlclient.Row;
import io.vertx.sqlclient.RowStream;
import io.vertx.sqlclient.Tuple;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collector;

/** Reads by the Vert.x client, which asks for binary values by itself, on one connection. */
final class VertxReaders implements AutoCloseable {

    private final Vertx vertx = Vertx.vertx();
    private final PgConnection connection;

    VertxReaders(int port) throws Exception {
        connection = await(PgConnection.connect(
                vertx,
                new PgConnectOptions()
                        .setHost("localhost")
                        .setPort(port)
                        .setDatabase("postgres")
                        .setUser("postgres")
                        .setPassword("postgres")));
    }

    /** A query that hands each row to a collector as it comes; a plain one keeps them all in memory. */
    RowReader collecting() {
        return (rows, tally) -> await(connection
                .preparedQuery(OrderTable.SELECT)
                .collecting(Collector.<Row, RowTally>of(() -> tally, VertxReaders::tell, (a, b) -> a))
                .execute(Tuple.of((long) rows)));
    }

    /** A stream over a cursor, in a transaction. */
    RowReader stream(int fetchSize) {
        return (rows, tally) -> await(connection
                .begin()
                .flatMap(transaction -> connection
                        .prepare(OrderTable.SELECT)
                        .flatMap(statement -> drained(statement.createStream(fetchSize, Tuple.of((long) rows)), tally)
                                .eventually(statement::close))
                        .flatMap(done -> transaction.commit())));
    }

    private static Future<Void> drained(RowStream<Row> stream, RowTally tally) {
        Promise<Void> end = Promise.promise();
        stream.exceptionHandler(end::tryFail).endHandler(end::tryComplete).handler(row -> {
            try {
                tell(tally, row);
            } catch (RuntimeException e) {
                end.tryFail(e);
            }
        });
        return end.future();
    }

    private static void tell(RowTally tally, Row row) {
        tally.row(
                row.getLong(0),
                row.getInteger(1),
                row.getString(2),
                row.getOffsetDateTime(3).toInstant(),
                row.getDouble(4));
    }

    private static <T> T await(Future<T> future) throws Exception {
        return future.toCompletionStage().toCompletableFuture().get(Server.LONG.toMinutes(), TimeUnit.MINUTES);
    }

    @Override
    public void close() throws Exception {
        await(connection.close());
        await(vertx.close());
    }
}
