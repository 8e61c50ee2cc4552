package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.RollbackSandbox;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Random programs of connections, transactions, savepoints and failures in a rollback sandbox: each sees the rows that a model
 * says, and none leaves one behind. {@code -Dsandbox.programs} sets how many there are, {@code -Dseed} the first seed.
 */
class SandboxFuzzIT {

    private static final Duration BOUND = Duration.ofMinutes(2);

    private static final int PROGRAMS = Integer.getInteger("sandbox.programs", 60);

    private static final long FIRST = Long.getLong("seed", 1L);

    private static final int STEPS = 40;

    private static final int VALUES = 12;

    private static final WatchedPool REAL = WatchedPool.of(1);

    @BeforeAll
    static void table() {
        Postgres.execute("drop table if exists fuzzed; create table fuzzed (n int primary key)");
    }

    @AfterAll
    static void drop() {
        REAL.assertWhole();
        REAL.close();
        Postgres.execute("drop table fuzzed");
    }

    private static void run(Publisher<?> work) {
        Flux.from(work).blockLast(BOUND);
    }

    private static Set<Integer> rows(Connection connection) {
        return new TreeSet<>(Rows.ints(connection, "select n from fuzzed")
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow());
    }

    @Test
    void oneAfterTheOther() {
        int steps = 0;
        for (long seed = FIRST; seed < FIRST + PROGRAMS; seed++) {
            RollbackSandbox sandbox = RollbackSandbox.of(REAL.pool);
            run(sandbox.begin());
            Program program = new Program(sandbox, seed);
            steps += program.run();
            run(sandbox.rollback());
            assertThat(Postgres.number("select count(*) from fuzzed"))
                    .as("rows left by seed %d", seed)
                    .isZero();
        }
        System.out.printf("SandboxFuzzIT: %d programs, %d steps%n", PROGRAMS, steps);
        assertThat(steps).isEqualTo(PROGRAMS * STEPS);
    }

    /** One program and its model: what is committed, and what the open transaction sees. */
    private static final class Program {

        private final RollbackSandbox sandbox;
        private final Random random;
        private final long seed;
        private final Connection[] connections = new Connection[4];
        private Set<Integer> committed = new TreeSet<>();
        private @Nullable Connection holder;
        private Set<Integer> inside = new TreeSet<>();
        private boolean failed;
        private final Deque<Set<Integer>> savepoints = new ArrayDeque<>();

        Program(RollbackSandbox sandbox, long seed) {
            this.sandbox = sandbox;
            this.random = new Random(seed);
            this.seed = seed;
        }

        int run() {
            int step = 0;
            for (; step < STEPS; step++) {
                step(step);
            }
            for (Connection open : connections) {
                if (open != null) {
                    SandboxFuzzIT.run(open.close());
                }
            }
            return step;
        }

        private void step(int step) {
            Connection connection = holder == null ? any() : holder;
            String words = "seed " + seed + ", step " + step;
            if (holder == null) {
                if (random.nextInt(4) == 0) {
                    SandboxFuzzIT.run(connection.beginTransaction());
                    holder = connection;
                    inside = new TreeSet<>(committed);
                    return;
                }
                committed = statement(connection, committed, words);
                return;
            }
            switch (random.nextInt(9)) {
                case 0 -> commit(connection, words);
                case 1 -> rollBack(connection);
                case 2 -> {
                    SandboxFuzzIT.run(connection.close());
                    forget(connection);
                    ended();
                }
                case 3 -> {
                    if (!failed) {
                        SandboxFuzzIT.run(connection.createSavepoint("s" + savepoints.size()));
                        savepoints.push(new TreeSet<>(inside));
                    }
                }
                case 4 -> {
                    if (!savepoints.isEmpty()) {
                        SandboxFuzzIT.run(connection.rollbackTransactionToSavepoint("s" + (savepoints.size() - 1)));
                        inside = new TreeSet<>(savepoints.getFirst());
                        failed = false;
                    }
                }
                default -> inside = statement(connection, inside, words);
            }
        }

        private void commit(Connection connection, String words) {
            Throwable refused = Flux.from(connection.commitTransaction())
                    .then(Mono.<Throwable>empty())
                    .onErrorResume(Mono::just)
                    .block(BOUND);
            assertThat(refused != null)
                    .as("%s: the commit failed with %s", words, refused)
                    .isEqualTo(failed);
            if (!failed) {
                committed = inside;
            }
            ended();
        }

        private void rollBack(Connection connection) {
            SandboxFuzzIT.run(connection.rollbackTransaction());
            ended();
        }

        private void ended() {
            holder = null;
            failed = false;
            savepoints.clear();
        }

        /** Inserts, which fails for a row that is there, deletes, or looks; returns what is visible then. */
        private Set<Integer> statement(Connection connection, Set<Integer> visible, String words) {
            int n = random.nextInt(VALUES);
            Set<Integer> after = new TreeSet<>(visible);
            boolean fails = failed;
            Publisher<?> work;
            switch (random.nextInt(5)) {
                case 0 -> {
                    work = Rows.update(connection
                            .createStatement("delete from fuzzed where n = $1")
                            .bind(0, n));
                    after.remove(n);
                }
                case 1 -> {
                    work = Rows.update(connection, "insert into fuzzed values (" + n + "), (" + n + ")");
                    fails = true;
                }
                case 2 -> {
                    work = Rows.ints(connection, "select n from fuzzed")
                            .collect(java.util.stream.Collectors.toCollection(TreeSet::new))
                            .doOnNext(seen -> assertThat(seen).as(words).isEqualTo(visible));
                }
                default -> {
                    work = Rows.update(connection
                            .createStatement("insert into fuzzed values ($1)")
                            .bind(0, n));
                    fails |= !after.add(n);
                }
            }
            Throwable error = Flux.from(work)
                    .then(Mono.<Throwable>empty())
                    .onErrorResume(R2dbcException.class, Mono::just)
                    .block(BOUND);
            assertThat(error != null)
                    .as("%s: the statement failed with %s", words, error)
                    .isEqualTo(fails);
            if (fails) {
                failed = holder != null;
                return visible;
            }
            return after;
        }

        private Connection any() {
            int at = random.nextInt(connections.length);
            Connection open = connections[at];
            if (open != null && random.nextInt(4) == 0) {
                SandboxFuzzIT.run(open.close());
                open = null;
            }
            if (open == null) {
                open = Mono.from(sandbox.create()).blockOptional(BOUND).orElseThrow();
                connections[at] = open;
            }
            return open;
        }

        private void forget(Connection connection) {
            for (int i = 0; i < connections.length; i++) {
                if (connections[i] == connection) {
                    connections[i] = null;
                }
            }
        }
    }

    @Test
    void allAtOnce() {
        RollbackSandbox sandbox = RollbackSandbox.of(REAL.pool);
        run(sandbox.begin());
        Set<Integer> expected = new ConcurrentSkipListSet<>();
        int workers = PROGRAMS * 4;

        run(Flux.range(0, workers).flatMap(worker -> work(sandbox, worker, expected), 32));

        Set<Integer> found = Mono.usingWhen(
                        sandbox.create(),
                        c -> Mono.fromCallable(() -> c).flatMap(SandboxFuzzIT::collect),
                        Connection::close)
                .blockOptional(BOUND)
                .orElseThrow();
        assertThat(found).isEqualTo(expected);
        run(sandbox.rollback());
        assertThat(Postgres.number("select count(*) from fuzzed")).isZero();
    }

    private static Mono<Set<Integer>> collect(Connection connection) {
        return Rows.ints(connection, "select n from fuzzed").collect(TreeSet::new, Set::add);
    }

    /** Ten rows of its own, one by one or in a transaction, which commits, rolls back, fails or is left. */
    private static Mono<Void> work(RollbackSandbox sandbox, int worker, Set<Integer> expected) {
        Random random = new Random(FIRST * 31 + worker);
        int kind = random.nextInt(5);
        List<Integer> mine =
                IntStream.range(worker * 10, worker * 10 + 10).boxed().toList();
        if (kind < 2) {
            expected.addAll(mine);
        }
        return Mono.usingWhen(
                        sandbox.create(),
                        connection -> {
                            Flux<Long> inserts = Flux.fromIterable(mine)
                                    .concatMap(n -> Rows.update(connection
                                            .createStatement("insert into fuzzed values ($1)")
                                            .bind(0, n)));
                            return switch (kind) {
                                case 0 -> inserts.then();
                                case 1 ->
                                    Flux.from(connection.beginTransaction())
                                            .thenMany(inserts)
                                            .then(Mono.from(connection.commitTransaction()));
                                case 2 ->
                                    Flux.from(connection.beginTransaction())
                                            .thenMany(inserts)
                                            .then(Mono.from(connection.rollbackTransaction()));
                                case 3 ->
                                    Flux.from(connection.beginTransaction())
                                            .thenMany(inserts)
                                            .thenMany(Rows.ints(connection, "select 1/0"))
                                            .then();
                                default ->
                                    Flux.from(connection.beginTransaction())
                                            .thenMany(inserts)
                                            .take(random.nextInt(10) + 1)
                                            .then();
                            };
                        },
                        Connection::close)
                .onErrorResume(
                        R2dbcException.class, e -> "22012".equals(e.getSqlState()) ? Mono.empty() : Mono.error(e));
    }
}
