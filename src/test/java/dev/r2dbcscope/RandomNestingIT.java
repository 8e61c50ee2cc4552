package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * 10,000 random nested pipelines on a pool of 4: all propagation modes, up to four deep, with errors, refused statements,
 * cancels and timeouts at random points. What they leave in the database is what a reference model says.
 */
class RandomNestingIT {

    private static final Duration LONG = Duration.ofMinutes(5);

    /** The first seed; a failure names the seed of its pipeline. */
    private static final long FIRST = Long.getLong("seed", 1L);

    private static final int PIPELINES = Integer.getInteger("pipelines", 10_000);

    private static final int BATCH = 500;

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table nested_rows (n int)");
    }

    @Test
    void leaveExactlyWhatTheReferenceModelSays() {
        AtomicInteger rows = new AtomicInteger();
        int[] totals = new int[4];
        try (WatchedPool pool = WatchedPool.of(4)) {
            for (long first = FIRST; first < FIRST + PIPELINES; first += BATCH) {
                batch(pool, first, rows, totals);
            }
            pool.assertWhole();
        }
        System.out.printf(
                "RandomNestingIT: %d pipelines, %d rows written or rolled back, %d durable, %d undecided,"
                        + " %d timed out, %d denied a second connection%n",
                PIPELINES, rows.get(), totals[0], totals[1], totals[2], totals[3]);
        assertThat(totals[0]).as("durable rows").isGreaterThan(PIPELINES / 10);
        assertThat(totals[1]).as("rows of which the model leaves it open").isLessThan(rows.get() / 20);
    }

    private static void batch(WatchedPool pool, long first, AtomicInteger rows, int[] totals) {
        Postgres.execute("truncate nested_rows");
        pool.events.clear();
        RandomPipelineRun run = new RandomPipelineRun(pool);
        List<RandomPipeline.Scope> pipelines = LongStream.range(first, first + BATCH)
                .mapToObj(seed -> RandomPipeline.of(seed, rows))
                .toList();
        Map<String, Throwable> errors = new ConcurrentHashMap<>();
        Flux.fromIterable(pipelines)
                .flatMap(
                        pipeline -> run.run(pipeline).onErrorResume(e -> {
                            errors.put(pipeline.name(), e);
                            return Mono.empty();
                        }),
                        8)
                .then()
                .block(LONG);
        pool.awaitQuiet();
        assertThat(pool.inState("idle in transaction%")).isZero();
        assertThat(errors.entrySet().stream().filter(entry -> !isExpected(entry.getValue())))
                .as("errors that no program asks for")
                .isEmpty();
        assertThat(pool.events(ScopeEvent.Released.class))
                .noneMatch(ScopeEvent.Released::destroyed)
                .isNotEmpty();

        Set<String> committed = pool.events(ScopeEvent.Released.class).stream()
                .filter(event -> event.outcome() == ScopeOutcome.COMPLETED && event.error() == null)
                .map(event -> event.scope().name())
                .collect(Collectors.toSet());
        TransactionModel model =
                new TransactionModel(run.timedOut::contains, committed::contains, run.denied::contains);
        List<String> wrongEnds = new ArrayList<>();
        for (RandomPipeline.Scope pipeline : pipelines) {
            boolean ok = model.add(pipeline);
            Throwable error = errors.get(pipeline.name());
            if (ok != (error == null)) {
                wrongEnds.add(pipeline + " ended with " + error);
            }
        }
        assertThat(wrongEnds).isEmpty();
        compare(pipelines, model);
        totals[0] += model.durable.size();
        totals[1] += model.open.size();
        totals[2] += run.timedOut.size();
        totals[3] += run.denied.size();
    }

    private static void compare(List<RandomPipeline.Scope> pipelines, TransactionModel model) {
        Set<Integer> found = new TreeSet<>(Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        c -> Rows.ints(c, "select n from nested_rows").collectList(),
                        Connection::close)
                .blockOptional(LONG)
                .orElseThrow());
        Map<Integer, String> wrong = new TreeMap<>();
        for (int row : model.durable) {
            if (!found.contains(row)) {
                wrong.put(row, "is missing");
            }
        }
        for (int row : found) {
            if (!model.durable.contains(row) && !model.open.contains(row)) {
                wrong.put(row, "should not be there");
            }
        }
        assertThat(wrong)
                .as(() -> "rows of "
                        + pipelines.stream()
                                .filter(pipeline -> wrong.keySet().stream()
                                        .anyMatch(row -> pipeline.toString().contains("row=" + row + "]")))
                                .toList())
                .isEmpty();
    }

    /** Never an acquire timeout, a destroyed connection or an internal failure. */
    private static boolean isExpected(Throwable error) {
        return error instanceof RandomPipelineRun.UsersError
                || error instanceof TimeoutException
                || error instanceof ScopePropagationException
                || error instanceof ScopeRolledBackException
                || error instanceof NestedAcquireDeadlockException
                || error instanceof R2dbcRollbackException
                || error instanceof ScopeClosedException closed && closed.getCause() instanceof R2dbcException
                || error instanceof R2dbcException refused
                        && List.of("22012", "25P02").contains(String.valueOf(refused.getSqlState()));
    }
}
