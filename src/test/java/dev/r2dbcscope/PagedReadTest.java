package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** What a query with a fetch size sends through its cursor, and when; without a database. */
class PagedReadTest {

    private static final int PAGE = 4;

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of().knowingCursors());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final Sinks.Empty<Void> end = Sinks.empty();
    private final Probe<Void> scope = Probe.unbounded();

    /** The pages that come when the test says so, in the order in which they were asked for. */
    private final List<Sinks.Many<Integer>> pages = new ArrayList<>();

    @BeforeEach
    void answerWithoutRows() {
        database.on("open", Flux::empty).on("close cursor", Flux::empty);
    }

    private Connection inTransaction() {
        AtomicReference<Connection> current = new AtomicReference<>();
        scopes.inTransaction(c -> {
                    current.set(c);
                    return end.asMono();
                })
                .subscribe(scope);
        return Objects.requireNonNull(current.get());
    }

    private void finish() {
        end.tryEmitEmpty().orThrow();
        assertThat(scope.awaitEnd().isCompleted()).isTrue();
    }

    /** A cursor of so many rows, which come at once. */
    private void rows(int count) {
        AtomicReference<Integer> next = new AtomicReference<>(0);
        database.on("fetch", () -> {
            int from = Objects.requireNonNull(next.get());
            int to = Math.min(from + PAGE, count);
            next.set(to);
            return Flux.fromStream(IntStream.range(from, to).boxed());
        });
    }

    private void pagesComeLater() {
        database.on("fetch", () -> {
            Sinks.Many<Integer> page = Sinks.many().unicast().onBackpressureBuffer();
            pages.add(page);
            return page.asFlux();
        });
    }

    private void arrive(int page, int from, int count) {
        for (int row = from; row < from + count; row++) {
            pages.get(page).tryEmitNext(row).orThrow();
        }
    }

    private void arriveWhole(int page) {
        arrive(page, page * PAGE, PAGE);
        pages.get(page).tryEmitComplete().orThrow();
    }

    private static Statement query(Connection connection) {
        return connection.createStatement("query").fetchSize(PAGE);
    }

    private static <T> Probe<T> subscribe(Flux<T> flux, Probe<T> probe) {
        flux.subscribe(probe);
        return probe;
    }

    private static Probe<Integer> read(Connection connection, Probe<Integer> probe) {
        return subscribe(Rows.onDemand(query(connection)), probe);
    }

    private static List<Integer> upTo(int count) {
        return IntStream.range(0, count).boxed().toList();
    }

    private int sent(String step) {
        return Collections.frequency(database.log(), step + "#1");
    }

    @ParameterizedTest
    @CsvSource({"0,1", "3,1", "4,2", "5,2", "8,3", "10,3"})
    void readsPageByPageUntilOneIsNotFullAndClosesItsCursor(int rows, int fetches) {
        rows(rows);
        Probe<Integer> probe = read(inTransaction(), Probe.unbounded()).awaitEnd();
        assertThat(probe.isCompleted()).isTrue();
        assertThat(probe.values()).isEqualTo(upTo(rows));
        assertThat(sent("open")).isEqualTo(1);
        assertThat(sent("fetch")).isEqualTo(fetches);
        assertThat(sent("close cursor")).isEqualTo(1);
        finish();
        probe.assertSound();
        assertThat(database.log()).endsWith("close cursor#1", "commit#1", "close#1");
    }

    @Test
    void asksForTheNextPageWithTheFirstRowOfTheOneBefore() {
        rows(10);
        Probe<Integer> probe = read(inTransaction(), Probe.requesting(1));
        assertThat(sent("fetch")).as("after the first row").isEqualTo(2);
        probe.request(3);
        assertThat(sent("fetch")).as("at the end of the page").isEqualTo(2);
        probe.request(1);
        assertThat(sent("fetch")).as("with the first row of the second").isEqualTo(3);
        assertThat(probe.values()).isEqualTo(upTo(5));
        assertThat(sent("close cursor")).isZero();
        probe.request(4);
        assertThat(sent("fetch")).as("behind the last").isEqualTo(3);
        assertThat(probe.isTerminated()).isFalse();
        probe.request(1);
        assertThat(probe.values()).isEqualTo(upTo(10));
        assertThat(probe.isCompleted())
                .as("is told of the end without further demand")
                .isTrue();
        finish();
    }

    @Test
    void readsFurtherAheadForWhoeverWaitsForPagesAndNoMoreOnceItDoesNot() {
        pagesComeLater();
        Probe<Integer> probe = read(inTransaction(), Probe.requesting(18));
        assertThat(sent("fetch")).isEqualTo(1);
        arrive(0, 0, 1);
        assertThat(sent("fetch")).as("one ahead").isEqualTo(2);
        arrive(0, 1, 3);
        pages.get(0).tryEmitComplete().orThrow();
        assertThat(sent("fetch")).isEqualTo(2);
        arrive(1, 4, 1);
        assertThat(sent("fetch")).as("two ahead").isEqualTo(4);
        arrive(1, 5, 3);
        pages.get(1).tryEmitComplete().orThrow();
        arrive(2, 8, 1);
        assertThat(sent("fetch")).as("three ahead").isEqualTo(6);
        arrive(2, 9, 3);
        pages.get(2).tryEmitComplete().orThrow();
        arrive(3, 12, 1);
        assertThat(sent("fetch")).as("never four").isEqualTo(7);
        arrive(3, 13, 3);
        pages.get(3).tryEmitComplete().orThrow();
        arriveWhole(4);
        assertThat(probe.values()).isEqualTo(upTo(18));
        assertThat(sent("fetch")).isEqualTo(8);
        probe.request(2);
        assertThat(probe.values()).isEqualTo(upTo(20));

        for (int page = 5; page < 8; page++) {
            arriveWhole(page);
            probe.request(PAGE);
        }
        assertThat(probe.values()).isEqualTo(upTo(32));
        assertThat(sent("fetch")).as("one ahead again").isEqualTo(9);
        pages.get(8).tryEmitComplete().orThrow();
        probe.request(1);
        assertThat(probe.isCompleted()).isTrue();
        finish();
        probe.assertSound();
    }

    @Test
    void aPageThatIsHereInTimeIsNoReasonToReadFurtherAhead() {
        rows(40);
        Probe<Integer> probe = read(inTransaction(), Probe.requesting(1));
        for (int row = 1; row < 9; row++) {
            probe.request(1);
        }
        assertThat(sent("fetch")).isEqualTo(4);
        probe.cancel();
        finish();
    }

    @Test
    void aPageOfWhichSomeRowsAreHereInTimeIsNoneEither() {
        pagesComeLater();
        Probe<Integer> probe = read(inTransaction(), Probe.requesting(18));
        arrive(0, 0, 1);
        arrive(1, 4, 1);
        arrive(0, 1, 3);
        pages.get(0).tryEmitComplete().orThrow();
        assertThat(probe.values()).isEqualTo(upTo(5));
        assertThat(sent("fetch")).as("one ahead").isEqualTo(3);
        probe.cancel();
        pages.forEach(Sinks.Many::tryEmitComplete);
        finish();
    }

    @Test
    void sendsNothingForWhoeverLeavesBeforeAskingForARow() {
        Probe<Integer> probe = read(inTransaction(), Probe.requesting(0));
        probe.cancel();
        probe.request(1);
        finish();
        assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        assertThat(probe.isTerminated()).isFalse();
    }

    @Test
    void whoeverLeavesClosesTheCursorOnceAndTheRowsThatWereReadForItAreDiscarded() {
        rows(10);
        Probe<Integer> probe = read(inTransaction(), Probe.requesting(2));
        probe.cancel();
        probe.cancel();
        assertThat(probe.values()).isEqualTo(upTo(2));
        assertThat(probe.drops().values()).filteredOn(Integer.class::isInstance).containsExactly(2, 3, 4, 5, 6, 7);
        assertThat(sent("fetch")).isEqualTo(2);
        assertThat(sent("close cursor")).isEqualTo(1);
        finish();
        assertThat(probe.isTerminated()).isFalse();
    }

    @Test
    void closesTheCursorOfWhoeverLeavesWhileItOpens() {
        Step<Integer> open = new Step<>();
        database.on("open", open);
        pagesComeLater();
        Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
        probe.cancel();
        assertThat(sent("close cursor")).isZero();
        open.complete();
        pages.get(0).tryEmitComplete().orThrow();
        assertThat(sent("close cursor")).isEqualTo(1);
        finish();
        assertThat(probe.values()).isEmpty();
    }

    @Test
    void closesTheCursorBehindThePageThatIsStillOnItsWay() {
        pagesComeLater();
        Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
        arrive(0, 0, 2);
        probe.cancel();
        arrive(0, 2, 2);
        pages.get(0).tryEmitComplete().orThrow();
        pages.get(1).tryEmitComplete().orThrow();
        assertThat(probe.values()).isEqualTo(upTo(2));
        finish();
        assertThat(sent("close cursor")).isEqualTo(1);
    }

    @Test
    void usesTheNameOfAClosedCursorAgain() {
        rows(10);
        database.on("fetch 2", Flux::empty);
        Connection connection = inTransaction();
        Probe<Integer> first = read(connection, Probe.requesting(1));
        Probe<Integer> second = read(connection, Probe.unbounded());
        assertThat(second.isCompleted()).isTrue();
        assertThat(sent("open 2")).isEqualTo(1);
        assertThat(sent("close cursor 2")).isEqualTo(1);
        first.cancel();
        rows(0);
        read(connection, Probe.unbounded()).awaitEnd();
        assertThat(sent("open")).isEqualTo(2);
        assertThat(sent("open 3")).isZero();
        finish();
    }

    @Test
    void isExecutedAsTheDriverDoesItOutsideATransaction() {
        database.on("query", () -> Flux.just(7));
        assertThat(scopes.withConnectionMany(c -> Rows.ints(query(c)))
                        .collectList()
                        .block(FormContract.PATIENCE))
                .containsExactly(7);
        assertThat(database.log()).containsExactly("create", "query#1", "close#1");
    }

    @Test
    void isExecutedAsTheDriverDoesItWhenACursorCannotReadIt() {
        database.on("insert", () -> Flux.just(7));
        Probe<Integer> probe =
                subscribe(Rows.ints(inTransaction().createStatement("insert").fetchSize(PAGE)), Probe.unbounded());
        assertThat(probe.values()).containsExactly(7);
        assertThat(sent("insert")).isEqualTo(1);
        finish();
    }

    @Test
    void isExecutedAsTheDriverDoesItWithManyBindingsOrGeneratedValuesOrWithoutAFetchSize() {
        Connection connection = inTransaction();
        subscribe(Rows.ints(query(connection).add()), Probe.unbounded());
        subscribe(Rows.ints(query(connection).returnGeneratedValues("id")), Probe.unbounded());
        subscribe(Rows.ints(connection.createStatement("query").fetchSize(0)), Probe.unbounded());
        assertThat(sent("query")).as("two bindings are sent one by one").isEqualTo(4);
        assertThat(sent("open")).isZero();
        finish();
    }

    @Test
    void waitsForItsConnection() {
        rows(10);
        Step<Integer> begin = new Step<>();
        database.on("begin", begin);
        Probe<Integer> probe = subscribe(
                Mono.from(scopes.connectionFactory().create())
                        .flatMapMany(c -> Rows.ints(query(c)))
                        .as(scopes::transactional),
                Probe.unbounded());
        begin.complete();
        assertThat(probe.awaitEnd().values()).isEqualTo(upTo(10));
    }

    @Test
    void isReadThroughItsCursorOnlyByWhoeverWantsEverythingAndReadsItAtOnce() {
        rows(3);
        Probe<Integer> probe = subscribe(
                Flux.from(query(inTransaction()).execute())
                        .flatMap(result -> result.map(row -> row.get(0, Integer.class)), Integer.MAX_VALUE),
                Probe.unbounded());
        assertThat(probe.awaitEnd().values()).isEqualTo(upTo(3));
        assertThat(sent("open")).isEqualTo(1);
        assertThat(sent("query")).isZero();
        finish();
    }

    @Test
    void doesNotEndBeforeTheExecutionOfItsLastPage() {
        Sinks.Empty<Result> executed = Sinks.empty();
        new NotingDriver(database)
                .on("cursors", Mono::empty)
                .executing(
                        "fetch",
                        () -> Flux.just(NotingDriver.result(Flux.just(7))).concatWith(executed.asMono()));
        Probe<Integer> probe =
                subscribe(Rows.ints(inTransaction().createStatement("paged").fetchSize(PAGE)), Probe.unbounded());
        assertThat(probe.values()).containsExactly(7);
        assertThat(probe.isTerminated()).isFalse();
        executed.tryEmitEmpty().orThrow();
        assertThat(probe.isCompleted()).isTrue();
        finish();
    }

    @Test
    void opensTheTransactionInsideThatItBelongsTo() {
        rows(3);
        Probe<Integer> probe =
                subscribe(scopes.withConnectionMany(c -> scopes.transactional(Rows.ints(query(c)))), Probe.unbounded());
        assertThat(probe.awaitEnd().values()).isEqualTo(upTo(3));
        assertThat(database.log())
                .containsExactly("create", "begin#1", "open#1", "fetch#1", "close cursor#1", "commit#1", "close#1");
    }

    @Nested
    class WhatItIsReadAs {

        private Result result(Connection connection) {
            return Objects.requireNonNull(
                    subscribe(Flux.<Result>from(query(connection).execute()), Probe.requesting(1))
                            .values()
                            .get(0));
        }

        @Test
        void rowsWithTheirMetadata() {
            rows(6);
            Probe<Integer> probe = subscribe(
                    Flux.from(result(inTransaction()).map((row, metadata) -> row.get(0, Integer.class))),
                    Probe.unbounded());
            assertThat(probe.values()).isEqualTo(upTo(6));
            assertThat(sent("fetch")).isEqualTo(2);
            finish();
        }

        @Test
        void theNumberOfRows() {
            rows(10);
            Probe<Long> probe = subscribe(Flux.from(result(inTransaction()).getRowsUpdated()), Probe.unbounded());
            assertThat(probe.values()).containsExactly(10L);
            finish();
        }

        @Test
        void segmentsAndTheCountOfAllRowsAtTheirEnd() {
            rows(6);
            Probe<Object> probe =
                    subscribe(Flux.from(result(inTransaction()).flatMap(PagedReadTest::described)), Probe.unbounded());
            assertThat(probe.values()).containsExactly(0, 1, 2, 3, 4, 5, "count 6");
            finish();
        }

        @Test
        void segmentsWithoutTheCountThatTheDriverHasOfEachPage() {
            Result.UpdateCount ofThePage = () -> 2L;
            database.on("fetch", () -> Flux.just(0, 1, ofThePage));
            Probe<Object> probe =
                    subscribe(Flux.from(result(inTransaction()).flatMap(PagedReadTest::described)), Probe.unbounded());
            assertThat(probe.values()).containsExactly(0, 1, "count 2");
            finish();
        }

        @Test
        void theSegmentsThatAFilterLetsThrough() {
            rows(6);
            Probe<Object> probe = subscribe(
                    Flux.from(result(inTransaction())
                            .filter(segment -> segment instanceof Result.UpdateCount)
                            .flatMap(PagedReadTest::described)),
                    Probe.unbounded());
            assertThat(probe.values()).containsExactly("count 6");
            finish();
        }

        @Test
        void isReadOnce() {
            rows(1);
            Result result = result(inTransaction());
            subscribe(Flux.from(result.map(row -> 1)), Probe.unbounded());
            Probe<Integer> second = subscribe(Flux.from(result.map(row -> 1)), Probe.unbounded());
            assertThat(second.error())
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("already consumed");
            finish();
        }

        @Test
        void cannotBeReadAfterTheEndOfTheScope() {
            Connection connection = inTransaction();
            Result result = result(connection);
            Statement statement = query(connection);
            Flux<Result> execution = Flux.from(statement.execute());
            finish();
            Probe<Integer> late = subscribe(Flux.from(result.map(row -> 1)), Probe.unbounded());
            assertThat(late.error()).isInstanceOf(ScopeClosedException.class);
            assertThat(subscribe(execution, Probe.unbounded()).error()).isInstanceOf(ScopeClosedException.class);
            assertThat(sent("open")).isZero();
        }
    }

    private static Mono<Object> described(Result.Segment segment) {
        return segment instanceof Result.UpdateCount count
                ? Mono.just("count " + count.value())
                : Mono.justOrEmpty(((Result.RowSegment) segment).row().get(0));
    }

    @Nested
    class Fails {

        private final R2dbcNonTransientResourceException refused =
                new R2dbcNonTransientResourceException("by the database", "42P01");
        private final IllegalStateException other = new IllegalStateException("not by the database");

        @Test
        void withTheErrorOfTheDatabaseWhenThereIsNoCursorAndItsNameIsFree() {
            rows(3);
            database.on("open", () -> Mono.error(refused));
            Connection connection = inTransaction();
            Probe<Integer> probe = read(connection, Probe.unbounded());
            assertThat(probe.error()).isSameAs(refused);
            assertThat(sent("fetch")).isZero();
            assertThat(sent("close cursor")).isZero();
            database.on("open", Mono::empty);
            assertThat(read(connection, Probe.unbounded()).values()).isEqualTo(upTo(3));
            assertThat(sent("open 2")).isZero();
            finish();
        }

        @Test
        void withAnotherErrorAfterWhichNobodyKnowsWhetherThereIsACursor() {
            database.on("open", () -> Mono.error(other));
            Connection connection = inTransaction();
            Probe<Integer> probe = read(connection, Probe.unbounded());
            assertThat(probe.error()).isSameAs(other);
            assertThat(sent("fetch")).isZero();
            database.on("fetch 2", Flux::empty);
            read(connection, Probe.unbounded()).awaitEnd();
            assertThat(sent("open 2")).as("takes another name").isEqualTo(1);
            finish();
        }

        @Test
        void inAPageAfterTheRowsBeforeAndDoesNotCloseACursorThatIsGone() {
            database.on("fetch", () -> Flux.just(0, 1).concatWith(Mono.error(refused)));
            Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
            assertThat(probe.values()).isEqualTo(upTo(2));
            assertThat(probe.error()).isSameAs(refused);
            assertThat(sent("close cursor")).isZero();
            finish();
            probe.assertSound();
        }

        @Test
        void inAPageAndClosesACursorThatMayStillBeThere() {
            database.on("fetch", () -> Flux.just(0, 1).concatWith(Mono.error(other)));
            Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
            assertThat(probe.error()).isSameAs(other);
            assertThat(sent("close cursor")).isEqualTo(1);
            finish();
        }

        @Test
        void beforeItsFirstRow() {
            database.on("fetch", ProbeFault.fail(() -> other));
            Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
            assertThat(probe.error()).isSameAs(other);
            assertThat(sent("close cursor")).isEqualTo(1);
            finish();
        }

        @Test
        void inItsMapping() {
            rows(10);
            Probe<Integer> probe = subscribe(
                    Flux.from(query(inTransaction()).execute())
                            .concatMap(
                                    result -> result.map(row -> {
                                        if (Objects.equals(row.get(0), 5)) {
                                            throw other;
                                        }
                                        return row.get(0, Integer.class);
                                    }),
                                    0),
                    Probe.unbounded());
            assertThat(probe.values()).isEqualTo(upTo(5));
            assertThat(probe.error()).isSameAs(other);
            assertThat(sent("close cursor")).isEqualTo(1);
            finish();
        }

        @Test
        void whenACursorCannotBePrepared() {
            database.on("prepare cursor", () -> Mono.error(other));
            Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
            assertThat(probe.error()).isSameAs(other);
            assertThat(sent("open")).isZero();
            assertThat(sent("close cursor")).isZero();
            finish();
        }
    }

    @Nested
    class WhenThereIsSomethingToPrepare {

        private final Step<Integer> prepared = new Step<>();

        @Test
        void opensTheCursorBehindIt() {
            rows(3);
            database.on("prepare cursor", prepared);
            Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
            assertThat(sent("prepare cursor")).isEqualTo(1);
            probe.request(1);
            assertThat(sent("open")).isZero();
            prepared.complete();
            assertThat(probe.isCompleted()).isTrue();
            assertThat(probe.values()).isEqualTo(upTo(3));
            assertThat(sent("prepare cursor")).isEqualTo(1);
            assertThat(sent("open")).isEqualTo(1);
            finish();
        }

        @Test
        void opensNoneForWhoeverHasLeftMeanwhile() {
            database.on("prepare cursor", prepared);
            Probe<Integer> probe = read(inTransaction(), Probe.unbounded());
            probe.cancel();
            prepared.complete();
            finish();
            assertThat(sent("open")).isZero();
            assertThat(prepared.cancels()).isZero();
        }
    }

    @Nested
    class WhenTheTransactionEndsBefore {

        @Test
        void failsWhenTheCodeEndedItAndSendsNothingToACursorThatIsGone() {
            rows(10);
            Probe<Integer> rows = Probe.requesting(1);
            Probe<Void> plain = Probe.unbounded();
            scopes.withConnection(c -> Mono.from(c.beginTransaction())
                            .then(Mono.fromRunnable(() -> read(c, rows)))
                            .then(Mono.from(c.commitTransaction()))
                            .then(Mono.fromRunnable(() -> rows.request(Long.MAX_VALUE)))
                            .then(end.asMono()))
                    .subscribe(plain);
            assertThat(rows.values()).isEqualTo(upTo(8));
            assertThat(rows.error()).isInstanceOf(IllegalStateException.class).hasMessageContaining("has ended before");
            assertThat(sent("close cursor")).isZero();
            end.tryEmitEmpty().orThrow();
            plain.awaitEnd();
        }

        @Test
        void closesACursorThatASavepointLeftBehind() {
            rows(10);
            Probe<Integer> rows = Probe.requesting(1);
            Connection connection = inTransaction();
            Flux<Integer> inside = scopes.transactions(Propagation.NESTED)
                    .inTransactionMany(s -> Flux.deferContextual(context -> {
                        Rows.onDemand(query(s)).contextWrite(context).subscribe(rows);
                        return Flux.just(1);
                    }));
            subscribe(onOf(connection, inside), Probe.unbounded()).awaitEnd();
            rows.cancel();
            assertThat(database.log()).containsSubsequence("release savepoint#1", "close cursor#1");
            finish();
        }

        @Test
        void doesNotCloseACursorThatEndedWithItsSavepoint() {
            rows(10);
            Probe<Integer> rows = Probe.requesting(1);
            Connection connection = inTransaction();
            Flux<Integer> inside = scopes.transactions(Propagation.NESTED)
                    .inTransactionMany(s -> Flux.deferContextual(context -> {
                        Rows.onDemand(query(s)).contextWrite(context).subscribe(rows);
                        return CurrentScope.get()
                                .doOnNext(CurrentScope::setRollbackOnly)
                                .thenMany(Flux.just(1));
                    }));
            subscribe(onOf(connection, inside), Probe.unbounded()).awaitEnd();
            rows.cancel();
            assertThat(database.log()).contains("rollback to savepoint#1").doesNotContain("close cursor#1");
            finish();
        }

        /** In the scope of the connection. */
        private <T> Flux<T> onOf(Connection connection, Flux<T> work) {
            ScopedConnection scoped = Objects.requireNonNull(ScopedConnection.in(connection));
            return work.contextWrite(context -> scoped.scope().session().root().with(scoped.scope(), context));
        }
    }

    @Nested
    class Holdable {

        private final ConnectionScopes holding =
                witness.watch(scopes.with(ScopeOptions.defaults().withHoldableCursors(true)));

        @Test
        void isReadOutsideATransactionAndClosedAtItsEnd() {
            rows(10);
            assertThat(holding.withConnectionMany(c -> Rows.ints(query(c)))
                            .collectList()
                            .block(Duration.ofMinutes(1)))
                    .isEqualTo(upTo(10));
            assertThat(database.log())
                    .containsExactly("create", "open#1", "fetch#1", "fetch#1", "fetch#1", "close cursor#1", "close#1");
        }

        @Test
        void isClosedWithTheScopeIfItIsStillOpenThen() {
            rows(10);
            Probe<Integer> rows = Probe.requesting(1);
            holding.withConnection(c -> {
                        read(c, rows);
                        database.on("fetch 2", () -> Flux.just(1, 2, 3, 4));
                        read(c, Probe.requesting(1));
                        return Mono.just(1);
                    })
                    .block(Duration.ofMinutes(1));
            assertThat(database.log()).endsWith("close all cursors#1", "close#1");
            assertThat(sent("close all cursors")).isEqualTo(1);
        }

        @Test
        void isClosedAfterAnErrorOfTheDatabaseAsWell() {
            R2dbcNonTransientResourceException refused = new R2dbcNonTransientResourceException("x", "22012");
            database.on("fetch", () -> Mono.error(refused));
            Probe<Integer> probe = subscribe(holding.withConnectionMany(c -> Rows.ints(query(c))), Probe.unbounded());
            assertThat(probe.awaitEnd().error()).isSameAs(refused);
            assertThat(sent("close cursor")).isEqualTo(1);
        }
    }
}
