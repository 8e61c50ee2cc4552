package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Results that are not read when they come hold nobody up and hold no more memory than they may. */
class UnreadRowsIT {

    private static final Duration LONG = Duration.ofMinutes(2);
    private static final int BOUND = 10_000;

    private final WatchedPool pool =
            WatchedPool.of(1, options -> options.withMaxBufferedRows(BOUND).withReleaseTimeout(LONG));
    private final ConnectionScopes scopes = pool.scopes;

    @AfterEach
    void theConnectionIsWhole() {
        pool.assertWhole();
        assertThat(pool.destroyed()).isZero();
        pool.close();
    }

    private static Flux<Result> select(Connection connection, int rows, int bindings) {
        if (bindings == 0) {
            return Flux.from(connection
                    .createStatement("select generate_series(1, " + rows + ")")
                    .execute());
        }
        Statement statement =
                connection.createStatement("select generate_series(1, $1::int)").bind(0, rows);
        for (int i = 1; i < bindings; i++) {
            statement.add().bind(0, rows);
        }
        return Flux.from(statement.execute());
    }

    private static Flux<Integer> read(Result result) {
        return Flux.from(result.map((row, metadata) -> row.get(0, Integer.class)));
    }

    private int rowsBuffered() {
        assertThat(scopes.live()).hasSize(1);
        return scopes.live().get(0).rowsBuffered();
    }

    /** Of 10 rows, or 50,000, of a literal statement or of one that was bound once or twice. */
    @Nested
    class AResult {

        @ParameterizedTest
        @CsvSource({
            "10,0", "10,1", "10,2", "200,0", "200,1", "200,2", "1000,0", "1000,1", "1000,2", "5000,0", "5000,1",
            "5000,2", "50000,0", "50000,1", "50000,2"
        })
        void isReadToItsEndForWhoeverWaitsForTheCompletion(int rows, int bindings) {
            assertThat(scopes.withConnection(c -> select(c, rows, bindings)
                                    .then()
                                    .thenMany(Rows.ints(c, "select 42"))
                                    .next())
                            .block(LONG))
                    .isEqualTo(42);
        }

        @ParameterizedTest
        @CsvSource({"10,0", "10,2", "1000,0", "1000,1", "1000,2", "5000,0", "5000,1", "5000,2", "10000,0", "10000,1"})
        void canBeReadAfterwardsIfItsRowsFit(int rows, int bindings) {
            assertThat(scopes.withConnectionMany(c -> select(c, rows, bindings)
                                    .collectList()
                                    .flatMapMany(Flux::fromIterable)
                                    .concatMap(UnreadRowsIT::read))
                            .count()
                            .block(LONG))
                    .isEqualTo((long) rows * Math.max(1, bindings));
        }

        @ParameterizedTest
        @CsvSource({"10,0", "1000,0", "1000,1", "10000,0", "10000,1"})
        void canBeReadAfterItWasTakenAsTheOnlyOne(int rows, int bindings) {
            assertThat(scopes.withConnectionMany(
                                    c -> select(c, rows, bindings).single().flatMapMany(UnreadRowsIT::read))
                            .count()
                            .block(LONG))
                    .isEqualTo(rows);
        }

        @ParameterizedTest
        @CsvSource({"50000,0", "50000,1"})
        void failsItsLateReaderIfItsRowsDoNotFit(int rows, int bindings) {
            assertThatThrownBy(() -> scopes.withConnectionMany(
                                    c -> select(c, rows, bindings).single().flatMapMany(UnreadRowsIT::read))
                            .blockLast(LONG))
                    .isInstanceOf(NestedReadOverflowException.class);
        }

        @Test
        void givesWayToALaterOneIfBothDoNotFit() {
            List<String> outcomes = scopes.withConnectionMany(c -> select(c, 6_000, 2)
                            .collectList()
                            .flatMapMany(Flux::fromIterable)
                            .concatMap(result -> read(result)
                                    .count()
                                    .map(count -> "rows " + count)
                                    .onErrorResume(NestedReadOverflowException.class, e -> Mono.just("evicted"))))
                    .collectList()
                    .block(LONG);
            assertThat(outcomes).containsExactly("evicted", "rows 6000");
        }
    }

    /** Whoever asks for no more results than it wants may still read those that it has. */
    @Test
    void holdUpASubscriberOfLimitedDemandUntilTheScopeHasBeenIdleForTooLong() {
        assertThatThrownBy(() -> scopes.with(ScopeOptions.defaults()
                                .withName("unread")
                                .withReleaseTimeout(LONG)
                                .withMaxIdle(Duration.ofMillis(300)))
                        .withConnectionMany(
                                c -> select(c, 600, 0).map(result -> 1).concatWith(Rows.ints(c, "select 2")))
                        .take(2)
                        .blockLast(LONG))
                .isInstanceOfSatisfying(ScopeTimeoutException.class, error -> {
                    assertThat(error.limit()).isEqualTo(ScopeTimeoutException.Limit.IDLE);
                    assertThat(error.state()).isEqualTo(ScopeState.BLOCKED_BY_DEMAND);
                    assertThat(error).hasMessageContaining("select generate_series(1, 600)");
                });
    }

    @Nested
    class ManyResults {

        @Test
        void withoutRowsTakeNothingOfTheBuffer() {
            Postgres.execute("create table unread_inserts (id int)");
            try {
                Long nested = scopes.withConnectionMany(c -> Flux.range(0, 10_000)
                                .concatMap(i -> Flux.from(c.createStatement("insert into unread_inserts values (1)")
                                                .execute())
                                        .then())
                                .thenMany(Flux.defer(() -> {
                                    assertThat(rowsBuffered()).isZero();
                                    return Rows.ints(c, "select generate_series(1, 9000)")
                                            .concatMap(n -> n % 1_000 == 1 ? Rows.ints(c, "select 1") : Mono.just(n));
                                })))
                        .count()
                        .block(LONG);
                assertThat(nested).isEqualTo(9_000);
                assertThat(Postgres.number("select count(*) from unread_inserts"))
                        .isEqualTo(10_000);
            } finally {
                Postgres.execute("drop table unread_inserts");
            }
        }

        @Test
        void ofOneRowEachAreKeptUpToTheBound() {
            List<String> outcomes = scopes.withConnectionMany(c -> Flux.range(1, 20_000)
                            .concatMap(i -> Flux.from(
                                            c.createStatement("select " + i).execute())
                                    .collectList())
                            .concatMapIterable(results -> results)
                            .collectList()
                            .flatMapMany(results -> {
                                assertThat(results).hasSize(20_000);
                                assertThat(rowsBuffered()).isEqualTo(BOUND);
                                return Flux.just(0, 9_999, 10_000, 19_999)
                                        .concatMap(i -> read(results.get(i))
                                                .map(row -> "row " + row)
                                                .onErrorResume(
                                                        NestedReadOverflowException.class, e -> Mono.just("evicted")));
                            }))
                    .collectList()
                    .block(LONG);
            assertThat(outcomes).containsExactly("evicted", "evicted", "row 10001", "row 20000");
        }

        @Test
        void thatNobodyReadsLeaveRoomForANestedRead() {
            Long nested = scopes.withConnectionMany(c -> Flux.range(1, 20_000)
                            .concatMap(i -> Flux.from(
                                            c.createStatement("select " + i).execute())
                                    .then())
                            .thenMany(Rows.ints(c, "select generate_series(1, 9000)")
                                    .concatMap(n -> n % 1_000 == 1 ? Rows.ints(c, "select 1") : Mono.just(n))))
                    .count()
                    .block(LONG);
            assertThat(nested).isEqualTo(9_000);
        }
    }
}
