package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.slf4j.LoggerFactory;
import reactor.core.Exceptions;
import reactor.core.publisher.Hooks;
import reactor.netty.channel.AbortedException;

/**
 * Random scopes on a real pool and a real server, while the network breaks, the server ends or cancels what it runs, or goes away and comes back, at
 * every phase. After each case: nothing hangs, everybody was told the right kind of error, the pool is whole, and exactly what was acknowledged is
 * durable.
 *
 * <p>A case is decided by its seed, as far as the timing allows: {@code -Dfaults.seed=N} runs it alone.
 */
class RandomFaultsIT {

    /** Longer than any case may take. */
    static final Duration NEVER = Duration.ofMinutes(10);

    private static final int SHORT = 120;
    private static final int FULL = 2_000;
    private static final int LANES = 4;
    private static final int CASES_PER_RESTART = 60;
    private static final int MOST_FAILURES = 5;

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final Logger driverLog = (Logger) LoggerFactory.getLogger("io.r2dbc.postgresql.client");
    private final OwnPostgres server = new OwnPostgres();
    private final List<FaultedLane> lanes =
            IntStream.range(0, LANES).mapToObj(i -> new FaultedLane(server, i)).toList();
    private final List<Throwable> dropped = new CopyOnWriteArrayList<>();
    private final List<FaultedLane.Case> cases = new CopyOnWriteArrayList<>();
    private final List<AssertionError> failures = new CopyOnWriteArrayList<>();

    @BeforeEach
    void prepare() {
        server.execute("create table fault_rows (id int primary key)");
        driverLog.setLevel(Level.OFF); // it would print every fault
        Hooks.onErrorDropped(dropped::add);
    }

    @AfterEach
    void cleanUp() throws IOException {
        Hooks.resetOnErrorDropped();
        driverLog.setLevel(null);
        lanes.forEach(FaultedLane::close);
        server.close();
    }

    @Test
    void leaveEverythingInOrder() {
        run(Integer.getInteger("faults", SHORT));
    }

    /** Some minutes: profile soak. */
    @Test
    @Tag("soak")
    void leaveEverythingInOrderManyTimes() {
        run(Integer.getInteger("faults", FULL));
    }

    private void run(int count) {
        Long only = Long.getLong("faults.seed");
        long first = only == null ? Long.getLong("faults.first", 1L) : only;
        long last = only == null ? first + count - 1 : only;
        long start = System.nanoTime();
        runTogether(first, last);
        LongStream.rangeClosed(first, last).filter(RandomFaultsIT::restarts).forEach(seed -> run(lanes.get(0), seed));
        print(first, last, Duration.ofNanos(System.nanoTime() - start));
        if (!failures.isEmpty()) {
            AssertionError all = new AssertionError(failures.size() + " cases failed");
            failures.forEach(all::addSuppressed);
            throw all;
        }
        assertThat(dropped).allMatch(RandomFaultsIT::isOfTheDriver);
        assertThat(server.ints("select count(*)::int from pg_stat_activity where state like '%transaction%'"))
                .containsExactly(0);
        if (last - first + 1 >= SHORT) {
            assertThat(cases.stream().filter(run -> run.script().hasStruck())).hasSizeGreaterThan(count / 3);
            assertThat(scopes().map(FaultedScope::end)).contains(FaultedScope.End.values());
        }
    }

    /** Those that restart the server have it for themselves. */
    private static boolean restarts(long seed) {
        return seed % CASES_PER_RESTART == 0;
    }

    private void runTogether(long first, long last) {
        AtomicLong seeds = new AtomicLong(first);
        ExecutorService threads = Executors.newFixedThreadPool(LANES);
        try {
            CompletableFuture.allOf(lanes.stream()
                            .map(lane -> CompletableFuture.runAsync(() -> runSome(lane, seeds, last), threads))
                            .toArray(CompletableFuture[]::new))
                    .join();
        } finally {
            threads.shutdown();
        }
    }

    private void runSome(FaultedLane lane, AtomicLong seeds, long last) {
        for (long seed = seeds.getAndIncrement(); seed <= last; seed = seeds.getAndIncrement()) {
            if (!restarts(seed)) {
                run(lane, seed);
            }
        }
    }

    private void run(FaultedLane lane, long seed) {
        if (failures.size() >= MOST_FAILURES) {
            return;
        }
        try {
            cases.add(lane.run(seed, restarts(seed)));
        } catch (AssertionError e) {
            failures.add(e);
        }
    }

    /** The driver has nobody to tell that it could not send, and who waits for the answer is told otherwise. */
    private static boolean isOfTheDriver(Throwable error) {
        return FaultedScope.isOfTheDatabase(error)
                || Exceptions.isErrorCallbackNotImplemented(error)
                        && (error.getCause() instanceof IOException || error.getCause() instanceof AbortedException);
    }

    private Stream<FaultedScope> scopes() {
        return cases.stream().flatMap(run -> run.scopes().stream());
    }

    private void print(long first, long last, Duration took) {
        Map<FaultedScope.End, Integer> ends = new TreeMap<>();
        Map<String, Integer> errors = new TreeMap<>();
        scopes().forEach(scope -> {
            ends.merge(scope.end(), 1, Integer::sum);
            Throwable error = scope.error();
            if (error != null) {
                errors.merge(error.getClass().getSimpleName(), 1, Integer::sum);
            }
        });
        System.out.printf(
                "RandomFaultsIT: %d cases, seeds %d to %d, %d struck, in %d s; scopes %s; errors %s%n",
                cases.size(),
                first,
                last,
                cases.stream().filter(run -> run.script().hasStruck()).count(),
                took.toSeconds(),
                ends,
                errors);
    }
}
