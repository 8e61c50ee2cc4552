package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.Result;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Function;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.publisher.TestPublisher;

/** Drivers that throw, signal twice, or have to be stopped; and subscribers that throw. */
class DriverBehaviourTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final NotingDriver driver = new NotingDriver(database);
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final IllegalStateException failure = new IllegalStateException("of the driver");
    private final Probe<Integer> probe = Probe.unbounded();

    private static <T> Publisher<T> throwing(Throwable error) {
        return subscriber -> {
            throw reactor.core.Exceptions.propagate(error);
        };
    }

    private void run(Function<Connection, Publisher<Integer>> body) {
        scopes.withConnectionMany(body).subscribe(probe);
    }

    @Nested
    class ADriverThat {

        @Test
        void throwsWhenAStatementIsSubscribedTo() {
            driver.executing("insert", () -> throwing(failure));
            run(c -> Rows.ints(c, "insert"));
            assertThat(probe.awaitEnd().error()).isSameAs(failure);
            assertThat(events)
                    .filteredOn(ScopeEvent.StatementEnded.class::isInstance)
                    .singleElement()
                    .satisfies(ended -> assertThat(((ScopeEvent.StatementEnded) ended).error())
                            .isSameAs(failure));
        }

        @Test
        void throwsWhenAResultIsRead() {
            Result result = NotingDriver.result(throwing(failure));
            driver.executing("insert", () -> Mono.just(result));
            run(c -> Rows.ints(c, "insert"));
            assertThat(probe.awaitEnd().error()).isSameAs(failure);
        }

        @Test
        void failsTwice() {
            TestPublisher<Result> results =
                    TestPublisher.createNoncompliant(TestPublisher.Violation.CLEANUP_ON_TERMINATE);
            driver.executing("insert", results::flux);
            run(c -> Rows.ints(c, "insert"));
            IllegalStateException second = new IllegalStateException("again");
            results.error(failure);
            assertThat(probe.awaitEnd().error()).isSameAs(failure);
            results.error(second);
            results.complete();
            assertThat(probe.drops().errors()).containsExactly(second);
            probe.assertSound();
        }

        @Test
        void goesOnAfterTheErrorOfOneOfManyBindingsIsStopped() {
            TestPublisher<Result> results = TestPublisher.create();
            driver.executing("insert", results::flux);
            run(c -> Rows.ints(c.createStatement("insert").add()));
            results.next(NotingDriver.result(Mono.error(failure)));
            results.assertCancelled();
            assertThat(probe.awaitEnd().error()).isSameAs(failure);
        }

        @Test
        void goesOnAfterTheErrorOfTheOnlyBindingIsAwaited() {
            TestPublisher<Result> results = TestPublisher.create();
            driver.executing("insert", results::flux);
            run(c -> Rows.ints(c, "insert"));
            results.next(NotingDriver.result(Mono.error(failure)));
            results.assertNotCancelled();
            assertThat(probe.isTerminated()).isFalse();
            results.complete();
            assertThat(probe.awaitEnd().error()).isSameAs(failure);
        }

        @Test
        void failsARequestToTheConnectionTwice() {
            TestPublisher<Void> savepoint =
                    TestPublisher.createNoncompliant(TestPublisher.Violation.CLEANUP_ON_TERMINATE);
            Publisher<Integer> answer = Mono.empty();
            run(c -> Flux.concat(
                    DriverTurn.<Integer>take(
                            c, "something", turn -> savepoint.flux().cast(Integer.class)),
                    answer));
            IllegalStateException second = new IllegalStateException("again");
            savepoint.error(failure);
            assertThat(probe.awaitEnd().error()).isSameAs(failure);
            savepoint.error(second);
            assertThat(probe.drops().errors()).containsExactly(second);
        }

        @Test
        void returnsNoPublisherFromATurn() {
            run(c -> DriverTurn.take(c, "something", turn -> null));
            assertThat(probe.awaitEnd().error())
                    .isInstanceOf(NullPointerException.class)
                    .hasMessageContaining("null publisher");
        }
    }

    /** Reactor throws errors of the JVM instead of signalling them, and leaves the operator as it is. */
    @Nested
    class ASubscriberThatThrowsFrom {

        private final NoClassDefFoundError fatal = new NoClassDefFoundError("of the subscriber");

        private void assertFailedWithIt() {
            assertThat(probe.awaitEnd().error()).isSameAs(fatal);
            assertThat(database.log()).endsWith("close#1");
        }

        @Test
        void theArrivalOfAResult() {
            run(c -> Flux.from(c.createStatement("select 1").execute()).map(result -> {
                throw fatal;
            }));
            assertFailedWithIt();
        }

        @Test
        void theEndOfAnExecution() {
            driver.executing("update", Mono::empty);
            run(c -> Flux.from(c.createStatement("update").execute())
                    .doOnComplete(() -> {
                        throw fatal;
                    })
                    .then(Mono.<Integer>never()));
            assertFailedWithIt();
        }

        @Test
        void theFailureOfAnExecution() {
            driver.executing("update", () -> Mono.error(failure));
            run(c -> Flux.from(c.createStatement("update").execute())
                    .onErrorResume(error -> {
                        throw fatal;
                    })
                    .then(Mono.<Integer>never()));
            assertFailedWithIt();
        }

        @Test
        void theEndOfAResult() {
            run(c -> Flux.from(c.createStatement("select 1").execute())
                    .concatMap(result -> Flux.from(result.map(row -> 1)).doOnComplete(() -> {
                        throw fatal;
                    })));
            assertFailedWithIt();
        }

        private void readByPages() {
            database.knowingCursors().on("create", () -> Mono.fromSupplier(database::newConnection));
        }

        @Test
        void theEndOfAReadByPages() {
            Step<Integer> page = new Step<>();
            readByPages();
            database.on("fetch", page);
            scopes.inTransactionMany(c -> Rows.ints(c.createStatement("query").fetchSize(2))
                            .doOnComplete(() -> {
                                throw fatal;
                            }))
                    .subscribe(probe);
            page.complete();
            assertFailedWithIt();
        }

        @Test
        void theEndOfAResultOfAScopeThatHasEndedIsDropped() {
            Step<Integer> rows = new Step<>();
            database.on("select", rows);
            Probe<Integer> late = Probe.unbounded();
            run(c -> {
                Rows.ints(c, "select")
                        .doOnComplete(() -> {
                            throw fatal;
                        })
                        .subscribe(late);
                return Flux.just(1);
            });
            rows.complete();
            assertThat(probe.awaitEnd().isCompleted()).isTrue();
            assertThat(probe.drops().errors()).containsExactly(fatal);
        }

        @Test
        void aRowOfAReadByPages() {
            readByPages();
            scopes.inTransactionMany(c -> Flux.from(
                                    c.createStatement("query").fetchSize(2).execute())
                            .concatMap(result -> Flux.from(result.map(row -> 1)).<Integer>map(row -> {
                                throw fatal;
                            })))
                    .subscribe(probe);
            assertFailedWithIt();
        }
    }

    @Nested
    class AReadByFetchSizeOutsideATransaction {

        private final TestPublisher<Integer> rows = TestPublisher.create();
        private final Step<Void> after = new Step<>();

        private Flux<Integer> query(Connection connection) {
            return Rows.ints(connection.createStatement("query").fetchSize(2));
        }

        private void start(int wanted) {
            database.on("query", rows::flux);
            scopes.withConnectionMany(c -> query(c).take(wanted)).subscribe(probe);
        }

        @Test
        void isStoppedWhenItIsLeftAndTheConnectionWaitsUntilThePortalIsClosed() {
            driver.on("after cancelled fetch", after);
            start(2);
            rows.next(1, 2);
            rows.assertCancelled();
            assertThat(driver.noted()).containsExactly("query by 2", "after cancelled fetch");
            assertThat(database.log()).doesNotContain("close#1");
            after.complete();
            assertThat(probe.awaitEnd().values()).containsExactly(1, 2);
            assertThat(database.log()).endsWith("close#1");
        }

        @Test
        void isReadToItsEndWhereTheDriverHasNoPortals() {
            driver.on("cancel", Mono::never);
            start(2);
            rows.next(1, 2, 3);
            rows.assertNotCancelled();
            assertThat(database.log()).doesNotContain("close#1");
            rows.complete();
            assertThat(probe.awaitEnd().values()).containsExactly(1, 2);
        }

        @Test
        void isNotStoppedBeforeItsFirstRow() {
            driver.on("cancel", Mono::never).on("after cancelled fetch", after);
            start(2);
            probe.cancel();
            rows.assertNotCancelled();
            rows.next(1);
            rows.assertCancelled();
            after.complete();
            assertThat(database.log()).endsWith("close#1");
        }

        @Test
        void anErrorOfWhatClosesThePortalIsNobodysBusiness() {
            driver.on("after cancelled fetch", () -> Mono.error(failure));
            start(1);
            rows.next(1);
            rows.assertCancelled();
            assertThat(probe.awaitEnd().values()).containsExactly(1);
            assertThat(probe.isCompleted()).isTrue();
        }
    }

    @Nested
    class AConnectionThatTheDatabaseEnds {

        @ParameterizedTest
        @ValueSource(booleans = {false, true})
        void isDestroyedEvenIfItsCodeKeepsTheErrorToItself(boolean ends) {
            database.on(
                    "select",
                    () -> Mono.error(new R2dbcNonTransientResourceException("gone", ends ? "08006" : "22012")));
            run(c -> Rows.ints(c, "select").onErrorComplete());
            assertThat(probe.awaitEnd().isCompleted()).isTrue();
            assertThat(events)
                    .filteredOn(ScopeEvent.Released.class::isInstance)
                    .singleElement()
                    .satisfies(released -> assertThat(((ScopeEvent.Released) released).destroyed())
                            .isEqualTo(ends));
        }
    }

    @Test
    void aConnectionThatTheDatabaseEndsInASavepointIsDestroyedWithTheTransaction() {
        database.on("select", () -> Mono.error(new R2dbcNonTransientResourceException("gone", "08006")));
        scopes.inTransactionMany(c -> scopes.transactions(Propagation.NESTED)
                        .inTransactionMany(s -> Rows.ints(s, "select"))
                        .onErrorComplete())
                .subscribe(probe);
        probe.awaitEnd();
        assertThat(events)
                .filteredOn(ScopeEvent.Released.class::isInstance)
                .last()
                .satisfies(released ->
                        assertThat(((ScopeEvent.Released) released).destroyed()).isTrue());
    }

    @Test
    void theErrorOfAStatementInASavepointExplainsWhyTheTransactionWasRefused() {
        R2dbcNonTransientResourceException reason = new R2dbcNonTransientResourceException("first", "22012");
        database.on("select", () -> Mono.error(reason))
                .on("commit", () -> Mono.error(new R2dbcRollbackException("refused", "25P02")));
        scopes.inTransactionMany(c -> scopes.transactions(Propagation.NESTED)
                        .inTransactionMany(s -> Rows.ints(s, "select").onErrorComplete()))
                .subscribe(probe);
        assertThat(probe.awaitEnd().error())
                .isInstanceOf(R2dbcRollbackException.class)
                .hasSuppressedException(reason);
    }
}
