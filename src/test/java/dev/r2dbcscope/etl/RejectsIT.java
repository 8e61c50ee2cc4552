package dev.r2dbcscope.etl;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.WatchedPool;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.OnConflict;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.StepVerifier;

class RejectsIT {

    private static final Duration BOUND = Duration.ofSeconds(120);

    private final WatchedPool watched = WatchedPool.of(4);

    private record Item(int id, @Nullable String note, int parent) {

        static Item good(int id) {
            return new Item(id, "note " + id, id % 10);
        }
    }

    enum Way {
        COPY(ChunkSink.of(copy())),
        UPSERT(ChunkSink.of(CopyUpsert.of(copy(), OnConflict.doNothing()))),
        UNNEST(ChunkSink.of(UnnestWriter.<Item>into("reject_target")
                .column("id", "int", Item::id)
                .column("note", "text", Item::note)
                .column("parent", "int", Item::parent))),
        FUNCTION((connection, rows) -> Flux.fromIterable(rows)
                .concatMap(row -> Flux.from(connection
                                .createStatement("insert into reject_target values ($1, $2, $3)")
                                .bind(0, row.id())
                                .bind(1, String.valueOf(row.note()).equals("null") ? "" : row.note())
                                .bind(2, row.parent())
                                .execute())
                        .concatMap(Result::getRowsUpdated)));

        private final ChunkSink<Item> sink;

        Way(ChunkSink<Item> sink) {
            this.sink = sink;
        }
    }

    private static CopyIn<Item> copy() {
        return CopyIn.<Item>into("reject_target")
                .column("id", CopyType.INTEGER, Item::id)
                .column("note", CopyType.TEXT, Item::note)
                .column("parent", CopyType.INTEGER, Item::parent);
    }

    @BeforeEach
    void tables() {
        Postgres.execute("drop table if exists reject_target, reject_parents, reject_letters;"
                + " create table reject_parents (id int primary key);"
                + " insert into reject_parents select generate_series(0, 9);"
                + " create table reject_target (id int primary key check (id <> 13), note text not null check (note <> ''),"
                + " parent int references reject_parents);"
                + " create table reject_letters (number bigint, state text)");
    }

    @AfterEach
    void whole() {
        watched.assertWhole();
        watched.close();
    }

    private static Mono<Long> letter(Connection connection, List<Reject<Item>> rejects) {
        return Flux.fromIterable(rejects)
                .concatMap(reject -> Flux.from(connection
                                .createStatement("insert into reject_letters values ($1, $2)")
                                .bind(0, reject.number())
                                .bind(1, String.valueOf(reject.sqlState()))
                                .execute())
                        .concatMap(Result::getRowsUpdated))
                .reduce(0L, Long::sum);
    }

    private static ChunkWriter<Item> writer(Way way, int rows) {
        return ChunkWriter.to(way.sink).withMaxRows(rows).withRejects(Rejects.inTransaction(RejectsIT::letter));
    }

    /** The numbers of rows by what was wrong with them. */
    private static Map<Long, String> letters(WatchedPool pool) {
        return new TreeMap<>(pool
                .borrow(c -> Flux.from(c.createStatement("select number, state from reject_letters")
                                .execute())
                        .flatMap(result ->
                                result.map(row -> Map.entry(row.get(0, Long.class), row.get(1, String.class)))))
                .stream()
                .collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue)));
    }

    private static long written() {
        return Postgres.number("select count(*) from reject_target");
    }

    @ParameterizedTest
    @EnumSource
    void theRestOfAChunkIsCommitted(Way way) {
        List<Item> rows = IntStream.rangeClosed(1, 100).mapToObj(Item::good).collect(Collectors.toList());
        rows.set(4, new Item(5, "a parent that is not there", 77));
        rows.set(49, new Item(50, "", 0));
        if (way != Way.UPSERT) {
            rows.set(59, new Item(3, "the same as the third", 0));
        }
        rows.set(98, new Item(99, "", 0));

        List<ChunkResult> results = writer(way, 40)
                .write(watched.scopes, Flux.fromIterable(rows))
                .collectList()
                .block(BOUND);

        Map<Long, String> expected = new TreeMap<>(Map.of(5L, "23503", 13L, "23514", 50L, "23514", 99L, "23514"));
        if (way != Way.UPSERT) {
            expected.put(60L, "23505");
        }
        assertThat(letters(watched)).isEqualTo(expected);
        assertThat(written()).isEqualTo(100 - expected.size());
        assertThat(results).extracting(ChunkResult::rejected).containsExactly(2L, expected.size() - 3L, 1L);
        assertThat(results).allMatch(result -> result.written() == result.rows() - result.rejected());
    }

    @ParameterizedTest
    @EnumSource(names = {"COPY", "UNNEST"})
    void rowsThatCannotBeSentAreRejectedToo(Way way) {
        Flux<Item> rows = Flux.range(20, 100)
                .map(id ->
                        id % 40 == 0 ? new Item(id, "a \0", 0) : id % 30 == 0 ? new Item(id, null, 0) : Item.good(id));

        writer(way, 45).write(watched.scopes, rows).blockLast(BOUND);

        assertThat(letters(watched).keySet()).containsExactly(11L, 21L, 41L, 61L, 71L);
        assertThat(written()).isEqualTo(95);
    }

    @ParameterizedTest
    @EnumSource(names = {"COPY", "UNNEST", "FUNCTION"})
    void everyGoodRowIsWrittenAndEveryBadOneIsTold(Way way) {
        long seed = System.nanoTime();
        Random random = new Random(seed);
        for (int round = 0; round < 8; round++) {
            Postgres.execute("truncate reject_target; truncate reject_letters");
            double share = new double[] {0, 0.002, 0.02, 0.3, 1}[random.nextInt(5)];
            List<Item> rows = IntStream.range(0, way == Way.COPY ? 2_000 : 300)
                    .mapToObj(i -> random.nextDouble() >= share
                            ? Item.good(100 + i)
                            : switch (random.nextInt(3)) {
                                case 0 -> new Item(100 + i, "", 0);
                                case 1 -> new Item(13, "x", 0);
                                default -> new Item(100 + i, "x", random.nextInt(8) == 0 ? 77 : 1);
                            })
                    .toList();
            List<Long> bad = IntStream.range(0, rows.size())
                    .filter(i -> rows.get(i).id() == 13
                            || "".equals(rows.get(i).note())
                            || rows.get(i).parent() == 77)
                    .mapToObj(i -> i + 1L)
                    .toList();

            writer(way, 1 + random.nextInt(700))
                    .write(watched.scopes, Flux.fromIterable(rows))
                    .blockLast(BOUND);

            assertThat(letters(watched).keySet())
                    .as("seed %d, round %d", seed, round)
                    .containsExactlyElementsOf(bad);
            assertThat(written()).isEqualTo(rows.size() - bad.size());
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"COPY", "UNNEST"})
    void aJobRejectsRowsOfEachPartitionOnce(Way way) {
        Postgres.execute("drop table if exists r2dbc_scope_checkpoints");
        Checkpoints.defaults().create(watched.scopes).block(BOUND);
        List<Source<Item>> partitions = IntStream.range(0, 3)
                .<Source<Item>>mapToObj(p -> Source.of(Flux.range(1_000 * p + 1, 500)
                        .map(id -> id % 100 == 50 ? new Item(id, "", 0) : Item.good(id + 20))))
                .toList();

        List<ChunkResult> results = EtlJob.ofPartitions(
                        "rejects",
                        partitions,
                        writer(way, 60)
                                .withConcurrency(3)
                                .withRetries(5, Duration.ofMillis(10), Duration.ofMillis(100)))
                .run(watched.scopes)
                .collectList()
                .block(BOUND);

        assertThat(written()).isEqualTo(1_485);
        assertThat(Postgres.number("select count(*) from reject_letters")).isEqualTo(15);
        assertThat(results.stream().mapToLong(ChunkResult::rejected).sum()).isEqualTo(15);
    }

    @Test
    void tooManyOfThemStopTheWriting() {
        Flux<Item> rows = Flux.range(1, 1_000).map(id -> id % 10 == 0 ? new Item(id, "", 0) : Item.good(id + 5_000));

        StepVerifier.create(ChunkWriter.to(Way.COPY.sink)
                        .withMaxRows(100)
                        .withRejects(Rejects.inTransaction(RejectsIT::letter).withLimit(25))
                        .write(watched.scopes, rows))
                .expectNextCount(2)
                .expectErrorSatisfies(error -> assertThat(error)
                        .isInstanceOf(ChunkFailedException.class)
                        .hasMessage("Chunk 3, rows 201 to 300, could not be written: 30 of 300 rows were"
                                + " rejected, more than Rejects.withLimit(25) allows; the last of them is row 300, SQLSTATE"
                                + " 23514, constraint \"reject_target_note_check\"")
                        .hasCauseInstanceOf(TooManyRejectsException.class))
                .verify(BOUND);
        assertThat(written()).isEqualTo(180);
        assertThat(letters(watched)).hasSize(20);
    }

    @Test
    void aShareOfThemStopsTheWriting() {
        Flux<Item> rows = Flux.range(1, 3_000).map(id -> id % 10 == 0 ? new Item(id, "", 0) : Item.good(id + 5_000));

        StepVerifier.create(ChunkWriter.to(Way.COPY.sink)
                        .withMaxRows(400)
                        .withRejects(Rejects.inTransaction(RejectsIT::letter).withShare(0.05))
                        .write(watched.scopes, rows))
                .expectNextCount(2)
                .expectErrorSatisfies(error -> assertThat(error).hasCauseInstanceOf(TooManyRejectsException.class))
                .verify(BOUND);
    }

    @Test
    void theyAreHandedOverAfterTheCommit() {
        ConcurrentLinkedQueue<Reject<Item>> seen = new ConcurrentLinkedQueue<>();
        ConcurrentLinkedQueue<Long> there = new ConcurrentLinkedQueue<>();

        ChunkWriter.to(Way.COPY.sink)
                .withRejects(Rejects.<Item>afterCommit(rejects -> Mono.fromRunnable(() -> {
                            there.add(written());
                            seen.addAll(rejects);
                        })
                        .subscribeOn(reactor.core.scheduler.Schedulers.boundedElastic())))
                .write(watched.scopes, Flux.range(1, 20).map(Item::good))
                .blockLast(BOUND);

        assertThat(there).containsExactly(19L);
        assertThat(seen).singleElement().satisfies(reject -> {
            assertThat(reject.row()).isEqualTo(Item.good(13));
            assertThat(reject.number()).isEqualTo(13);
            assertThat(reject.sqlState()).isEqualTo("23514");
            assertThat(reject.constraint()).isEqualTo("reject_target_id_check");
            assertThat(reject.reason()).contains("violates check constraint");
            assertThat(reject.toString()).doesNotContain("note 13");
        });
    }

    @Test
    void anErrorThatIsNotOneOfRowsFailsTheChunk() {
        Postgres.execute("alter table reject_target drop column note");

        StepVerifier.create(writer(Way.COPY, 10)
                        .write(watched.scopes, Flux.range(1, 20).map(Item::good)))
                .expectErrorSatisfies(error ->
                        assertThat(((ChunkFailedException) error).getSqlState()).isEqualTo("42703"))
                .verify(BOUND);
    }

    @Test
    void nonsenseIsRefused() {
        Rejects<Item> rejects = Rejects.inTransaction(RejectsIT::letter);
        assertThatIllegalArgumentException().isThrownBy(() -> rejects.withLimit(-1));
        assertThatIllegalArgumentException().isThrownBy(() -> rejects.withShare(1.5));
        assertThatIllegalArgumentException().isThrownBy(() -> rejects.withShare(Double.NaN));
    }
}
