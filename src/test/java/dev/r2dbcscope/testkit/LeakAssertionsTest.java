package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.ScopeClosedException;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/** What is found of what a test leaves behind, and what is not. */
class LeakAssertionsTest {

    private static final Duration AT_ONCE = Duration.ZERO;
    private static final String HERE = LeakAssertionsTest.class.getName();

    private final ProbeConnectionFactory probe = ProbeConnectionFactory.of();
    private final LeakAssertions leaks = LeakAssertions.of();
    private final ConnectionFactory connections = leaks.watch(probe);
    private final ConnectionScopes scopes =
            ConnectionScopes.of(connections).with(ScopeOptions.defaults().withName("orders"));

    private final ProbeHold hold = ProbeHold.of();
    private final Disposable.Composite started = Disposables.composite();

    /** Nothing of it is to be met by the tests that follow. */
    @AfterEach
    void end() {
        started.dispose();
        hold.release();
    }

    private <T> Disposable start(Publisher<T> pipeline) {
        Disposable running = Flux.from(pipeline).subscribe();
        started.add(running);
        return running;
    }

    private String leak() {
        return Objects.requireNonNull(catchThrowableOfType(AssertionError.class, () -> leaks.assertNothingHeld(AT_ONCE))
                .getMessage());
    }

    private static Connection taken(ConnectionFactory factory) {
        return Mono.<Connection>fromDirect(factory.create()).blockOptional().orElseThrow();
    }

    private static Flux<Integer> ints(Connection connection, String sql) {
        return Flux.from(connection.createStatement(sql).execute())
                .flatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class)));
    }

    // nothing to be found --------------------------------------------------------------------------------------------

    @Test
    void findsNothingWhereEverythingWasGivenBack() {
        scopes.inTransaction(c -> ints(c, "select 1").next()).block();
        scopes.withConnectionMany(c -> Flux.never()).subscribe().dispose();
        Mono.usingWhen(connections.create(), c -> ints(c, "select 1").next(), Connection::close)
                .block();
        scopes.withConnection(c -> scopes.transactions(Propagation.REQUIRES_NEW).inTransaction(own -> Mono.just(1)))
                .block();
        probe.on("create", () -> Mono.error(new IllegalStateException()));
        scopes.withConnection(c -> Mono.empty()).onErrorComplete().block();
        Mono.from(connections.create()).onErrorComplete().block();

        assertThat(leaks.held()).isEmpty();
        leaks.assertNothingHeld(AT_ONCE);
    }

    @Test
    void waitsForWhatIsOnItsWayBack() {
        probe.on("rollback", ProbeFault.hold(hold));
        scopes.inTransactionMany(c -> Flux.never()).subscribe().dispose();
        assertThat(leaks.held()).hasSize(1);

        AtomicBoolean later = new AtomicBoolean();
        Schedulers.parallel()
                .schedule(
                        () -> {
                            later.set(true);
                            hold.release();
                        },
                        50,
                        TimeUnit.MILLISECONDS);

        leaks.assertNothingHeld();
        assertThat(later).isTrue();
        assertThat(probe.live()).isZero();
    }

    @Test
    void doesNotWaitWhenItsThreadIsInterrupted() {
        taken(connections);
        Thread.currentThread().interrupt();

        assertThatThrownBy(() -> leaks.assertNothingHeld(Duration.ofDays(1))).isInstanceOf(AssertionError.class);

        assertThat(Thread.interrupted()).isTrue();
    }

    // connections beside scopes --------------------------------------------------------------------------------------

    @Test
    void namesTheLineThatTookAConnectionAndWhatRunsOnIt() {
        probe.on("select 1", ProbeFault.hold(hold));
        start(ints(taken(connections), "select 1"));

        assertThat(leak())
                .startsWith("1 leak:\n  1. connection taken at " + HERE + ".taken(LeakAssertionsTest.java:")
                .contains("was not closed: held for")
                .endsWith("; in flight: \"select 1\"");
    }

    @Test
    void namesWhatRanLast() {
        Connection connection = taken(connections);
        assertThat(leaks.held()).singleElement().asString().endsWith("; never used");

        ints(connection, "select 1").blockLast();
        assertThat(leaks.held()).singleElement().asString().endsWith("; last: \"select 1\"");

        Flux.from(connection.createBatch().add("select 2").add("select 3").execute())
                .flatMap(Result::getRowsUpdated)
                .blockLast();
        assertThat(leak()).endsWith("; last: \"select 2;\nselect 3\"");
    }

    @Test
    void namesTheOlderOfTwoExecutionsUntilItHasEnded() {
        Connection connection = taken(connections);
        probe.on("select 1", ProbeFault.hold(hold));
        start(ints(connection, "select 1"));
        Disposable again = start(ints(connection, "select 1"));
        again.dispose();
        assertThat(leaks.held()).singleElement().asString().endsWith("; in flight: \"select 1\"");

        hold.release();

        assertThat(leak()).endsWith("; last: \"select 1\"");
    }

    @Test
    void namesTheLineThatCalledTheLibraryThatTookAConnection() {
        Flux.just(connections)
                .flatMap(ConnectionFactory::create)
                .map(connection -> connection.getMetadata().getDatabaseProductName())
                .blockLast();

        assertThat(leak()).contains("taken at " + HERE + ".namesTheLineThatCalledTheLibraryThatTookAConnection(");
    }

    @Test
    void namesTheThreadWhereOnlyLibrariesAreOnTheStack() throws InterruptedException {
        Scheduler scheduler = Schedulers.newSingle("far away");
        try {
            CountDownLatch taken = new CountDownLatch(1);
            Mono.just(connections)
                    .publishOn(scheduler)
                    .flatMapMany(ConnectionFactory::create)
                    .subscribe(connection -> taken.countDown());
            taken.await();
        } finally {
            scheduler.dispose();
        }

        assertThat(leak()).contains("taken at unknown code on thread far away-");
    }

    @Test
    void saysWhenNobodySubscribedToTheClose() {
        Publisher<Void> forgotten = taken(connections).close();

        assertThat(leaks.held())
                .singleElement()
                .asString()
                .contains("because nobody subscribed to what its close() returned");

        Mono.from(forgotten).block();
        leaks.assertNothingHeld(AT_ONCE);
    }

    @Test
    void saysWhenTheCloseHasNotEnded() {
        Connection connection = taken(connections);
        probe.on("close", Mono::never);
        Mono.from(connection.close()).subscribe();

        assertThat(leak()).contains("is still being closed");
    }

    @Test
    void findsAnAcquisitionThatHasNotEnded() {
        probe.on("create", ProbeFault.hold(hold));
        Disposable wish = start(connections.create());

        assertThat(leaks.held())
                .singleElement()
                .asString()
                .contains("connection asked for at " + HERE)
                .contains("has not come for");

        wish.dispose();
        leaks.assertNothingHeld(AT_ONCE);
    }

    @Test
    void findsASecondConnectionThatNobodyAskedFor() {
        probe.on("create", () -> Flux.just(probe.newConnection(), probe.newConnection()));
        Flux.from(connections.create()).take(1).flatMap(Connection::close).blockLast();
        leaks.assertNothingHeld(AT_ONCE);

        Flux.from(connections.create()).blockLast();

        assertThat(leak()).startsWith("2 leaks:\n  1. ").contains("\n  2. ");
    }

    // scopes ---------------------------------------------------------------------------------------------------------

    @Test
    void namesAScopeItsOriginAndWhatItDoes() {
        probe.on("select 1", ProbeFault.hold(hold));
        start(scopes.inTransactionMany(c -> ints(c, "select 1")));

        assertThat(leak())
                .startsWith("1 leak:\n  1. scope 'orders' assembled at " + HERE + ".namesAScopeItsOriginAndWhatItDoes(")
                .containsPattern("holds a connection: [A-Z_]+ \"select 1\", held for \\d+ ms")
                .endsWith("statements begun: 1, in flight: 1, waiting at the gate: 0");
    }

    @Test
    void namesAScopeThatDoesNothing() {
        start(scopes.withConnection(c -> Mono.never()));

        assertThat(leak()).contains("scope 'orders'").contains("holds a connection: IDLE, held for");
    }

    @Test
    void namesAScopeThatWaitsForAConnection() {
        probe.on("create", ProbeFault.hang());
        start(scopes.withConnection(c -> Mono.never()));

        assertThat(leak()).startsWith("1 leak:").contains("has waited for a connection for");
    }

    @Test
    void namesScopesOfAFactoryThatIsNotWatchedItself() {
        LeakAssertions others = LeakAssertions.of();
        ConnectionScopes watched = others.watch(
                ConnectionScopes.of(probe).with(ScopeOptions.defaults().withName("exports")));
        probe.on("select 1", ProbeFault.hold(hold));
        start(watched.withConnectionMany(c -> ints(c, "select 1")));

        assertThat(others.held())
                .singleElement()
                .asString()
                .startsWith("scope 'exports' assembled at " + HERE)
                .contains("\"select 1\"");
        assertThat(leaks.held()).isEmpty();
        assertThat(watched.options().name()).isEqualTo("exports");
    }

    @Test
    void namesATransactionAndTheScopeThatItIsIn() {
        start(scopes.withConnection(
                c -> scopes.with(ScopeOptions.defaults().withName("lines")).inTransaction(t -> Mono.never())));

        assertThat(leak()).startsWith("2 leaks:").contains("scope 'orders'").contains("scope 'lines'");
    }

    // uses after the end ---------------------------------------------------------------------------------------------

    @Test
    void findsAUseOfAHandleAfterItsScopeEvenIfTheErrorWasSwallowed() {
        Connection escaped = scopes.withConnection(Mono::just).blockOptional().orElseThrow();
        Mono.fromRunnable(() -> escaped.createStatement("insert"))
                .onErrorComplete()
                .block();

        assertThat(leak())
                .startsWith("1 leak:\n  1. scope 'orders' assembled at " + HERE)
                .contains("was used after its end: \"insert\", by " + HERE);
        leaks.assertNothingHeld(AT_ONCE);
    }

    @Test
    void findsAUseOnceThoughItHearsOfItTwice() {
        Connection escaped =
                leaks.watch(scopes).withConnection(Mono::just).blockOptional().orElseThrow();
        assertThatThrownBy(() -> escaped.createStatement("insert")).isInstanceOf(ScopeClosedException.class);

        assertThat(leak()).startsWith("1 leak:");
    }

    @Test
    void findsAUseOfAConnectionAfterItsClose() {
        Connection connection = taken(connections);
        Publisher<?> execution = connection.createStatement("insert").execute();
        Mono.from(connection.close()).block();

        Flux.from(execution).onErrorComplete().blockLast();
        Flux.from(connection.commitTransaction()).onErrorComplete().blockLast();

        assertThat(leak())
                .startsWith("1 leak:\n  1. connection taken at " + HERE)
                .contains("was used after its close: \"insert\", by " + HERE);
    }

    @Test
    void findsNoUseInWhatMayBeAskedOfAClosedConnection() {
        Connection connection = taken(connections);
        Mono.from(connection.close()).block();

        assertThat(Mono.from(connection.validate(ValidationDepth.LOCAL)).block())
                .isFalse();
        assertThat(connection.isAutoCommit()).isTrue();

        leaks.assertNothingHeld(AT_ONCE);
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void findsEveryCallThatLeadsToTheDatabase(boolean batch) {
        for (Function<Connection, Publisher<?>> call : ConnectionCalls.ALL) {
            Connection connection = taken(connections);
            Publisher<?> inTime = batch ? connection.createBatch().add("a").execute() : call.apply(connection);
            Mono.from(connection.close()).block();
            Flux.from(batch ? inTime : call.apply(connection)).onErrorComplete().blockLast();

            assertThat(leak()).startsWith("1 leak:").contains("was used after its close");
        }
    }

    // whose fault it is ----------------------------------------------------------------------------------------------

    @Test
    void tellsEverythingOnce() {
        Connection connection = taken(connections);
        start(scopes.withConnection(c -> Mono.never()));
        assertThat(leak()).startsWith("2 leaks:");

        leaks.assertNothingHeld(AT_ONCE);
        assertThat(leaks.held()).isEmpty();

        Mono.from(connection.close()).block();
        assertThatCode(() -> Flux.from(connection.beginTransaction()).blockLast())
                .doesNotThrowAnyException();
        leaks.assertNothingHeld(AT_ONCE);
    }

    @Test
    void ignoresWhatWasHeldBefore() {
        Connection fixture = taken(connections);
        AtomicReference<Connection> escaped = new AtomicReference<>();
        scopes.withConnection(c -> {
                    escaped.set(c);
                    return Mono.empty();
                })
                .block();
        leaks.ignoreHeld();

        assertThatThrownBy(() -> escaped.get().createStatement("late")).isInstanceOf(ScopeClosedException.class);
        ints(fixture, "select 1").blockLast();
        leaks.assertNothingHeld(AT_ONCE);

        Connection own = taken(connections);
        assertThat(leaks.held()).hasSize(1);
        Mono.from(own.close()).block();
        Mono.from(fixture.close()).block();
        leaks.assertNothingHeld(AT_ONCE);
    }

    @Test
    void isTheSameForAllWhoShareIt() {
        assertThat(LeakAssertions.shared()).isSameAs(LeakAssertions.shared()).isNotSameAs(leaks);
    }

    // transparency ---------------------------------------------------------------------------------------------------

    @Test
    void isFoundThrough() {
        Connection connection = taken(connections);
        Scheduler scheduler = Schedulers.immediate();
        probe.onScheduler(() -> scheduler);

        assertThat(((Wrapped<?>) connections).unwrap()).isSameAs(probe);
        assertThat(connections.getMetadata().getName()).isEqualTo("probe");
        assertThat(((Wrapped<?>) connection).unwrap()).isInstanceOf(ProbeConnection.class);
        assertThat(((Wrapped<?>) connection).unwrap(ProbeConnection.class)).isNotNull();
        assertThat(((Wrapped<?>) connection).unwrap(WatchedConnection.class)).isSameAs(connection);
        assertThat(((Wrapped<?>) connection).unwrap(Scheduler.class)).isSameAs(scheduler);
        assertThat(((Wrapped<?>) connection).unwrap(String.class)).isNull();

        Mono.from(connection.close()).block();
    }

    @Test
    void scopesFindTheirDialectThroughIt() {
        probe.knowingCursors().on("query", () -> Flux.range(1, 5));

        assertThat(scopes.inTransactionMany(c -> Flux.from(
                                        c.createStatement("query").fetchSize(2).execute())
                                .concatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class))))
                        .collectList()
                        .block())
                .containsExactly(1, 2, 3, 4, 5);
        assertThat(probe.log()).contains("open#1", "fetch#1");
    }

    @Test
    void passesEverythingOnThatAStatementIsTold() {
        Connection connection = taken(connections);

        assertThat(Flux.from(connection
                                .createStatement("insert")
                                .bind(0, 1)
                                .bind("a", 2)
                                .bindNull(1, String.class)
                                .bindNull("b", String.class)
                                .returnGeneratedValues("id")
                                .fetchSize(10)
                                .add()
                                .bind(0, 2)
                                .execute())
                        .flatMap(Result::getRowsUpdated)
                        .collectList()
                        .block())
                .containsExactly(1L, 1L);

        Mono.from(connection.close()).block();
    }
}
