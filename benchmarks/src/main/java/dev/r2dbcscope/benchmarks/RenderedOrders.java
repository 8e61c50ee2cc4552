package dev.r2dbcscope.benchmarks;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.TransactionOptions;
import dev.r2dbcscope.postgresql.PartitionedRead;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Readable;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.function.Function;
import reactor.core.publisher.Flux;

/**
 * The orders as lines of JSON that the database has rendered, in buffers of some 32 kB. The program does not look into the
 * rows: it appends their bytes.
 */
final class RenderedOrders {

    static final int FETCH_SIZE = 1_000;

    private static final int ROWS_A_BUFFER = 256;
    private static final int VALUES_A_PAGE = 16;
    private static final String JSON = "select row_to_json(t) from (select " + OrderTable.COLUMNS + " from orders) t";
    private final ConnectionScopes reads;

    RenderedOrders(ConnectionScopes scopes) {
        reads = scopes.transactions(TransactionOptions.defaults().withReadOnly(true));
    }

    /** The driver hands out the bytes of a column of type json. */
    Flux<ByteBuffer> asBytes(int rows) {
        return paged(JSON + " where id <= $1", rows, row -> row.get(0, ByteBuffer.class));
    }

    /** By way of a string, as a column of type text is read. */
    Flux<ByteBuffer> asText(int rows) {
        return paged(
                JSON.replace("row_to_json(t)", "row_to_json(t)::text") + " where id <= $1",
                rows,
                row -> ByteBuffer.wrap(row.get(0, String.class).getBytes(StandardCharsets.UTF_8)));
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

    private Flux<ByteBuffer> paged(String sql, int rows, Function<Readable, ByteBuffer> line) {
        return lines(reads.inTransactionMany(connection -> read(connection, sql, rows, line)));
    }

    private static Flux<ByteBuffer> read(
            Connection connection, String sql, int rows, Function<Readable, ByteBuffer> line) {
        return Flux.from(connection
                        .createStatement(sql)
                        .bind(0, (long) rows)
                        .fetchSize(FETCH_SIZE)
                        .execute())
                .flatMap(result -> result.map(line::apply));
    }

    private static Flux<ByteBuffer> lines(Flux<ByteBuffer> rows) {
        return rows.buffer(ROWS_A_BUFFER).map(RenderedOrders::join);
    }

    private static ByteBuffer join(List<ByteBuffer> rows) {
        int size = rows.stream().mapToInt(row -> row.remaining() + 1).sum();
        ByteBuffer joined = ByteBuffer.allocate(size);
        rows.forEach(row -> joined.put(row).put((byte) '\n'));
        return joined.flip();
    }
}
