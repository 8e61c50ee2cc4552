package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** Ways in which people use the R2DBC SPI that a careless gate would break. */
class SpiIdiomsIT {

    private final ConnectionPool pool = Postgres.pool(1);
    private final ConnectionScopes scopes = ConnectionScopes.of(pool);

    @AfterEach
    void nothingIsOut() {
        assertThat(scopes.live()).isEmpty();
        assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
        pool.dispose();
    }

    @Test
    void aResultTakenWithMonoFromStreamsWithBackpressure() {
        Flux<Integer> slow = scopes.withConnectionMany(connection -> Mono.from(connection
                        .createStatement("select generate_series(1, 50000)")
                        .execute())
                .flatMapMany(result -> result.map((row, metadata) -> row.get(0, Integer.class))));

        assertThat(slow.publishOn(Schedulers.boundedElastic(), 16).count().block(Duration.ofSeconds(60)))
                .isEqualTo(50_000);
    }

    @Test
    void aResultReadOnAnotherThreadStreamsWithBackpressure() {
        Flux<Integer> slow = scopes.withConnectionMany(connection -> Flux.from(connection
                        .createStatement("select generate_series(1, $1::int)")
                        .bind(0, 50_000)
                        .execute())
                .publishOn(Schedulers.boundedElastic())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class))));

        assertThat(slow.publishOn(Schedulers.parallel(), 16).count().block(Duration.ofSeconds(60)))
                .isEqualTo(50_000);
    }
}
