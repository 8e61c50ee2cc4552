package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
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

    @BeforeEach
    void fillMore() {
        Postgres.execute("insert into readme_orders select generate_series(" + (ORDERS + 1) + ", " + (ORDERS + MORE)
                + ")::bigint");
    }

    @Test
    void everyRowIsALine() {
        List<String> lines = export.map(buffer ->
                        StandardCharsets.UTF_8.decode(buffer).toString().lines().toList())
                .flatMapIterable(buffer -> buffer)
                .collectList()
                .block(BOUND);

        assertThat(lines)
                .hasSize(ORDERS + MORE)
                .startsWith("{\"id\":1}", "{\"id\":2}")
                .endsWith("{\"id\":" + (ORDERS + MORE) + "}");
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
