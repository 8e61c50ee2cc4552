package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;

/** Statements within the rows of another statement, on one and the same connection. */
class NestedQueriesIT {

    private static final Duration LONG = Duration.ofMinutes(5);

    private final WatchedPool pool = WatchedPool.of(1);

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private static Statement series(Connection connection, int rows, boolean bound) {
        return bound
                ? connection.createStatement("select generate_series(1, $1)").bind(0, rows)
                : connection.createStatement("select generate_series(1, " + rows + ")");
    }

    private static Flux<Integer> next(Connection connection, int number) {
        return Rows.ints(connection.createStatement("select $1::int + 1").bind(0, number));
    }

    @ParameterizedTest
    @CsvSource({
        "300, 1", "300, 16", "300, 256", //
        "5000, 1", "5000, 16", "5000, 256", //
        "10000, 16"
    })
    @Tag("lifecycle-48")
    void completesAQueryForEachRow(int rows, int concurrency) {
        completesInEachMode(rows, concurrency);
    }

    @ParameterizedTest
    @CsvSource({"10000, 1", "10000, 256"})
    @Tag("lifecycle-48")
    @Tag("soak")
    void completesAQueryForEachOfTenThousandRows(int rows, int concurrency) {
        completesInEachMode(rows, concurrency);
    }

    private void completesInEachMode(int rows, int concurrency) {
        for (boolean transactional : new boolean[] {false, true}) {
            for (boolean bound : new boolean[] {false, true}) {
                assertThat(nested(transactional, bound, rows, concurrency))
                        .as("transaction %s, bound %s", transactional, bound)
                        .hasSize(rows)
                        .doesNotHaveDuplicates()
                        .allMatch(number -> number > 1 && number <= rows + 1);
            }
        }
    }

    private List<Integer> nested(boolean transactional, boolean bound, int rows, int concurrency) {
        java.util.function.Function<Connection, Flux<Integer>> body = connection ->
                Rows.ints(series(connection, rows, bound)).flatMap(number -> next(connection, number), concurrency);
        Flux<Integer> scope =
                transactional ? pool.scopes.inTransactionMany(body) : pool.scopes.withConnectionMany(body);
        return scope.collectList().blockOptional(LONG).orElseThrow();
    }

    /** 1,000,000 nested queries take some two minutes: profile soak. */
    @Test
    @Tag("lifecycle-48")
    void completesAMillionRowsWithAQueryForEveryHundredth() {
        assertThat(million(100)).isEqualTo(1_000_000);
    }

    @Test
    @Tag("lifecycle-48")
    @Tag("soak")
    void completesAMillionRowsWithAQueryForEach() {
        assertThat(million(1)).isEqualTo(1_000_000);
    }

    private long million(int every) {
        return pool.with(options -> options.withMaxBufferedRows(1_000_000))
                .withConnectionMany(connection -> Rows.ints(series(connection, 1_000_000, false))
                        .flatMap(number -> number % every == 0 ? next(connection, number) : Flux.just(number), 256))
                .count()
                .blockOptional(Duration.ofMinutes(20))
                .orElseThrow();
    }

    @Test
    @Tag("lifecycle-48")
    void completesTwoAndThreeLevels() {
        assertThat(leaves(300)).isEqualTo(300_000);

        Long bound = pool.scopes
                .withConnectionMany(c -> Rows.ints(series(c, 100, true))
                        .concatMap(a -> Rows.ints(series(c, 40, true)).concatMap(b -> next(c, b))))
                .count()
                .block(LONG);
        assertThat(bound).isEqualTo(4_000);
    }

    @Test
    @Tag("lifecycle-48")
    @Tag("soak")
    void completesThreeLevelsOfAMillionLeaves() {
        assertThat(leaves(1_000)).isEqualTo(1_000_000);
    }

    private long leaves(int trees) {
        return pool.scopes
                .inTransactionMany(c -> Rows.ints(c, "select generate_series(1, " + trees + ")")
                        .flatMap(a -> Rows.ints(c, "select generate_series(1, 100)")
                                .flatMap(b -> Rows.ints(c, "select generate_series(1, 10)"))))
                .count()
                .blockOptional(LONG)
                .orElseThrow();
    }

    @Test
    @Tag("lifecycle-48")
    void completesAPipelineThatWaitsForTheInnerQueryBeforeItAsksForMoreRows() {
        List<Integer> pairs = pool.scopes
                .withConnectionMany(
                        c -> Rows.ints(series(c, 2_000, true)).limitRate(1).concatMap(number -> next(c, number), 0))
                .collectList()
                .block(LONG);
        assertThat(pairs).hasSize(2_000).isSorted();
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 31, 300, 5_000})
    @Tag("lifecycle-72")
    void completesAStatementInsideTheMapperOfResultFlatMap(int rows) {
        List<Integer> inner = pool.scopes
                .withConnectionMany(c -> Flux.from(series(c, rows, true).execute())
                        .flatMap(result ->
                                result.flatMap(segment -> segment instanceof io.r2dbc.spi.Result.RowSegment row
                                        ? next(c, row.row().get(0, Integer.class))
                                        : Flux.empty())))
                .collectList()
                .block(LONG);
        assertThat(inner).hasSize(rows);
    }

    @Nested
    class BeyondTheBound {

        private final String openSql = "select generate_series(1, 20000)";
        private final String waitingSql = "select $1::int + 1";

        @ParameterizedTest
        @CsvSource({"false, 1", "false, 16", "true, 1", "true, 16"})
        @Tag("lifecycle-48")
        void failsAtOnceAndNamesBothStatements(boolean transactional, int concurrency) {
            java.util.function.Function<Connection, Flux<Integer>> body =
                    c -> Rows.ints(c, openSql).flatMap(number -> next(c, number), concurrency);
            Flux<Integer> scope =
                    transactional ? pool.scopes.inTransactionMany(body) : pool.scopes.withConnectionMany(body);
            long start = System.nanoTime();
            assertThatThrownBy(() -> scope.blockLast(LONG))
                    .isInstanceOfSatisfying(NestedReadOverflowException.class, e -> {
                        assertThat(e.getSql()).isEqualTo(openSql);
                        assertThat(e.waitingSql()).isEqualTo(waitingSql);
                        assertThat(e.maxBufferedRows()).isEqualTo(10_000);
                        assertThat(e).hasMessageContaining(openSql).hasMessageContaining(waitingSql);
                        assertThat(e.scopeOrigin()).contains("NestedQueriesIT");
                    });
            assertThat(Duration.ofNanos(System.nanoTime() - start)).isLessThan(Duration.ofSeconds(30));
        }

        @Test
        @Tag("lifecycle-48")
        void leavesTheConnectionUsableInTheSameScope() {
            List<Integer> after = pool.scopes
                    .withConnectionMany(c -> Rows.ints(c, openSql)
                            .flatMap(number -> next(c, number), 1)
                            .ignoreElements()
                            .onErrorResume(NestedReadOverflowException.class, e -> reactor.core.publisher.Mono.empty())
                            .thenMany(Rows.ints(c, "select 7")))
                    .collectList()
                    .block(LONG);
            assertThat(after).containsExactly(7);
        }

        @Test
        @Tag("lifecycle-48")
        void readsAnyNumberOfRowsWhileNothingWaitsBehindThem() {
            Long rows = pool.scopes
                    .withConnectionMany(c ->
                            Rows.ints(c, "select generate_series(1, 200000)").limitRate(32))
                    .count()
                    .block(LONG);
            assertThat(rows).isEqualTo(200_000);
        }
    }
}
