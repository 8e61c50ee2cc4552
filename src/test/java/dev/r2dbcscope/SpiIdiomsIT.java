package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.LeakExtension;
import io.r2dbc.pool.ConnectionPool;
import java.time.Duration;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** Ways in which people use the R2DBC SPI that a careless gate would break. */
class SpiIdiomsIT {

    @RegisterExtension
    final LeakExtension leaks = LeakExtension.of();

    private static final ConnectionPool POOL = Postgres.pool(1);
    private final ConnectionScopes scopes = ConnectionScopes.of(leaks.watch(POOL));

    @AfterAll
    static void dispose() {
        POOL.disposeLater().block(Duration.ofSeconds(60));
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
