package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.PartitionedRead;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.pool.ConnectionPool;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.util.Objects;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The examples of README.md about writing in bulk and reading in parts. */
class ReadmePostgresqlWriteIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final ConnectionPool pool = Postgres.pool(4);
    private final ConnectionScopes scopes = ConnectionScopes.of(pool);

    private record Price(long id, BigDecimal amount, Instant changedAt) {}

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists prices;"
                + " create table prices (id bigint primary key, amount numeric not null, changed_at timestamptz)");
    }

    @AfterEach
    void nothingIsHeld() {
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
        pool.disposeLater().block(BOUND);
        Postgres.execute("drop table prices");
    }

    private static Flux<Price> prices(int from, int count) {
        return Flux.range(from, count).map(i -> new Price(i, BigDecimal.valueOf(i, 2), Instant.EPOCH));
    }

    @Test
    void upserts() {
        Flux<Price> rows = prices(1, 10_000);
        // example: upserts
        UnnestWriter<Price> writer = UnnestWriter.<Price>into("prices")
                .column("id", "bigint", Price::id)
                .column("amount", "numeric", Price::amount)
                .column("changed_at", "timestamptz", Price::changedAt)
                .withOnConflict(OnConflict.doUpdate("id"));
        Mono<Long> inBatches = writer.write(scopes, rows);

        CopyIn<Price> copy = CopyIn.<Price>into("prices")
                .column("id", CopyType.BIGINT, Price::id)
                .column("amount", CopyType.NUMERIC, Price::amount);
        Mono<Long> atOnce = CopyUpsert.of(
                        copy, OnConflict.doUpdate("id").withCondition("target.amount > excluded.amount"))
                .write(scopes, rows);
        // end
        assertThat(inBatches.block(BOUND)).isEqualTo(10_000);
        assertThat(inBatches.block(BOUND)).isEqualTo(10_000);
        assertThat(atOnce.block(BOUND)).isZero();
        Postgres.execute("update prices set amount = amount + 1 where id <= 10");
        assertThat(atOnce.block(BOUND)).isEqualTo(10);
    }

    @Test
    void partitions() {
        UnnestWriter.<Price>into("prices")
                .column("id", "bigint", Price::id)
                .column("amount", "numeric", Price::amount)
                .write(scopes, prices(1, 10_000))
                .block(BOUND);
        // example: partitions
        Flux<Long> ids = PartitionedRead.ofTable("prices")
                .byKey("id")
                .withPartitions(16)
                .withConnections(4)
                .read(scopes, (row, metadata) -> Objects.requireNonNull(row.get("id", Long.class)));
        // end
        assertThat(ids.distinct().count().block(BOUND)).isEqualTo(10_000);
    }
}
