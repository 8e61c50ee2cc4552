package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.Queue;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Tenants that share three connections, while the server ends some of them, statements fail, and subscribers leave at every
 * moment: nobody ever runs as somebody else, and a borrower without a tenant runs as none.
 */
class TenantsUnderFaultsIT {

    private static final int SCOPES = Integer.getInteger("tenants.faults", 300);
    private static final int TENANTS = 4;
    private static final Duration LONG = Duration.ofMinutes(10);

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final Queue<String> offences = new ConcurrentLinkedQueue<>();
    private final AtomicInteger seen = new AtomicInteger();
    private final AtomicInteger clean = new AtomicInteger();
    private final AtomicInteger failed = new AtomicInteger();
    private final Drops drops = new Drops();

    @Test
    void noneEverRunsAsAnother() {
        long seed = System.nanoTime();
        Random random = new Random(seed);
        SessionSettings settings = SessionSettings.none()
                .fromContext("app.tenant", context -> context.getOrDefault("tenant", null))
                .with("work_mem", "1234kB");
        try (WatchedPool pool = WatchedPool.of(3)) {
            ConnectionScopes tenants = pool.with(options -> options.withSettings(settings)
                    .withReleaseTimeout(Duration.ofSeconds(2))
                    .withStatementTimeout(Duration.ofSeconds(40)));
            Flux.range(0, SCOPES)
                    .flatMap(i -> i % 10 == 0 ? borrower(pool) : scope(tenants, i, random.nextLong()), 6)
                    .blockLast(LONG);
            pool.awaitQuiet();
            Flux.range(0, 6).concatMap(i -> borrower(pool)).blockLast(LONG);
            pool.assertWhole();
        }
        assertThat(offences).as("seed " + seed).isEmpty();
        assertThat(seen).hasValueGreaterThan(SCOPES / 4);
        assertThat(clean).hasValueGreaterThan(SCOPES / 20);
        assertThat(failed).hasValueGreaterThan(SCOPES / 20);
    }

    private Mono<Void> scope(ConnectionScopes tenants, int number, long seed) {
        Random random = new Random(seed);
        String tenant = "t" + number % TENANTS;
        boolean transactional = random.nextBoolean();
        int what = random.nextInt(12);
        Duration patience = Duration.ofNanos(random.nextInt(5_000_000));
        Flux<Integer> scope = transactional
                ? tenants.inTransactionMany(c -> work(c, tenant, what))
                : tenants.withConnectionMany(c -> work(c, tenant, what));
        return (random.nextInt(3) == 0 ? scope.takeUntilOther(Mono.delay(patience)) : scope)
                .contextWrite(context -> drops.watch(context).put("tenant", tenant))
                .doOnError(e -> failed.incrementAndGet())
                .onErrorComplete()
                .then();
    }

    private Flux<Integer> work(Connection connection, String tenant, int what) {
        Flux<Integer> asked = whoAmI(connection)
                .doOnNext(found -> {
                    seen.incrementAndGet();
                    if (!tenant.equals(found)) {
                        offences.add(tenant + " ran as " + found);
                    }
                })
                .map(String::length);
        Flux<Integer> fault = switch (what) {
            case 0 -> Rows.ints(connection, "select 1 / 0");
            case 1 -> Rows.ints(connection, "select pg_terminate_backend(pg_backend_pid())::int");
            case 2 -> Flux.error(new IllegalStateException("as wanted"));
            case 3 -> Rows.ints(connection, "select 1 from pg_sleep(0.02)");
            default -> Flux.empty();
        };
        return asked.concatWith(fault).concatWith(asked);
    }

    private static Flux<String> whoAmI(Connection connection) {
        return Flux.from(connection
                        .createStatement(
                                "select coalesce(current_setting('app.tenant', true), '')"
                                        + " || case current_setting('work_mem') when '4MB' then '' when '1234kB' then '' else '?' end")
                        .execute())
                .concatMap(result -> result.map((row, metadata) -> row.get(0, String.class)));
    }

    /** Another borrower, who knows nothing of scopes; the server may have ended the connection that it gets. */
    private Mono<Void> borrower(WatchedPool pool) {
        return Flux.usingWhen(
                        pool.pool.create(),
                        c -> Rows.ints(
                                        c,
                                        "select (coalesce(current_setting('app.tenant', true), '') = ''"
                                                + " and current_setting('work_mem') = '4MB'"
                                                + " and current_setting('statement_timeout') = '0')::int")
                                .doOnNext(all -> {
                                    clean.incrementAndGet();
                                    if (all != 1) {
                                        offences.add("a setting was left");
                                    }
                                }),
                        Connection::close)
                .then()
                .onErrorComplete(io.r2dbc.spi.R2dbcException.class);
    }
}
