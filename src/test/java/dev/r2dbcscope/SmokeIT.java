package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.publisher.Flux;

class SmokeIT {

    static Flux<Integer> ints(Connection c, String sql) {
        return Flux.from(c.createStatement(sql).execute()).flatMap(r -> r.map((row, m) -> row.get(0, Integer.class)));
    }

    @ParameterizedTest
    @CsvSource({"300,1", "5000,1", "10000,1", "300,16", "5000,16", "10000,16", "300,256", "5000,256", "10000,256"})
    void nested(int rows, int concurrency) {
        ConnectionPool pool = Postgres.pool(1);
        ConnectionScopes scopes = ConnectionScopes.of(pool);
        for (int i = 0; i < 4; i++) {
            boolean tx = i % 2 == 0;
            boolean bound = i / 2 == 0;
            java.util.function.Function<Connection, Flux<Integer>> f = c -> Flux.from((bound
                                    ? c.createStatement("select generate_series(1, $1)")
                                            .bind(0, rows)
                                    : c.createStatement("select generate_series(1, " + rows + ")"))
                            .execute())
                    .flatMap(r -> r.map((row, m) -> row.get(0, Integer.class)))
                    .flatMap(
                            n -> Flux.from(c.createStatement("select $1::int + 1")
                                            .bind(0, n)
                                            .execute())
                                    .flatMap(r -> r.map((row, m) -> row.get(0, Integer.class))),
                            concurrency);
            long t = System.nanoTime();
            Long count = (tx ? scopes.inTransactionMany(f) : scopes.withConnectionMany(f))
                    .count()
                    .block(Duration.ofSeconds(60));
            System.out.println(rows + " x" + concurrency + " tx=" + tx + " bound=" + bound + ": "
                    + (System.nanoTime() - t) / 1000000 + " ms");
            assertThat(count).isEqualTo(rows);
            assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
        }
        pool.dispose();
    }

    @Test
    void concurrentStatements() {
        ConnectionPool pool = Postgres.pool(1);
        ConnectionScopes scopes = ConnectionScopes.of(pool);
        Long n = scopes.withConnectionMany(c -> Flux.range(0, 10000)
                        .parallel(8)
                        .runOn(reactor.core.scheduler.Schedulers.boundedElastic())
                        .flatMap(
                                i -> Flux.from(c.createStatement("select $1::int")
                                                .bind(0, i)
                                                .execute())
                                        .flatMap(r -> r.map((row, m) -> row.get(0, Integer.class))),
                                false,
                                10000)
                        .sequential())
                .count()
                .block(Duration.ofSeconds(60));
        assertThat(n).isEqualTo(10000);
    }

    @Test
    void levels() {
        ConnectionPool pool = Postgres.pool(1);
        ConnectionScopes scopes = ConnectionScopes.of(pool);
        long t = System.nanoTime();
        Long n = scopes.inTransactionMany(c -> ints(c, "select generate_series(1,1000)")
                        .flatMap(a -> ints(c, "select generate_series(1,100)")
                                .flatMap(b -> ints(c, "select generate_series(1,10)"))))
                .count()
                .block(Duration.ofSeconds(300));
        System.out.println("levels " + (System.nanoTime() - t) / 1000000 + " ms");
        assertThat(n).isEqualTo(1000000);
    }
}
