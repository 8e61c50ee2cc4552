package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Tenants that share a table and two connections, with row-level security. */
class TenantsIT {

    /** Scopes whose code leaves a transaction open say so. */
    @RegisterExtension
    final LogCapture log = new LogCapture();

    private static final int SCOPES = 10_000;
    private static final int TENANTS = 5;
    private static final int ROWS = 7;
    private static final List<ScopeShape> SHAPES = List.of(
            ScopeShape.WITH_CONNECTION_MANY,
            ScopeShape.IN_TRANSACTION_MANY,
            ScopeShape.CONNECTED_FLUX,
            ScopeShape.TRANSACTIONAL_FLUX);

    private static final String CLEAN = "select (coalesce(current_setting('app.tenant', true), '') = ''"
            + " and current_setting('role') = 'none' and current_setting('statement_timeout') = '0'"
            + " and current_setting('lock_timeout') = '0' and current_setting('work_mem') = '4MB'"
            + " and current_setting('default_transaction_isolation') = 'read committed')::int";

    private final ConcurrentLinkedQueue<String> offences = new ConcurrentLinkedQueue<>();
    private final Drops drops = new Drops();
    private final AtomicInteger completed = new AtomicInteger();
    private final AtomicInteger cancelled = new AtomicInteger();
    private final AtomicInteger rows = new AtomicInteger();

    @Test
    void neverSeeEachOthersRowsAndLeakNoSetting() {
        Postgres.execute("create role tenant_user; create table tenants (tenant text, n int);"
                + " insert into tenants select 't' || t, n from generate_series(0, " + (TENANTS - 1)
                + ") t, generate_series(1, " + ROWS + ") n;"
                + " alter table tenants enable row level security;"
                + " create policy own on tenants using (tenant = current_setting('app.tenant'));"
                + " grant select, update on tenants to tenant_user");
        long seed = System.nanoTime();
        Random random = new Random(seed);
        SessionSettings settings = SessionSettings.none()
                .fromContext("app.tenant", context -> context.getOrDefault("tenant", null))
                .withRole("tenant_user")
                .with("work_mem", "1234kB");
        try (WatchedPool pool = WatchedPool.of(
                2,
                options -> options.withSettings(settings)
                        .withStatementTimeout(Duration.ofSeconds(50))
                        .withLockWaitTimeout(Duration.ofSeconds(40)))) {
            Flux.range(0, SCOPES)
                    .flatMap(i -> i % 20 == 0 ? borrower(pool) : scope(pool, i, random.nextLong()), 8)
                    .blockLast(Duration.ofMinutes(10));
            pool.awaitQuiet();
            assertThat(offences).as("seed " + seed).isEmpty();
            assertThat(borrower(pool).thenMany(borrower(pool)).collectList().block(Duration.ofMinutes(1)))
                    .isEmpty();
            assertThat(offences).as("seed " + seed).isEmpty();
            assertThat(pool.destroyed()).as("seed " + seed).isZero();
            pool.assertWhole();
        }
        assertThat(log.lines()).allMatch(line -> line.contains("left a transaction open"));
        assertThat(drops.errors()).allMatch(error -> "as wanted".equals(error.getMessage()));
        assertThat(completed).hasValueGreaterThan(SCOPES / 4);
        assertThat(cancelled).hasValueGreaterThan(SCOPES / 50);
        assertThat(rows).hasValueGreaterThan(SCOPES);
        assertThat(Postgres.number("select count(*) from tenants where n <= 0 or tenant not like 't_'"))
                .isZero();
    }

    private Mono<Void> scope(WatchedPool pool, int number, long seed) {
        Random random = new Random(seed);
        String tenant = "t" + number % TENANTS;
        ScopeShape shape = SHAPES.get(random.nextInt(SHAPES.size()));
        boolean leaves = random.nextInt(3) == 0;
        Duration patience = Duration.ofNanos(random.nextInt(3_000_000));
        Flux<Integer> scope = shape.around(pool.scopes, c -> work(c, tenant, random, shape.transactional));
        return (leaves ? scope.takeUntilOther(Mono.delay(patience).doOnNext(x -> cancelled.incrementAndGet())) : scope)
                .contextWrite(context -> drops.watch(context).put("tenant", tenant))
                .onErrorResume(IllegalStateException.class, e -> Flux.empty())
                .doOnError(e -> offences.add("scope " + number + " failed: " + e))
                .onErrorComplete()
                .then()
                .doOnSuccess(done -> completed.incrementAndGet());
    }

    private Publisher<Integer> work(Connection c, String tenant, Random random, boolean transactional) {
        Flux<Integer> seen = Flux.from(
                        c.createStatement("select tenant, n from tenants").execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, String.class)))
                .doOnNext(found -> {
                    rows.incrementAndGet();
                    if (!tenant.equals(found)) {
                        offences.add(tenant + " saw a row of " + found);
                    }
                })
                .collectList()
                .doOnNext(all -> {
                    if (all.size() != ROWS) {
                        offences.add(tenant + " saw " + all.size() + " rows");
                    }
                })
                .map(List::size)
                .flux();
        Flux<Integer> unfiltered = Rows.update(c, "update tenants set n = n + 0")
                .map(Long::intValue)
                .doOnNext(count -> {
                    if (count != ROWS) {
                        offences.add(tenant + " changed " + count + " rows");
                    }
                });
        return switch (random.nextInt(8)) {
            case 0 -> Mono.from(c.setStatementTimeout(Duration.ofSeconds(7))).thenMany(seen);
            case 1 -> Mono.from(c.setLockWaitTimeout(Duration.ofSeconds(7))).thenMany(seen);
            case 2 ->
                transactional
                        ? seen
                        : Mono.from(c.setTransactionIsolationLevel(IsolationLevel.REPEATABLE_READ))
                                .thenMany(seen);
            case 3 -> transactional ? seen : Mono.from(c.setAutoCommit(false)).thenMany(seen);
            case 4 -> seen.concatWith(Mono.error(new IllegalStateException("as wanted")));
            case 5 -> unfiltered;
            default -> seen.concatWith(seen);
        };
    }

    /** Another borrower, who knows nothing of scopes. */
    private Mono<Void> borrower(WatchedPool pool) {
        return Flux.usingWhen(
                        pool.pool.create(),
                        c -> Rows.ints(c, CLEAN).doOnNext(clean -> {
                            if (clean != 1 || !c.isAutoCommit()) {
                                offences.add("a setting was left");
                            }
                        }),
                        Connection::close)
                .then();
    }
}
