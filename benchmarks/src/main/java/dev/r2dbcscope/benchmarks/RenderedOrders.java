package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.TransactionOptions;
import dev.r2dbcscope.postgresql.JsonLines;
import dev.r2dbcscope.postgresql.PartitionedRead;
import io.r2dbc.spi.Readable;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import reactor.core.publisher.Flux;

/** The orders as lines of JSON that the database has rendered, in buffers of some 32 kB. The program does not look into the rows. */
final class RenderedOrders {

    static final int FETCH_SIZE = 1_000;

    private static final int VALUES_A_PAGE = 16;
    private final ConnectionScopes reads;

    RenderedOrders(ConnectionScopes scopes) {
        reads = scopes.transactions(TransactionOptions.defaults().withReadOnly(true));
    }

    private static JsonLines lines(int rows) {
        return JsonLines.ofQuery(OrderTable.SELECT, (long) rows);
    }

    /** The driver reads each row. */
    Flux<ByteBuffer> byRows(int rows) {
        return lines(rows).read(reads);
    }

    /** The driver reads a value for each 256 rows. */
    Flux<ByteBuffer> byKey(int rows) {
        return lines(rows).byKey("id").read(reads);
    }

    /** A value for the rows of each two blocks of the table, which is a buffer as it is. */
    Flux<ByteBuffer> byBlocks(int rows) {
        return reads.inTransactionMany(connection -> Flux.from(connection
                        .createStatement(blocks("$1"))
                        .bind(0, (long) rows)
                        .fetchSize(VALUES_A_PAGE)
                        .execute())
                .flatMap(result -> result.map(RenderedOrders::chunk)));
    }

    /** The same on one snapshot with several connections, so that as many processes render. The lines come in no order. */
    Flux<ByteBuffer> byBlocks(int rows, int connections) {
        return PartitionedRead.ofQuery(blocks(String.valueOf(rows)), "block")
                .withPartitions(8 * connections)
                .withConnections(connections)
                .withFetchSize(VALUES_A_PAGE)
                .read(reads, (row, metadata) -> chunk(row));
    }

    private static String blocks(String rows) {
        return "select (select coalesce(string_agg(row_to_json(t)::text || E'\\n', ''), '') from (select "
                + OrderTable.COLUMNS + " from orders where ctid >= format('(%s,0)', block)::tid"
                + " and ctid < format('(%s,0)', block + 2)::tid and id <= " + rows + ") t) lines, block"
                + " from generate_series(0, pg_relation_size('orders') / current_setting('block_size')::int, 2) block";
    }

    private static ByteBuffer chunk(Readable row) {
        return ByteBuffer.wrap(row.get(0, String.class).getBytes(StandardCharsets.UTF_8));
    }
}
