package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.postgresql.Partition;
import dev.r2dbcscope.postgresql.PartitionedRead;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

class PartitionedReadIT {

    private static final Duration BOUND = Duration.ofSeconds(60);
    private static final int ROWS = 20_000;

    private WatchedPool watched = WatchedPool.of(4);

    @BeforeAll
    static void table() {
        Postgres.execute(
                "drop table if exists parted; create table parted (id bigint primary key, amount bigint not null);"
                        + " insert into parted select n, 1000 from generate_series(1, " + ROWS + ") n; analyze parted");
    }

    @AfterAll
    static void noTable() {
        Postgres.execute("drop table parted");
    }

    @AfterEach
    void nothingIsHeld() {
        watched.assertWhole();
        assertThat(watched.destroyed()).isZero();
        watched.close();
    }

    private void use(WatchedPool other) {
        watched.close();
        watched = other;
    }

    private static PartitionedRead parted() {
        return PartitionedRead.ofTable("parted")
                .withPartitions(8)
                .withConnections(4)
                .withFetchSize(100);
    }

    private static PartitionedRead withPid() {
        return PartitionedRead.ofQuery("select id, pg_backend_pid() as pid from parted", "id")
                .withPartitions(8)
                .withFetchSize(100);
    }

    private List<Long> ids(PartitionedRead read) {
        return read.read(watched.scopes, (row, metadata) -> row.get("id", Long.class))
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
    }

    private static List<Long> all() {
        return IntStream.rangeClosed(1, ROWS).mapToObj(Long::valueOf).toList();
    }

    @Nested
    class Rows {

        @ParameterizedTest
        @CsvSource({"1, 1", "4, 1", "4, 4", "7, 2", "64, 4"})
        void areReadOnceEachByKey(int partitions, int connections) {
            assertThat(ids(parted().byKey("id").withPartitions(partitions).withConnections(connections)))
                    .containsExactlyInAnyOrderElementsOf(all());
        }

        @ParameterizedTest
        @CsvSource({"1, 1", "4, 2", "16, 4", "1000, 4"})
        void areReadOnceEachByBlocks(int partitions, int connections) {
            assertThat(ids(parted().withPartitions(partitions).withConnections(connections)))
                    .containsExactlyInAnyOrderElementsOf(all());
        }

        @ParameterizedTest
        @CsvSource({"1, 1", "4, 4", "13, 2", "64, 4"})
        void areInOrderWhereThatIsChosen(int partitions, int connections) {
            assertThat(ids(parted().byKey("id")
                            .withOrder(true)
                            .withPartitions(partitions)
                            .withConnections(connections)))
                    .isEqualTo(all());
            assertThat(ids(parted().withOrder(true).withPartitions(partitions).withConnections(connections)))
                    .isEqualTo(all());
        }

        @Test
        void ofAQueryWithParametersAreReadOnceEach() {
            PartitionedRead read = PartitionedRead.ofQuery(
                            "select id from parted where id % $1::bigint = $2::bigint", "id", 10L, 3L)
                    .withPartitions(5);
            assertThat(ids(read))
                    .containsExactlyInAnyOrderElementsOf(
                            all().stream().filter(id -> id % 10 == 3).toList());
        }

        @Test
        void haveTheChosenColumnsOnly() {
            List<Integer> widths = parted().withColumns("amount")
                    .withPartitions(2)
                    .read(
                            watched.scopes,
                            (row, metadata) -> metadata.getColumnMetadatas().size())
                    .distinct()
                    .collectList()
                    .block(BOUND);
            assertThat(widths).containsExactly(1);
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "bigint    | -9223372036854775808,9223372036854775807,0,5,5,5,null,null",
                "smallint  | -32768,32767,1",
                "int       | null",
                "int       | 7,7,7",
                "int       | 1,2,3",
                "numeric   | -1e2000,NaN,0.1,0.2,1e300,null,1e2000",
                "real      | NaN,Infinity,-Infinity,1e-45,-3.4e38,3.4e38,0,-0,null",
                "double precision | NaN,Infinity,-Infinity,5e-324,1.7e308,-1.7e308,1,2",
                "date      | infinity,-infinity,4713-01-01 BC,5874897-12-31,2026-01-01,null",
                "timestamp | infinity,-infinity,4713-01-01 BC,294276-12-31 23:59:59.999999,2026-01-01 10:00,null",
                "timestamptz | 2026-01-01 10:00:00+02,2026-01-01 10:00:00.000001+02,2025-01-01 00:00:00Z,infinity",
                "uuid      | 00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff,018f0000-0000-7000-8000-000000000001,null",
                "uuid      | 018f0000-0000-7000-8000-000000000001,018f0000-0000-7000-8000-000000000002",
            })
    void everyKeyIsInOnePartition(String type, String values) {
        Postgres.execute(
                "drop table if exists keyed; create table keyed (\"K y\" " + type + "); insert into keyed select"
                        + " nullif(v, 'null')::" + type + " from unnest(string_to_array('" + values + "', ',')) v");
        String shown = "coalesce(\"K y\"::text, 'NULL')";
        List<String> expected = watched.scopes
                .withConnectionMany(connection -> Flux.from(connection
                                .createStatement("select " + shown + " from keyed order by \"K y\"")
                                .execute())
                        .concatMap(result -> result.map((row, metadata) -> String.valueOf(row.get(0, String.class)))))
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
        for (int partitions : new int[] {1, 2, 3, 10}) {
            PartitionedRead read = PartitionedRead.ofQuery("select \"K y\", " + shown + " as shown from keyed", "K y")
                    .withPartitions(partitions)
                    .withOrder(true);
            assertThat(read.read(watched.scopes, (row, metadata) -> String.valueOf(row.get("shown", String.class)))
                            .collectList()
                            .block(BOUND))
                    .as(partitions + " partitions")
                    .isEqualTo(expected);
            List<Partition> split = watched.scopes
                    .withConnection(read::partitions)
                    .blockOptional(BOUND)
                    .orElseThrow();
            assertThat(split).hasSizeBetween(1, partitions + 1);
        }
        Postgres.execute("drop table keyed");
    }

    @Test
    void anEmptyTableHasNoRowsAndOnePartition() {
        Postgres.execute("drop table if exists keyed; create table keyed (id bigint)");
        assertThat(ids(PartitionedRead.ofTable("keyed"))).isEmpty();
        assertThat(ids(PartitionedRead.ofTable("public", "keyed").byKey("id"))).isEmpty();
        assertThat(watched.scopes
                        .withConnection(PartitionedRead.ofTable("keyed").byKey("id")::partitions)
                        .block(BOUND))
                .hasSize(1);
        Postgres.execute("drop table keyed");
    }

    @Test
    void blocksOfATableOfPartitionsAndOfItsChildrenAreReadOnce() {
        Postgres.execute("drop table if exists whole; create table whole (id bigint) partition by range (id);"
                + " create table whole_1 partition of whole for values from (0) to (5000);"
                + " create table whole_2 partition of whole for values from (5000) to (1000000);"
                + " insert into whole select n from generate_series(1, " + ROWS + ") n;"
                + " update whole set id = id where id % 3 = 0; delete from whole where id = 77");
        List<Long> rows = ids(PartitionedRead.ofTable("whole").withPartitions(9));
        assertThat(rows).hasSize(ROWS - 1).doesNotHaveDuplicates();
        assertThat(watched.scopes
                        .withConnection(PartitionedRead.ofTable("whole").withPartitions(9)::partitions)
                        .block(BOUND))
                .hasSize(9);
        Postgres.execute("drop table whole");
    }

    @Test
    void aKeyOfAnotherTypeIsRefused() {
        assertThatThrownBy(() -> ids(PartitionedRead.ofQuery("select id, id::text as t from parted", "t")))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("text");
        assertThatThrownBy(() -> ids(parted().byKey("no such"))).hasMessageContaining("no such");
    }

    @Nested
    class OneSnapshot {

        private final AtomicBoolean stop = new AtomicBoolean();
        private final WatchedPool writers = WatchedPool.of(2, options -> options.withReleaseTimeout(BOUND));

        /** Moves amounts between rows, and rows between places, so that the sum is always the same. */
        private Disposable disturb() {
            return Flux.range(0, 2)
                    .flatMap(i -> Mono.defer(() -> writers.scopes.inTransaction(connection -> {
                                ThreadLocalRandom random = ThreadLocalRandom.current();
                                long from = 1 + random.nextInt(ROWS);
                                long to = 1 + random.nextInt(ROWS);
                                return dev.r2dbcscope.Rows.update(
                                                connection,
                                                "update parted set amount = amount - 7 where id = (select id from parted"
                                                        + " where id >= " + from + " order by id limit 1)")
                                        .then()
                                        .thenMany(dev.r2dbcscope.Rows.update(
                                                connection,
                                                "update parted set amount = amount + 7 where id = (select id from parted"
                                                        + " where id >= " + to + " order by id limit 1)"))
                                        .then()
                                        .thenMany(dev.r2dbcscope.Rows.update(
                                                connection,
                                                "with gone as (delete from parted where id = " + from
                                                        + " returning id, amount) insert into parted select id + "
                                                        + ROWS + ", amount from gone"))
                                        .then()
                                        .thenMany(dev.r2dbcscope.Rows.update(
                                                connection,
                                                "with gone as (delete from parted where id = " + (from + ROWS)
                                                        + " and id % 2 = 0 returning id, amount)"
                                                        + " insert into parted select id - " + ROWS
                                                        + ", amount from gone"))
                                        .then(Mono.just(1));
                            }))
                            .onErrorResume(io.r2dbc.spi.R2dbcException.class, e -> Mono.empty())
                            .repeat(() -> !stop.get()))
                    .subscribe();
        }

        private long total() {
            return Postgres.number("select sum(amount)::bigint from parted");
        }

        @AfterEach
        void calm() {
            stop.set(true);
            writers.awaitQuiet();
            writers.close();
            table();
        }

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void isWhatAllPartitionsShow(boolean byKey) {
            long total = total();
            disturb();
            String columns = "id, amount, pg_catalog.pg_current_snapshot()::text as s, pg_backend_pid() as pid";
            for (int round = 0; round < 4; round++) {
                PartitionedRead read = byKey
                        ? PartitionedRead.ofQuery("select " + columns + " from parted", "id")
                        : PartitionedRead.ofTable("parted");
                Set<String> snapshots = ConcurrentHashMap.newKeySet();
                List<long[]> rows = read.withPartitions(4)
                        .withFetchSize(200)
                        .read(watched.scopes, (row, metadata) -> {
                            if (byKey) {
                                snapshots.add(String.valueOf(row.get("s", String.class)));
                            }
                            return new long[] {
                                java.util.Objects.requireNonNull(row.get("id", Long.class)),
                                java.util.Objects.requireNonNull(row.get("amount", Long.class))
                            };
                        })
                        .collectList()
                        .blockOptional(BOUND)
                        .orElseThrow();
                assertThat(rows.stream().mapToLong(row -> row[1]).sum()).isEqualTo(total);
                assertThat(rows).hasSize(ROWS);
                Set<Long> ids = new HashSet<>();
                rows.forEach(row -> ids.add(row[0]));
                assertThat(ids).hasSize(ROWS);
                assertThat(snapshots).hasSize(byKey ? 1 : 0);
            }
        }

        /** What one statement sees on the exported snapshot is what the partitions see, each in a process of its own. */
        @Test
        void isExportedToOtherProcesses() {
            disturb();
            PartitionedRead read = parted().byKey("id");
            for (int round = 0; round < 2; round++) {
                WatchedPool others = WatchedPool.of(2);
                Mono<Boolean> same = watched.scopes
                        .transactions(TransactionOptions.defaults()
                                .withIsolation(IsolationLevel.REPEATABLE_READ)
                                .withReadOnly(true))
                        .inTransaction(connection -> read.export(connection)
                                .map(PartitionedReadIT::sent)
                                .flatMap(partitions -> Flux.fromIterable(partitions)
                                        .flatMap(
                                                one -> one.read(
                                                        others.scopes,
                                                        100,
                                                        (row, metadata) -> row.get("id", Long.class) + ":"
                                                                + row.get("amount", Long.class)),
                                                2)
                                        .collectList())
                                .flatMap(rows -> Flux.from(connection
                                                .createStatement("select id || ':' || amount from parted")
                                                .execute())
                                        .concatMap(result ->
                                                result.map((row, metadata) -> String.valueOf(row.get(0, String.class))))
                                        .collectList()
                                        .map(expected -> {
                                            assertThat(rows).containsExactlyInAnyOrderElementsOf(expected);
                                            return true;
                                        })));
                assertThat(same.block(BOUND)).isTrue();
                others.assertWhole();
                others.close();
            }
        }
    }

    private static List<Partition> sent(List<Partition> partitions) {
        try {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
                out.writeObject(new ArrayList<>(partitions));
            }
            List<Partition> received = new ArrayList<>();
            try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
                ((List<?>) in.readObject()).forEach(one -> received.add((Partition) one));
            }
            assertThat(received).isEqualTo(partitions);
            return received;
        } catch (java.io.IOException | ClassNotFoundException e) {
            throw new AssertionError(e);
        }
    }

    @Test
    void aSnapshotThatIsNotThereAnyMoreFails() {
        List<Partition> partitions = watched.scopes
                .transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.REPEATABLE_READ))
                .inTransaction(parted().byKey("id")::export)
                .blockOptional(BOUND)
                .orElseThrow();
        assertThatThrownBy(() -> partitions
                        .get(0)
                        .read(watched.scopes, 10, (row, metadata) -> 1)
                        .blockLast(BOUND))
                .isInstanceOf(io.r2dbc.spi.R2dbcException.class);
        Partition forged = new Partition(0, "select 1", List.of(), "x'; drop table parted; --");
        assertThatThrownBy(() ->
                        forged.read(watched.scopes, 10, (row, metadata) -> 1).blockLast(BOUND))
                .isInstanceOf(IllegalArgumentException.class);
    }

    @Nested
    class Connections {

        private Set<Integer> pids(PartitionedRead read) {
            Set<Integer> pids = ConcurrentHashMap.newKeySet();
            List<Long> rows = read.read(watched.scopes, (row, metadata) -> {
                        pids.add(java.util.Objects.requireNonNull(row.get("pid", Integer.class)));
                        return java.util.Objects.requireNonNull(row.get("id", Long.class));
                    })
                    .collectList()
                    .blockOptional(BOUND)
                    .orElseThrow();
            assertThat(rows).containsExactlyInAnyOrderElementsOf(all());
            return pids;
        }

        @Test
        void areNoMoreThanAskedFor() {
            assertThat(pids(withPid().withConnections(2))).hasSizeBetween(1, 2);
            assertThat(pids(withPid().withConnections(4).withPartitions(2))).hasSizeBetween(1, 2);
        }

        @Test
        void workAtTheSameTime() {
            AtomicInteger barrier = new AtomicInteger();
            PartitionedRead waiting = PartitionedRead.ofQuery("select id, pg_backend_pid() as pid from parted", "id")
                    .withPartitions(4)
                    .withConnections(4)
                    .withFetchSize(100);
            Set<Integer> pids = ConcurrentHashMap.newKeySet();
            // each partition's first row is kept until all four have come
            Flux<Integer> rows = waiting.read(watched.scopes, (row, metadata) -> {
                if (pids.add(java.util.Objects.requireNonNull(row.get("pid", Integer.class)))) {
                    barrier.incrementAndGet();
                }
                return 1;
            });
            reactor.test.StepVerifier.create(rows, 0)
                    .thenRequest(1)
                    .expectNext(1)
                    .then(() -> Await.until(() -> barrier.get() == 4, () -> "readers: " + barrier.get()))
                    .thenRequest(Long.MAX_VALUE)
                    .expectNextCount(ROWS - 1)
                    .expectComplete()
                    .verify(BOUND);
        }

        @ParameterizedTest
        @ValueSource(ints = {1, 2, 3})
        void sufficeEvenIfThePoolHasFewer(int size) {
            use(WatchedPool.of(size));
            assertThat(pids(withPid().withConnections(8))).hasSizeBetween(1, size);
            assertThat(ids(parted().byKey("id").withConnections(8).withOrder(true)))
                    .isEqualTo(all());
        }

        @Test
        void ofASmallPoolServeSeveralReadsAtOnce() {
            use(WatchedPool.of(2));
            List<Long> counts = Flux.range(0, 6)
                    .flatMap(i -> parted().byKey("id")
                            .withOrder(i % 2 == 0)
                            .read(watched.scopes, (row, metadata) -> 1)
                            .count())
                    .collectList()
                    .blockOptional(BOUND)
                    .orElseThrow();
            assertThat(counts).hasSize(6).containsOnly((long) ROWS);
        }

        @Test
        void ofItsOwnAreTakenInsideATransaction() {
            use(WatchedPool.of(2));
            Mono<Long> count = watched.scopes.inTransaction(
                    (Connection outer) -> dev.r2dbcscope.Rows.update(outer, "update parted set amount = amount")
                            .then(parted().byKey("id")
                                    .read(watched.scopes, (row, metadata) -> 1)
                                    .count())
                            .delayUntil(rows -> CurrentScope.get().doOnNext(CurrentScope::setRollbackOnly)));
            assertThat(count.block(BOUND)).isEqualTo(ROWS);
        }

        @Test
        void thatCanNeverBeHadInsideATransactionFailAtOnce() {
            use(WatchedPool.of(1));
            assertThatThrownBy(() -> watched.scopes
                            .inTransactionMany(outer -> parted().read(watched.scopes, (row, metadata) -> 1))
                            .blockLast(BOUND))
                    .isInstanceOf(NestedAcquireDeadlockException.class);
        }

        @Test
        void insideAPlainScopeAreItsOwnOne() {
            use(WatchedPool.of(1));
            Mono<Long> count = watched.scopes.withConnection(outer -> parted().byKey("id")
                    .read(watched.scopes, (row, metadata) -> 1)
                    .count());
            assertThat(count.block(BOUND)).isEqualTo(ROWS);
        }

        @Test
        void mayHaveSettingsAndTimeLimits() {
            use(WatchedPool.of(
                    3,
                    options -> options.withSettings(SessionSettings.none().withApplicationName("partitioned"))
                            .withStatementTimeout(Duration.ofSeconds(50))
                            .withLockWaitTimeout(Duration.ofSeconds(50))));
            Set<String> names = ConcurrentHashMap.newKeySet();
            Set<Integer> pids = ConcurrentHashMap.newKeySet();
            Flux<Integer> rows = PartitionedRead.ofQuery(
                            "select id, pg_backend_pid() as pid, current_setting('application_name') || ' '"
                                    + " || current_setting('statement_timeout') as n from parted",
                            "id")
                    .withFetchSize(100)
                    .read(watched.scopes, (row, metadata) -> {
                        names.add(String.valueOf(row.get("n", String.class)));
                        pids.add(java.util.Objects.requireNonNull(row.get("pid", Integer.class)));
                        return 1;
                    });
            reactor.test.StepVerifier.create(rows, 0)
                    .thenRequest(1)
                    .expectNext(1)
                    .then(() -> Await.until(() -> pids.size() == 3, () -> "readers: " + pids.size()))
                    .thenRequest(Long.MAX_VALUE)
                    .expectNextCount(ROWS - 1)
                    .expectComplete()
                    .verify(BOUND);
            assertThat(names).containsExactly("partitioned 50s");
        }
    }

    @Test
    void readsAheadABoundedNumberOfRows() {
        AtomicInteger mapped = new AtomicInteger();
        Probe<Integer> probe = Probe.requesting(1);
        parted().byKey("id")
                .withOrder(true)
                .withFetchSize(50)
                .withPartitions(4)
                .read(watched.scopes, (row, metadata) -> mapped.incrementAndGet())
                .subscribe(probe);
        Await.until(() -> mapped.get() >= 150, () -> "mapped " + mapped);
        // the readers are given time to do what they should not
        for (int i = 0; i < 100; i++) {
            assertThat(watched.backends()).hasSize(4);
        }
        assertThat(mapped.get()).isLessThanOrEqualTo(4 * 4 * 50);
        assertThat(probe.values()).hasSize(1);
        probe.request(Long.MAX_VALUE);
        assertThat(probe.awaitEnd().values()).hasSize(ROWS);
    }

    @Nested
    class Endings {

        @ParameterizedTest
        @ValueSource(ints = {0, 1, 2_500, 19_999})
        void anErrorOfOnePartitionEndsAll(int at) {
            AtomicInteger seen = new AtomicInteger();
            Drops drops = new Drops();
            assertThatThrownBy(() -> parted().byKey("id")
                            .read(watched.scopes, (row, metadata) -> {
                                if (seen.getAndIncrement() == at) {
                                    throw new ArithmeticException("mapping");
                                }
                                return 1;
                            })
                            .contextWrite(drops::watch)
                            .blockLast(BOUND))
                    .isInstanceOf(ArithmeticException.class)
                    .hasMessage("mapping");
            assertThat(drops.errors()).isEmpty();
        }

        @Test
        void anErrorOfTheServerIsTheOneThatIsSeen() {
            assertThatThrownBy(() -> ids(PartitionedRead.ofQuery("select id, 1 / (id - 15000) from parted", "id")))
                    .hasMessageContaining("division by zero");
        }

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void aCancelEndsAll(boolean ordered) {
            for (int round = 0; round < 20; round++) {
                int after = round * round * 30;
                Drops drops = new Drops();
                List<Integer> taken = parted().byKey("id")
                        .withOrder(ordered)
                        .read(watched.scopes, (row, metadata) -> 1)
                        .take(after)
                        .contextWrite(drops::watch)
                        .collectList()
                        .blockOptional(BOUND)
                        .orElseThrow();
                assertThat(taken).hasSize(after);
                watched.awaitQuiet();
                assertThat(drops.errors()).isEmpty();
            }
        }

        @Test
        void aCancelAtAnyMomentEndsAll() {
            for (int round = 0; round < 50; round++) {
                Probe<Integer> probe = Probe.unbounded();
                parted().byKey("id")
                        .withFetchSize(1_000)
                        .read(watched.scopes, (row, metadata) -> 1)
                        .subscribe(probe);
                long until = System.nanoTime() + round * 400_000L;
                while (System.nanoTime() < until) {
                    Thread.onSpinWait();
                }
                probe.cancel();
                watched.awaitQuiet();
                probe.assertSound();
                assertThat(probe.drops().errors()).isEmpty();
            }
        }
    }
}
