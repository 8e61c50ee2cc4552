package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.R2dbcException;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** 32 workers on a pool of 8 do everything at random: nothing is held at the end, and nothing has grown. */
class SoakIT {

    private static final int WORKERS = 32;
    private static final int POOL = 8;
    private static final Duration PATIENCE = Duration.ofSeconds(Integer.getInteger("soak.patience", 60));

    /** What the heap may grow by after the first quarter: code that is compiled late, caches of the driver and the pool. */
    private static final long TOLERANCE = 24L << 20;

    @RegisterExtension
    final LostBuffers lost = new LostBuffers();

    private final WatchedPool pool = WatchedPool.of(POOL);
    private final SoakWork work = new SoakWork(
            pool.scopes.with(ScopeOptions.defaults().withName("plain").withAcquireTimeout(PATIENCE)));
    private final AtomicLong pieces = new AtomicLong();
    private final Map<Long, String> running = new ConcurrentHashMap<>();
    private final Set<String> surprises = ConcurrentHashMap.newKeySet();

    @BeforeAll
    static void forgetWhatOthersLost() throws InterruptedException {
        LostBuffers.letBygonesBeBygones();
    }

    @BeforeEach
    void createTables() {
        SoakWork.createTables();
    }

    @AfterEach
    void close() {
        pool.close();
        Postgres.execute("drop table soak, soak_other");
    }

    @Test
    void staysTheSame() {
        soak(Duration.ofSeconds(Integer.getInteger("soak.seconds", 20)), 4);
    }

    @Test
    @Tag("soak")
    void staysTheSameForTenMinutes() {
        soak(Duration.ofMinutes(10), 20);
    }

    private void soak(Duration time, int parts) {
        List<Long> heap = new ArrayList<>();
        List<Integer> threads = new ArrayList<>();
        for (int part = 0; part < parts; part++) {
            work(time.dividedBy(parts), part);
            pool.assertWhole();
            heap.add(usedHeap());
            threads.add(threads());
        }
        System.out.printf(
                "soak: %,d pieces of work, %,d rows, %d errors of unexpected kinds; heap in use %s kB, threads %s%n",
                pieces.get(),
                work.rows(),
                surprises.size(),
                heap.stream().map(used -> used >> 10).toList(),
                threads);
        assertThat(surprises).isEmpty();
        assertDurable();
        int warm = parts / 4;
        assertThat(heap.get(parts - 1)).isLessThan(heap.get(warm) + TOLERANCE);
        assertThat(threads.get(parts - 1)).isLessThanOrEqualTo(threads.get(warm));
        assertThat(lost.reports()).isEmpty();
    }

    /** Each worker begins a next piece as soon as its last one has ended, until the time is over. */
    private void work(Duration time, int part) {
        long end = System.nanoTime() + time.toNanos();
        CompletableFuture<Void> workers = Flux.range(0, WORKERS)
                .flatMap(
                        worker -> {
                            Random random = new Random(1000L * part + worker);
                            return Mono.defer(() -> one(random))
                                    .repeat(() -> System.nanoTime() < end)
                                    .then()
                                    .subscribeOn(Schedulers.parallel());
                        },
                        WORKERS)
                .then()
                .toFuture();
        try {
            workers.get(time.plus(PATIENCE).toNanos(), TimeUnit.NANOSECONDS);
        } catch (TimeoutException hung) {
            // told before they are cancelled, which would let them go
            throw new AssertionError("These hang: " + running.values() + "; live: " + pool.scopes.live(), hung);
        } catch (InterruptedException | ExecutionException broken) {
            throw new AssertionError(broken);
        } finally {
            workers.cancel(true);
        }
    }

    private Mono<Void> one(Random random) {
        SoakWork.Piece piece = work.piece(random);
        long number = pieces.incrementAndGet();
        running.put(number, piece.name());
        return piece.work()
                .onErrorResume(error -> {
                    if (!isExpected(error)) {
                        surprises.add(piece.name() + ": " + error);
                    }
                    return Mono.empty();
                })
                .then()
                .doFinally(end -> running.remove(number));
    }

    /** What the code throws, what comes of killed backends, of conflicts, and of transactions that want two connections. */
    private static boolean isExpected(Throwable error) {
        if (error instanceof SoakWork.UsersError || error instanceof NestedAcquireDeadlockException) {
            return true;
        }
        String state = error instanceof R2dbcException database ? database.getSqlState() : null;
        return state != null && (state.equals("57P01") || state.startsWith("40"));
    }

    private void assertDurable() {
        Set<Integer> there =
                pool.borrow(c -> Rows.ints(c, "select id from soak")).stream().collect(Collectors.toSet());
        assertThat(there.size()).isPositive();
        List<String> wrong = new ArrayList<>();
        int unwritten = 0;
        for (int row = 0; row < work.rows(); row++) {
            if (there.contains(row)) {
                if (!work.mayBeThere(row)) {
                    wrong.add("row " + row + " of " + work.origin(row) + " is there, and was not committed");
                }
            } else if (work.mustBeThere(row)) {
                wrong.add("row " + row + " of " + work.origin(row) + " was committed, and is not there");
            } else if (work.mayBeThere(row)) {
                unwritten++;
            }
        }
        System.out.printf(
                "soak: %d transactions were committed on cancel, or not known, without their row%n", unwritten);
        assertThat(wrong).isEmpty();
        assertThat(there).doesNotContain(-1);
    }

    private static long usedHeap() {
        long least = Long.MAX_VALUE;
        for (int i = 0; i < 3; i++) {
            System.gc();
            least = Math.min(
                    least,
                    ManagementFactory.getMemoryMXBean().getHeapMemoryUsage().getUsed());
        }
        return least;
    }

    /** Those of Reactor's elastic pool come and go. */
    private static int threads() {
        return (int) Thread.getAllStackTraces().keySet().stream()
                .filter(thread -> !thread.getName().startsWith("boundedElastic"))
                .count();
    }
}
