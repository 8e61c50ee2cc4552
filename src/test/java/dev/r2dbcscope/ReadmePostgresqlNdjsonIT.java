package dev.r2dbcscope;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.nio.ByteBuffer;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Subscription;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;

/** The example of README.md about an export as NDJSON. */
class ReadmePostgresqlNdjsonIT extends ReadmeShop {

    private static final int MORE = 100_000;

    private final ConnectionScopes reads =
            scopes.transactions(TransactionOptions.defaults().withReadOnly(true));

    private final Flux<ByteBuffer> export = export(reads);

    private static Flux<ByteBuffer> export(ConnectionScopes reads) {
        // example: ndjson
        Flux<ByteBuffer> export = reads.inTransactionMany(connection -> ordersAsJson(connection))
                .buffer(256)
                .map(rows -> lines(rows));
        // end
        return export;
    }

    // example: ndjson rows
    static Flux<ByteBuffer> ordersAsJson(Connection connection) {
        return Flux.from(connection
                        .createStatement("select row_to_json(o) from readme_orders o order by id")
                        .fetchSize(1_000)
                        .execute())
                .flatMap(result -> result.map(row -> row.get(0, ByteBuffer.class)));
    }

    static ByteBuffer lines(List<ByteBuffer> rows) {
        int size = rows.stream().mapToInt(row -> row.remaining() + 1).sum();
        ByteBuffer lines = ByteBuffer.allocate(size);
        rows.forEach(row -> lines.put(row).put((byte) '\n'));
        return lines.flip();
    }
    // end

    // example: ndjson blocks
    static Flux<ByteBuffer> blocksAsJson(Connection connection) {
        return Flux.from(connection.createStatement("""
                                select (select coalesce(string_agg(row_to_json(o)::text || E'\\n', ''), '')
                                        from readme_orders o
                                        where ctid >= format('(%s,0)', block)::tid
                                          and ctid < format('(%s,0)', block + 2)::tid)
                                from generate_series(0, pg_relation_size('readme_orders')
                                        / current_setting('block_size')::int, 2) block""").fetchSize(16).execute())
                .flatMap(result -> result.map(row -> row.get(0, String.class)))
                .filter(lines -> !lines.isEmpty())
                .map(lines -> ByteBuffer.wrap(lines.getBytes(UTF_8)));
    }
    // end

    @BeforeEach
    void fillMore() {
        Postgres.execute("insert into readme_orders select generate_series(" + (ORDERS + 1) + ", " + (ORDERS + MORE)
                + ")::bigint");
    }

    @Test
    void everyRowIsALine() {
        List<String> lines = export.map(
                        buffer -> UTF_8.decode(buffer).toString().lines().toList())
                .flatMapIterable(buffer -> buffer)
                .collectList()
                .block(BOUND);

        assertThat(lines)
                .hasSize(ORDERS + MORE)
                .startsWith("{\"id\":1}", "{\"id\":2}")
                .endsWith("{\"id\":" + (ORDERS + MORE) + "}");
    }

    @Test
    void everyRowOfATableIsALineOfItsBlocks() {
        Postgres.execute("delete from readme_orders where id % 7 = 0");
        List<String> lines = reads.inTransactionMany(connection -> blocksAsJson(connection))
                .flatMapIterable(
                        buffer -> UTF_8.decode(buffer).toString().lines().toList())
                .collectList()
                .block(BOUND);

        assertThat(lines)
                .doesNotHaveDuplicates()
                .hasSize(ORDERS + MORE - (ORDERS + MORE) / 7)
                .contains("{\"id\":1}", "{\"id\":" + (ORDERS + MORE - (ORDERS + MORE) % 7 - 1) + "}");
    }

    @Test
    void aClientThatLeavesInMidExportGivesTheConnectionBack() {
        Sinks.Empty<Void> begun = Sinks.empty();
        BaseSubscriber<ByteBuffer> client = new BaseSubscriber<>() {
            @Override
            protected void hookOnSubscribe(Subscription subscription) {
                request(1);
            }

            @Override
            protected void hookOnNext(ByteBuffer lines) {
                begun.tryEmitEmpty();
            }
        };
        export.subscribe(client);
        begun.asMono().block(BOUND);
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isOne();

        client.cancel();

        // the pool has one connection: this waits for it
        assertThat(scopes.withConnection(connection -> amount(connection, 1)).block(BOUND))
                .isEqualTo(20);
    }
}
