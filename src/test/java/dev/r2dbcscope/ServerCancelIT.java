package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;

/** How soon a connection is of use again after a cancel, and that the cancel hits nothing else. */
class ServerCancelIT {

    private static final Duration LONG = Duration.ofMinutes(5);

    /** The bigger form: {@code -Dcancel.trials=200}. */
    private static final int TRIALS = Integer.getInteger("cancel.trials", 5);

    /** The bigger form: {@code -Dcancel.storm=20000}. */
    private static final int STORM = Integer.getInteger("cancel.storm", 1_000);

    private static final String ROWS = "select generate_series(1, 20000000)";

    @RegisterExtension
    final Witness witness = new Witness();

    /** Statements that would go on for a long time. */
    enum Endless {
        PLAIN {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement(ROWS);
            }
        },
        PLAIN_FETCH {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement(ROWS).fetchSize(1_000);
            }
        },
        BOUND {
            @Override
            Statement on(Connection connection) {
                return connection
                        .createStatement("select generate_series(1, $1)")
                        .bind(0, 20_000_000);
            }
        },
        BOUND_FETCH {
            @Override
            Statement on(Connection connection) {
                return BOUND.on(connection).fetchSize(1_000);
            }
        },
        SLEEP {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement("select 1 from pg_sleep(60)");
            }
        },
        BOUND_SLEEP {
            @Override
            Statement on(Connection connection) {
                return connection.createStatement("select 1 from pg_sleep($1)").bind(0, 60.0);
            }
        };

        abstract Statement on(Connection connection);

        boolean hasRows() {
            return !name().contains("SLEEP");
        }
    }

    @ParameterizedTest
    @CsvSource({
        "PLAIN, false",
        "PLAIN, true",
        "BOUND, false",
        "BOUND, true",
        "SLEEP, false",
        "SLEEP, true",
        "BOUND_SLEEP, false",
        "BOUND_SLEEP, true"
    })
    void theNextBorrowerHasTheConnectionSoon(Endless endless, boolean transactional) {
        try (WatchedPool pool = WatchedPool.of(1)) {
            pool.assertWhole();
            Set<Integer> before = pool.backends();
            Function<Connection, Flux<Integer>> body = c -> Rows.ints(endless.on(c));
            Flux<Integer> scope =
                    transactional ? pool.scopes.inTransactionMany(body) : pool.scopes.withConnectionMany(body);
            long[] nanos = new long[TRIALS];
            for (int i = 0; i < TRIALS; i++) {
                if (endless.hasRows()) {
                    scope.take(10).blockLast(LONG);
                } else {
                    Disposable running = scope.subscribe();
                    Await.until(() -> pool.inState("active") == 1, () -> "it does not run");
                    running.dispose();
                }
                long start = System.nanoTime();
                assertThat(pool.borrow(c -> Rows.ints(c, "select 42"))).containsExactly(42);
                nanos[i] = System.nanoTime() - start;
            }
            print(endless + (transactional ? " in a transaction" : ""), nanos);
            assertThat(percentile(nanos, 50)).isLessThan(TimeUnit.SECONDS.toNanos(5));
            pool.assertWhole();
            assertThat(pool.backends()).isEqualTo(before);
            assertThat(pool.destroyed()).isZero();
        }
    }

    private static void print(String what, long[] nanos) {
        System.out.printf(
                "cancel of %s: usable after p50 %.1f ms, p99 %.1f ms, max %.1f ms (%d trials)%n",
                what,
                percentile(nanos, 50) / 1e6,
                percentile(nanos, 99) / 1e6,
                percentile(nanos, 100) / 1e6,
                nanos.length);
    }

    private static long percentile(long[] nanos, int percent) {
        long[] sorted = nanos.clone();
        Arrays.sort(sorted);
        return sorted[Math.max(0, (int) Math.ceil(sorted.length * percent / 100.0) - 1)];
    }
}
