package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.PartitionedRead;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.function.Function;
import java.util.function.IntFunction;
import java.util.function.UnaryOperator;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Scopes on a real PgBouncer that hands out 2 sessions of the server to 6 clients, one transaction at a time. */
class PgBouncerIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final int CLIENTS = 6;
    private static final int SERVERS = 2;
    private static final int ROWS = 5_000;

    private static PgBouncer bouncer;

    private WatchedPool pool;
    private ConnectionScopes scopes;

    @BeforeAll
    static void start() {
        bouncer = PgBouncer.inFrontOf(Postgres.port(), SERVERS);
        Postgres.execute("create table pooled (id int primary key, amount int not null)");
        Postgres.execute("insert into pooled select i, 0 from generate_series(1, " + ROWS + ") i");
    }

    @AfterAll
    static void stop() {
        if (bouncer != null) {
            bouncer.close();
        }
    }

    @BeforeEach
    void open() {
        pool = pool(0, o -> o);
        scopes = pool.scopes;
    }

    @AfterEach
    void close() {
        pool.awaitQuiet();
        assertThat(pool.inState("idle in transaction%")).isZero();
        pool.close();
    }

    private static WatchedPool pool(int cachedStatements, UnaryOperator<ScopeOptions> options) {
        return WatchedPool.to(
                CLIENTS,
                c -> c.port(bouncer.port()).preparedStatementCacheQueries(cachedStatements),
                o -> options.apply(o.withTransactionPooling(true)));
    }

    /** Runs something on all clients at once, many times. */
    private <T> List<T> crowd(int times, IntFunction<Mono<T>> work) {
        return Flux.range(0, times)
                .flatMapSequential(work::apply, CLIENTS)
                .collectList()
                .blockOptional(LONG)
                .orElseThrow();
    }

    @Test
    void boundStatementsOfAllClientsGiveTheirOwnResults() {
        List<Integer> results = crowd(
                600,
                i -> scopes.withConnection(c -> Rows.ints(
                        c.createStatement("select $1::int * 1000 + " + i % 17).bind(0, i))));
        assertThat(results)
                .isEqualTo(
                        IntStream.range(0, 600).mapToObj(i -> i * 1000 + i % 17).toList());
        assertThat(pool.destroyed()).isZero();
    }

    @Test
    void aDriverThatCachesStatementsIsRefusedByAllClientsBeforeTheirFirstStatement() {
        for (int cached : List.of(-1, 5)) {
            try (WatchedPool caching = pool(cached, o -> o)) {
                List<String> ends = crowd(
                        60,
                        i -> caching.scopes
                                .inTransaction(c -> Rows.ints(c.createStatement("select $1::int + " + i % 7)
                                        .bind(0, i)))
                                .map(String::valueOf)
                                .onErrorResume(TransactionPoolingException.class, e -> Mono.just(e.getMessage())));
                assertThat(ends).hasSize(60).allMatch(end -> end.contains("preparedStatementCacheQueries(0)"));
                caching.awaitQuiet();
                assertThat(caching.pool.getMetrics().orElseThrow().allocatedSize())
                        .isZero();
            }
        }
        assertThat(scopes.withConnection(c ->
                                Rows.ints(c.createStatement("select $1::int").bind(0, 4)))
                        .block(LONG))
                .isEqualTo(4);
    }

    @Test
    void transactionsOfAllClientsKeepToThemselves() {
        ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
        crowd(
                300,
                i -> scopes.inTransaction(c -> add(c, 1)
                                .then(nested.inTransaction(
                                                s -> add(s, 1000).then(Mono.error(new IllegalStateException())))
                                        .onErrorComplete(IllegalStateException.class))
                                .then(i % 3 == 0 ? Mono.error(new IllegalArgumentException()) : Mono.just(i)))
                        .onErrorReturn(IllegalArgumentException.class, i));
        assertThat(Postgres.number("select amount from pooled where id = 1")).isEqualTo(200);
        Postgres.execute("update pooled set amount = 0");
    }

    private static Mono<Long> add(Connection connection, int amount) {
        return Rows.update(connection
                        .createStatement("update pooled set amount = amount + $1 where id = 1")
                        .bind(0, amount))
                .next();
    }

    @Test
    void readsWithAFetchSizeAreWholeInsideAndOutsideATransaction() {
        List<Long> sums = crowd(24, i -> {
            Function<Connection, Flux<Integer>> read =
                    c -> Rows.ints(c.createStatement("select id from pooled where id > $1 order by id")
                            .bind(0, i)
                            .fetchSize(500));
            Flux<Integer> rows = i % 2 == 0 ? scopes.inTransactionMany(read) : scopes.withConnectionMany(read);
            return rows.reduce(0L, Long::sum);
        });
        long all = (long) ROWS * (ROWS + 1) / 2;
        assertThat(sums)
                .isEqualTo(IntStream.range(0, 24)
                        .mapToObj(i -> all - (long) i * (i + 1) / 2)
                        .toList());
    }

    @Test
    void settingsAndTimeoutsOfATransactionReachNobodyElse() {
        SessionSettings tenant =
                SessionSettings.none().fromContext("app.tenant", context -> context.getOrDefault("tenant", null));
        ConnectionScopes tenants = pool.with(o -> o.withTransactionPooling(true)
                .withSettings(tenant)
                .withStatementTimeout(Duration.ofSeconds(44))
                .withLockWaitTimeout(Duration.ofSeconds(43)));
        String seen = "select coalesce(current_setting('app.tenant', true), '') || '/' ||"
                + " current_setting('statement_timeout') || '/' || current_setting('lock_timeout')";
        List<String> all = crowd(300, i -> {
            ConnectionScopes who = i % 2 == 0 ? tenants : scopes;
            return who.inTransaction(c -> Flux.from(c.createStatement(seen).execute())
                            .flatMap(result -> result.map(row -> row.get(0, String.class))))
                    .contextWrite(context -> context.put("tenant", "t" + i));
        });
        assertThat(all)
                .isEqualTo(IntStream.range(0, 300)
                        .mapToObj(i -> i % 2 == 0 ? "t" + i + "/44s/43s" : "/0/0")
                        .toList());
    }

    @Test
    void whatWouldReachOthersIsRefused() {
        ConnectionScopes slow =
                pool.with(o -> o.withTransactionPooling(true).withStatementTimeout(Duration.ofSeconds(1)));
        assertThatThrownBy(() -> slow.withConnection(c -> Mono.just(1)).block(LONG))
                .isInstanceOf(TransactionPoolingException.class);
        assertThatThrownBy(
                        () -> scopes.withConnection(AdvisoryLock.of(1)::acquire).block(LONG))
                .isInstanceOf(TransactionPoolingException.class);
    }

    @Test
    void locksOfATransactionLetOneClientInAtATime() {
        AdvisoryLock lock = AdvisoryLock.of("PgBouncerIT").forTransaction();
        Postgres.execute("create table if not exists counted (n int)");
        Postgres.execute("truncate counted");
        crowd(
                60,
                i -> lock.during(
                        scopes,
                        c -> Rows.ints(c, "select count(*)::int from counted")
                                .next()
                                .flatMapMany(n -> Rows.update(c.createStatement("insert into counted values ($1)")
                                        .bind(0, n)))));
        assertThat(Postgres.number("select count(distinct n) from counted")).isEqualTo(60);
    }

    @Test
    void whoCancelsFreesTheServersSessionsForTheNext() {
        for (int i = 0; i < 5; i++) {
            List<Disposable> sleepers = IntStream.range(0, SERVERS)
                    .mapToObj(n -> scopes.inTransaction(c -> Rows.ints(c, "select 1 from pg_sleep(30)"))
                            .subscribe())
                    .toList();
            Await.until(() -> sleeping() == SERVERS, () -> "nobody sleeps");
            sleepers.forEach(Disposable::dispose);
            assertThat(crowd(
                            12,
                            n -> scopes.withConnection(c -> Rows.ints(
                                    c.createStatement("select $1::int").bind(0, n)))))
                    .isEqualTo(IntStream.range(0, 12).boxed().toList());
            pool.awaitQuiet();
        }
        assertThat(sleeping()).isZero();
        assertThat(pool.destroyed()).isZero();
    }

    private static long sleeping() {
        return Postgres.number("select count(*) from pg_stat_activity where query like 'select 1 from pg_sleep(30)%'"
                + " and state = 'active' and pid <> pg_backend_pid()");
    }

    @Test
    void bulkWritesOfAllClientsAreWhole() {
        Postgres.execute("create table if not exists bulk_copied (id int primary key);"
                + "create table if not exists bulk_nested (id int primary key)");
        CopyIn<Integer> copy = CopyIn.<Integer>into("bulk_copied").column("id", CopyType.INTEGER, i -> i);
        UnnestWriter<Integer> unnest = UnnestWriter.<Integer>into("bulk_nested").column("id", "int", i -> i);
        crowd(12, i -> copy.write(scopes, Flux.range(i * 1_000, 1_000)));
        crowd(12, i -> unnest.write(scopes, Flux.range(i * 1_000, 1_000)));
        assertThat(Postgres.number("select count(*) from bulk_copied")).isEqualTo(12_000);
        assertThat(Postgres.number("select count(*) from bulk_nested")).isEqualTo(12_000);
        assertThat(pool.destroyed()).isZero();
    }

    @Test
    void aReadInPartsIsWhole() {
        List<Integer> ids = PartitionedRead.ofTable("pooled")
                .withPartitions(5)
                .withConnections(SERVERS - 1)
                .withFetchSize(100)
                .read(scopes, (row, metadata) -> row.get("id", Integer.class))
                .collectList()
                .blockOptional(LONG)
                .orElseThrow();
        assertThat(ids)
                .containsExactlyInAnyOrderElementsOf(
                        IntStream.rangeClosed(1, ROWS).boxed().toList());
    }

    @Test
    void errorsOfTheDatabasePassThroughAndTheConnectionServesOn() {
        for (int i = 0; i < 20; i++) {
            assertThatThrownBy(() -> scopes.inTransaction(c -> Rows.ints(c, "select 1 / 0"))
                            .block(LONG))
                    .isInstanceOf(R2dbcException.class);
        }
        assertThat(pool.destroyed()).isZero();
    }
}
