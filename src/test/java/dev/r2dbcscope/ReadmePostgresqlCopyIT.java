package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The README's examples of COPY. */
class ReadmePostgresqlCopyIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private record Reading(long sensor, Instant at, double value, List<String> tags) {}

    private final WatchedPool pool = WatchedPool.of(1);
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists readings");
        Postgres.execute("create table readings (sensor bigint, at timestamptz, value float8, tags text[],"
                + " primary key (sensor, at))");
    }

    @AfterEach
    void close() {
        pool.assertWhole();
        pool.close();
    }

    private static Flux<Reading> readings(int count) {
        return Flux.range(0, count).map(i -> new Reading(i % 10, Instant.ofEpochSecond(i), i / 2.0, List.of("a", "b")));
    }

    @Test
    void columns() {
        // example: copy
        CopyIn<Reading> copy = CopyIn.<Reading>into("readings")
                .column("sensor", CopyType.BIGINT, Reading::sensor)
                .column("at", CopyType.INSTANT, Reading::at)
                .column("value", CopyType.DOUBLE_PRECISION, Reading::value)
                .column("tags", CopyType.TEXT.array(), Reading::tags);

        Mono<Long> written = scopes.inTransaction(connection -> copy.write(connection, readings(1000)));
        // end

        assertThat(written.block(LONG)).isEqualTo(1000);
    }

    @Test
    void encoder() {
        CopyIn<Reading> copy = CopyIn.<Reading>into("readings")
                .columns(
                        (reading, row) -> row.writeLong(reading.sensor())
                                .writeTimestampTz(reading.at())
                                .writeDouble(reading.value()),
                        "sensor",
                        "at",
                        "value");

        assertThat(copy.write(scopes, readings(1000)).block(LONG)).isEqualTo(1000);
    }

    @Test
    void errors() {
        AtomicReference<String> told = new AtomicReference<>();
        CopyIn<Reading> copy = CopyIn.<Reading>into("readings")
                .column("sensor", CopyType.BIGINT, Reading::sensor)
                .column("at", CopyType.INSTANT, Reading::at);

        copy.write(scopes, readings(40).concatWith(readings(1)))
                .onErrorResume(CopyException.class, e -> {
                    told.set("row " + e.row() + " violates " + e.constraint());
                    return Mono.empty();
                })
                .block(LONG);

        assertThat(told).hasValue("row 41 violates readings_pkey");
    }
}
