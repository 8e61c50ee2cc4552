package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Hooks;
import reactor.core.publisher.Mono;

/**
 * Random pipelines that mix propagation with everything that has a say in how a scope ends: cancels and {@link OnCancel},
 * retries, elements held back, rollback-only, bridges, time limits, errors that are swallowed or not. There is no model of
 * what should happen; each row that is written comes with a hook that is told what became of it, and that must be true.
 */
class RandomEndingsIT {

    private static final long FIRST = Long.getLong("seed", 1L);
    private static final int PIPELINES = Integer.getInteger("pipelines", 5_000);
    private static final int DEPTH = 3;

    private static final List<Propagation> MODES = List.of(
            Propagation.REQUIRED,
            Propagation.REQUIRED,
            Propagation.NESTED,
            Propagation.NESTED,
            Propagation.SUPPORTS,
            Propagation.REQUIRES_NEW);

    private final WatchedPool pool = WatchedPool.of(4);
    private final AtomicInteger rows = new AtomicInteger();
    private final Map<Integer, String> written = new ConcurrentHashMap<>();
    private final Map<Integer, TransactionOutcome> told = new ConcurrentHashMap<>();
    private final List<String> problems = new CopyOnWriteArrayList<>();

    @BeforeEach
    void prepare() {
        Postgres.execute("create table ended_rows (n int)");
        // of what is left behind: errors after the cancel are part of the game
        Hooks.onErrorDropped(error -> {});
    }

    @AfterEach
    void cleanUp() {
        Hooks.resetOnErrorDropped();
        Postgres.execute("drop table ended_rows");
    }

    @Test
    void endAsTheirHooksAreTold() {
        Flux.range(0, PIPELINES)
                .map(i -> FIRST + i)
                .flatMap(this::run, 8)
                .then()
                .block(Duration.ofMinutes(10));
        pool.awaitQuiet();
        Await.until(() -> told.size() >= written.size(), () -> "hooks that did not run: " + untold());

        Set<Integer> durable = new HashSet<>(pool.borrow(c -> Rows.ints(c, "select n from ended_rows")));
        written.forEach((row, where) -> {
            TransactionOutcome how = told.get(row);
            boolean kept = how == TransactionOutcome.COMMITTED || how == TransactionOutcome.NONE;
            if (durable.contains(row) != kept) {
                problems.add(where + " was told " + how + " of row " + row);
            }
        });
        System.out.printf(
                "RandomEndingsIT: %d pipelines, %d rows with a hook, told %s%n",
                PIPELINES,
                written.size(),
                told.values().stream().collect(Collectors.groupingBy(how -> how, TreeMap::new, Collectors.counting())));
        assertThat(problems).isEmpty();
        assertThat(told.values())
                .contains(TransactionOutcome.COMMITTED, TransactionOutcome.ROLLED_BACK, TransactionOutcome.NONE);
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private Map<Integer, String> untold() {
        Map<Integer, String> all = new TreeMap<>(written);
        all.keySet().removeAll(told.keySet());
        return all;
    }

    private Mono<Void> run(long seed) {
        return scope(new Random(seed), 0, "seed " + seed, Propagation.REQUIRED)
                .then()
                .timeout(Duration.ofMinutes(2))
                .onErrorResume(error -> {
                    if (error instanceof TimeoutException) {
                        problems.add("seed " + seed + " hangs");
                    }
                    return Mono.empty();
                });
    }

    private Flux<Long> scope(Random random, int depth, String path, @Nullable Propagation forced) {
        Propagation mode = forced != null ? forced : MODES.get(random.nextInt(MODES.size()));
        boolean retried = random.nextInt(3) == 0;
        TransactionOptions options = options(random, mode, retried);
        ScopeOptions limits = limits(random);
        ConnectionScopes scopes = pool.scopes.with(limits).transactions(options);
        String here = path + "[" + mode + ", " + options.onCancel() + (retried ? ", retried" : "") + "]";
        Function<Connection, Flux<Long>> body = body(random, depth, here);
        Flux<Long> flux = random.nextInt(8) == 0
                ? scopes.withConnectionMany(body)
                : random.nextInt(3) == 0
                        ? scopes.inTransaction(c -> body.apply(c).last(0L)).flux()
                        : scopes.inTransactionMany(body);
        return switch (random.nextInt(8)) {
            case 0 -> flux.take(1 + random.nextInt(3));
            case 1 -> flux.take(Duration.ofNanos(100_000L * random.nextInt(100)));
            default -> flux;
        };
    }

    private static TransactionOptions options(Random random, Propagation mode, boolean retried) {
        TransactionOptions options = TransactionOptions.defaults()
                .withPropagation(mode)
                .withCompletionTimeout(Duration.ofMillis(random.nextInt(3) == 0 ? 5 : 500))
                .withOnCancel(OnCancel.values()[random.nextInt(OnCancel.values().length)]);
        if (retried || random.nextInt(3) == 0) {
            options = options.withEmitAfterCommit(random.nextInt(8) == 0 ? 2 : 1_000);
        }
        return retried
                ? options.withRetry(RetryPolicy.serialization(1 + random.nextInt(2))
                        .withBackoff(Duration.ofMillis(1), Duration.ofMillis(4)))
                : options;
    }

    private static ScopeOptions limits(Random random) {
        ScopeOptions options = ScopeOptions.defaults();
        if (random.nextInt(6) == 0) {
            options = options.withMaxHold(Duration.ofMillis(1 + random.nextInt(12)));
        }
        if (random.nextInt(6) == 0) {
            options = options.withMaxIdle(Duration.ofMillis(1 + random.nextInt(8)));
        }
        options = options.withPipelinedBegin(random.nextBoolean() ? Duration.ZERO : Duration.ofDays(1));
        return random.nextInt(4) == 0 ? options.withStatementTimeout(Duration.ofSeconds(60)) : options;
    }

    private Function<Connection, Flux<Long>> body(Random random, int depth, String path) {
        List<Function<Connection, Publisher<Long>>> steps = new ArrayList<>();
        int count = 1 + random.nextInt(4);
        for (int i = 0; i < count; i++) {
            steps.add(step(random, depth, path + "/" + i));
        }
        return c -> Flux.fromIterable(steps).concatMap(step -> step.apply(c), 1);
    }

    /** What is random about a step is decided when the program is made, so that a seed stands for one program. */
    private Function<Connection, Publisher<Long>> step(Random random, int depth, String path) {
        int pause = random.nextInt(8);
        boolean heads = random.nextBoolean();
        return switch (random.nextInt(depth < DEPTH ? 16 : 10)) {
            case 0 -> c -> Mono.delay(Duration.ofMillis(pause));
            case 1 -> c -> pause < 5 ? Mono.just(1L) : Mono.error(new IllegalStateException("the user's"));
            case 2 -> c -> heads ? Mono.just(1L) : conflict(c);
            case 3 ->
                ScopeBridge.<Long>stage(c -> write(c, path)
                        .onErrorResume(ScopePropagationException.class, e -> Mono.just(2L)) // its Context is lost
                        .delayElement(Duration.ofMillis(3))
                        .toFuture())::apply;
            case 4 ->
                c -> CurrentScope.get()
                        .doOnNext(scope -> {
                            if (scope.isTransactional() && heads) {
                                scope.setRollbackOnly();
                            }
                        })
                        .thenReturn(1L);
            case 5, 6, 7, 8, 9 -> c -> write(c, path);
            case 10 -> {
                Flux<Long> one = scope(random, depth + 1, path + "a", Propagation.NESTED);
                Flux<Long> other = scope(random, depth + 1, path + "b", Propagation.NESTED);
                yield c -> Flux.merge(
                        one.onErrorResume(e -> Mono.empty()), other.onErrorResume(e -> Mono.empty()), write(c, path));
            }
            default -> {
                Flux<Long> inner = scope(random, depth + 1, path, null);
                yield c -> heads ? inner.onErrorResume(e -> Mono.empty()) : inner;
            }
        };
    }

    private static Mono<Long> conflict(Connection connection) {
        return Rows.update(connection, "do $$ begin raise exception 'staged' using errcode = '40001'; end $$")
                .then(Mono.just(1L));
    }

    /** Writes a row, and lets a hook take down what it is told of it. */
    private Mono<Long> write(Connection connection, String path) {
        return Mono.defer(() -> {
            int row = rows.incrementAndGet();
            return Rows.update(connection
                            .createStatement("insert into ended_rows values ($1)")
                            .bind(0, row))
                    .then(CurrentScope.get())
                    .doOnNext(scope -> hook(scope, row, path))
                    .thenReturn((long) row);
        });
    }

    private void hook(CurrentScope scope, int row, String path) {
        try {
            scope.afterCompletion(how -> Mono.fromRunnable(() -> {
                if (told.put(row, how) != null) {
                    problems.add(path + " was told twice of row " + row);
                }
            }));
            written.put(row, path);
        } catch (ScopeClosedException e) {
            // refused, because the end has been decided: it is not promised anything
        }
    }
}
