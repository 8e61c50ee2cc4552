package dev.r2dbcscope;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.JsonLines;
import java.nio.ByteBuffer;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Subscription;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;

/** The examples of README.md about an export as NDJSON. */
class ReadmePostgresqlNdjsonIT extends ReadmeShop {

    private static final int MORE = 100_000;

    private final ConnectionScopes reads =
            scopes.transactions(TransactionOptions.defaults().withReadOnly(true));

    private final Flux<ByteBuffer> export = export(reads);

    private static Flux<ByteBuffer> export(ConnectionScopes reads) {
        // example: ndjson
        Flux<ByteBuffer> export = JsonLines.ofQuery("select * from readme_orders where id <> $1", 77L)
                .byKey("id")
                .read(reads);
        // end
        return export;
    }

    private static Flux<ByteBuffer> sorted(ConnectionScopes reads) {
        // example: ndjson of any query
        Flux<ByteBuffer> sorted = JsonLines.ofQuery("select * from readme_orders order by id desc")
                .read(reads);
        // end
        return sorted;
    }

    @BeforeEach
    void fillMore() {
        Postgres.execute("insert into readme_orders select generate_series(" + (ORDERS + 1) + ", " + (ORDERS + MORE)
                + ")::bigint; alter table readme_orders add primary key (id)");
    }

    private static List<String> lines(Flux<ByteBuffer> export) {
        return export.flatMapIterable(
                        piece -> UTF_8.decode(piece).toString().lines().toList())
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
    }

    @Test
    void everyRowIsALine() {
        assertThat(lines(export))
                .hasSize(ORDERS + MORE - 1)
                .startsWith("{\"id\":1}", "{\"id\":2}")
                .endsWith("{\"id\":" + (ORDERS + MORE) + "}");
    }

    @Test
    void theOrderOfAQueryIsKept() {
        assertThat(lines(sorted(reads)))
                .hasSize(ORDERS + MORE)
                .startsWith("{\"id\":" + (ORDERS + MORE) + "}")
                .endsWith("{\"id\":2}", "{\"id\":1}");
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
