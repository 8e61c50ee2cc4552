package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.r2dbcscope.postgresql.BulkWriteException;
import dev.r2dbcscope.postgresql.CopyException;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.CopyUpsert;
import dev.r2dbcscope.postgresql.Duplicates;
import dev.r2dbcscope.postgresql.OnConflict;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

class CopyUpsertIT {

    private static final Duration BOUND = Duration.ofSeconds(60);

    private final WatchedPool watched = WatchedPool.of(2);
    private final ConnectionScopes scopes = watched.scopes;
    private boolean mayDestroy;

    private record Item(@Nullable Integer id, @Nullable String note) {}

    private static final CopyIn<Item> COPY = CopyIn.<Item>into("upsert Items")
            .column("Id", CopyType.INTEGER, Item::id)
            .column("note", CopyType.TEXT, Item::note);

    @BeforeEach
    void table() {
        Postgres.execute("drop table if exists \"upsert Items\";"
                + " create table \"upsert Items\" (\"Id\" int unique, note text check (note <> 'forbidden'),"
                + " at timestamptz not null default now())");
    }

    @AfterEach
    void nothingIsHeld() {
        watched.assertWhole();
        if (!mayDestroy) {
            assertThat(watched.destroyed()).isZero();
        }
        watched.close();
        Postgres.execute("drop table \"upsert Items\"");
    }

    private static Flux<Item> items(int from, int count, String note) {
        return Flux.range(from, count).map(i -> new Item(i, note));
    }

    private long written(OnConflict onConflict, Flux<Item> rows) {
        return CopyUpsert.of(COPY, onConflict)
                .write(scopes, rows)
                .blockOptional(BOUND)
                .orElseThrow();
    }

    private static long count(String where) {
        return Postgres.number("select count(*) from \"upsert Items\" where " + where);
    }

    private List<String> notes() {
        return scopes.withConnectionMany(connection -> Flux.from(connection
                                .createStatement(
                                        "select coalesce(\"Id\"::text, '-') || ' ' || note from \"upsert Items\" order by 1")
                                .execute())
                        .concatMap(result -> result.map((row, metadata) -> String.valueOf(row.get(0, String.class)))))
                .collectList()
                .blockOptional(BOUND)
                .orElseThrow();
    }

    private static Flux<Item> twice() {
        return Flux.just(
                new Item(1, "a"), new Item(2, "b"), new Item(1, "c"), new Item(null, "d"), new Item(null, "e"));
    }

    @Test
    void updatesWhatIsThereAndInsertsTheRest() {
        assertThat(written(OnConflict.doUpdate("Id"), items(1, 10_000, "old"))).isEqualTo(10_000);
        assertThat(written(OnConflict.doUpdate("Id"), items(5_001, 10_000, "new")))
                .isEqualTo(10_000);
        assertThat(count("note = 'old'")).isEqualTo(5_000);
        assertThat(count("note = 'new'")).isEqualTo(10_000);
    }

    @Test
    void leavesWhatIsThereAlone() {
        written(OnConflict.doUpdate("Id"), items(1, 100, "old"));
        assertThat(written(OnConflict.doNothing("Id"), items(51, 100, "new"))).isEqualTo(50);
        assertThat(written(OnConflict.doNothing(), items(1, 151, "newer"))).isEqualTo(1);
        assertThat(count("note = 'old'")).isEqualTo(100);
    }

    @Test
    void theLastOfRowsWithTheSameKeyCountsAndNullIsNoKey() {
        assertThat(written(OnConflict.doUpdate("Id"), twice())).isEqualTo(4);
        assertThat(notes()).containsExactlyInAnyOrder("1 c", "2 b", "- d", "- e");
    }

    @Test
    void theFirstCountsWhereThatIsChosen() {
        assertThat(written(OnConflict.doUpdate("Id").withDuplicates(Duplicates.KEEP_FIRST), twice()))
                .isEqualTo(4);
        assertThat(notes()).containsExactlyInAnyOrder("1 a", "2 b", "- d", "- e");
        Postgres.execute("truncate \"upsert Items\"");
        assertThat(written(OnConflict.doNothing("Id"), twice())).isEqualTo(4);
        assertThat(notes()).containsExactlyInAnyOrder("1 a", "2 b", "- d", "- e");
    }

    @Test
    void duplicatesFailWhereThatIsChosen() {
        BulkWriteException error = catchThrowableOfType(
                BulkWriteException.class,
                () -> written(OnConflict.doUpdate("Id").withDuplicates(Duplicates.FAIL), twice()));
        assertThat(error.getSqlState()).isEqualTo("21000");
        assertThat(count("true")).isZero();
    }

    @Test
    void manyRowsWithFewKeysKeepTheLastOfEach() {
        Flux<Item> rows = Flux.range(0, 50_000).map(i -> new Item(i % 777, "round " + i / 777));
        assertThat(written(OnConflict.doUpdate("Id"), rows)).isEqualTo(777);
        int whole = 50_000 / 777;
        assertThat(count("note = 'round ' || case when \"Id\" < " + 50_000 % 777 + " then " + whole + " else "
                        + (whole - 1) + " end"))
                .isEqualTo(777);
    }

    @Test
    void canSetAnExpressionUnderACondition() {
        written(OnConflict.doUpdate("Id"), items(1, 2, "old"));
        OnConflict append = OnConflict.doUpdate("Id")
                .withSet("note", "target.note || ' + ' || excluded.note")
                .withCondition("target.\"Id\" <> 2 or false");
        assertThat(written(append, items(1, 3, "new"))).isEqualTo(2);
        assertThat(notes()).containsExactly("1 old + new", "2 old", "3 new");
    }

    @Test
    void theLastCountsEvenIfItIsTheOneThatTheConditionRefuses() {
        written(OnConflict.doUpdate("Id"), items(1, 1, "old"));
        OnConflict unlessC = OnConflict.doUpdate("Id").withCondition("excluded.note <> 'c'");
        assertThat(written(unlessC, Flux.just(new Item(1, "b"), new Item(1, "c"))))
                .isZero();
        assertThat(notes()).containsExactly("1 old");
    }

    @Test
    void duplicatesOfRowsThatAreThereKeepTheLast() {
        written(OnConflict.doUpdate("Id"), items(1, 2, "old"));
        assertThat(written(OnConflict.doUpdate("Id"), twice())).isEqualTo(4);
        assertThat(notes()).containsExactlyInAnyOrder("1 c", "2 b", "- d", "- e");
    }

    @Test
    void aKeyThatIsNotUniqueIsRefused() {
        assertThatThrownBy(() -> written(OnConflict.doUpdate("note"), items(1, 1, "a")))
                .isInstanceOf(BulkWriteException.class)
                .satisfies(
                        e -> assertThat(((BulkWriteException) e).getSqlState()).isEqualTo("42P10"));
    }

    /** NULLS NOT DISTINCT is a conflict that an equality does not see, as a row of a concurrent transaction is one. */
    @Test
    void aConflictThatMergeDoesNotSeeIsAnUpdate() {
        Postgres.execute("alter table \"upsert Items\" drop constraint \"upsert Items_Id_key\","
                + " add unique nulls not distinct (\"Id\"); insert into \"upsert Items\" values (null, 'old')");
        assertThat(written(OnConflict.doUpdate("Id"), Flux.just(new Item(null, "new"), new Item(1, "one"))))
                .isEqualTo(2);
        assertThat(notes()).containsExactlyInAnyOrder("- new", "1 one");
    }

    @Test
    void aRowOfAConcurrentTransactionIsUpdated() {
        Connection other = Mono.from(Postgres.connectionFactory().create())
                .blockOptional(BOUND)
                .orElseThrow();
        Probe<Long> probe = Probe.unbounded();
        try {
            Rows.update(other, "begin; insert into \"upsert Items\" values (5, 'theirs')")
                    .blockLast(BOUND);
            CopyUpsert.of(COPY, OnConflict.doUpdate("Id"))
                    .write(scopes, items(1, 10, "ours"))
                    .subscribe(probe);
            Await.until(
                    () -> Postgres.number("select count(*) from pg_locks where not granted") > 0,
                    () -> "nobody waits for the other transaction");
            Rows.update(other, "commit").blockLast(BOUND);
        } finally {
            Mono.from(other.close()).block(BOUND);
        }
        assertThat(probe.awaitEnd().values()).containsExactly(10L);
        assertThat(count("note = 'ours'")).isEqualTo(10);
    }

    @Test
    void severalMayBelongToOneTransaction() {
        CopyUpsert<Item> upsert = CopyUpsert.of(COPY, OnConflict.doUpdate("Id"));
        Mono<Long> temporary = scopes.inTransaction(connection -> upsert.write(connection, items(1, 10, "a"))
                .then(upsert.write(connection, items(5, 10, "b")))
                .then(upsert.write(scopes, items(8, 10, "c")))
                .then(Rows.ints(
                                connection,
                                "select count(*)::int from pg_class where relname like 'r2dbc_scope_upsert%'")
                        .map(Integer::longValue)
                        .next()));
        assertThat(temporary.block(BOUND)).isZero();
        assertThat(count("note = 'c'")).isEqualTo(10);
        assertThat(count("true")).isEqualTo(17);
    }

    @Test
    void isRefusedOutsideATransaction() {
        assertThatThrownBy(() -> scopes.withConnection(connection ->
                                CopyUpsert.of(COPY, OnConflict.doUpdate("Id")).write(connection, items(1, 1, "a")))
                        .block(BOUND))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("inTransaction");
        assertThatThrownBy(() -> watched.borrow(connection -> CopyUpsert.of(COPY, OnConflict.doUpdate("Id"))
                        .write(connection, items(1, 1, "a"))
                        .flux()))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> CopyUpsert.of(COPY, OnConflict.doUpdate("at")))
                .isInstanceOf(IllegalStateException.class);
    }

    @Test
    void whatTheTableRefusesIsTold() {
        Flux<Item> rows = items(1, 100, "a").concatWith(Flux.just(new Item(101, "forbidden")));
        BulkWriteException error =
                catchThrowableOfType(BulkWriteException.class, () -> written(OnConflict.doUpdate("Id"), rows));
        assertThat(error.getSqlState()).isEqualTo("23514");
        assertThat(error.lastRow()).isEqualTo(101);
        assertThat(error).hasMessageContaining("\"upsert Items\"").hasMessageNotContaining("forbidden");
        assertThat(count("true")).isZero();
    }

    @Test
    void aRowThatCannotBeCopiedIsNamedWithTheTargetsTable() {
        mayDestroy = true;
        Flux<Item> rows = items(1, 2, "a").concatWith(Flux.just(new Item(3, "bad \0")));
        CopyException error = catchThrowableOfType(CopyException.class, () -> written(OnConflict.doUpdate("Id"), rows));
        assertThat(error.row()).isEqualTo(3);
        assertThat(error).hasMessageContaining("upsert Items").hasMessageNotContaining("r2dbc_scope");
        assertThat(count("true")).isZero();
    }

    @Test
    void aCancelKeepsNothing() {
        mayDestroy = true;
        Probe<Long> probe = Probe.unbounded();
        Flux<Item> endless = Flux.generate(() -> 1, (n, sink) -> {
            sink.next(new Item(n, "x"));
            return n + 1;
        });
        java.util.concurrent.atomic.AtomicLong pulled = new java.util.concurrent.atomic.AtomicLong();
        CopyUpsert.of(COPY, OnConflict.doUpdate("Id"))
                .write(scopes, endless.doOnNext(item -> pulled.incrementAndGet()))
                .subscribe(probe);
        Await.until(() -> pulled.get() > 10_000, () -> "pulled " + pulled);
        probe.cancel();
        watched.awaitQuiet();
        assertThat(count("true")).isZero();
        probe.assertSound();
    }
}
