package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.OutParameters;
import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.TransactionDefinition;
import io.r2dbc.spi.ValidationDepth;
import io.r2dbc.spi.Wrapped;
import java.lang.reflect.Proxy;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/** What becomes of each call of the SPI on the connection that a scope hands out. */
class HandleCallsTest {

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture logged = new LogCapture();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final NotingDriver driver = new NotingDriver(database);
    private final List<ScopeEvent> events = new ArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final IllegalStateException failure = new IllegalStateException("of the database");

    private static @Nullable Throwable errorOf(Mono<?> scope) {
        return scope.then(Mono.<Throwable>empty()).onErrorResume(Mono::just).block(FormContract.PATIENCE);
    }

    private void plain(Function<Connection, Publisher<?>> body) {
        assertThat(errorOf(scopes.withConnection(c -> Flux.from(body.apply(c)).then())))
                .isNull();
    }

    private void assertSent(String... steps) {
        List<String> all = new ArrayList<>(List.of("create"));
        all.addAll(List.of(steps));
        all.add("close#1");
        assertThat(database.log()).isEqualTo(all);
    }

    private boolean isDestroyed() {
        return events.stream()
                .filter(ScopeEvent.Released.class::isInstance)
                .map(ScopeEvent.Released.class::cast)
                .findFirst()
                .orElseThrow()
                .destroyed();
    }

    @Nested
    class InAPlainScope {

        @Test
        void aTransactionIsTheCodesOwn() {
            plain(c -> Flux.concat(
                    c.beginTransaction(),
                    Mono.fromRunnable(() -> assertThat(c.isAutoCommit()).isFalse()),
                    c.createSavepoint("s"),
                    c.rollbackTransactionToSavepoint("s"),
                    c.releaseSavepoint("s"),
                    c.commitTransaction(),
                    Mono.fromRunnable(() -> assertThat(c.isAutoCommit()).isTrue()),
                    c.beginTransaction(IsolationLevel.SERIALIZABLE),
                    c.rollbackTransaction()));
            assertSent(
                    "begin#1",
                    "savepoint#1",
                    "rollback to savepoint#1",
                    "release savepoint#1",
                    "commit#1",
                    "begin#1",
                    "rollback#1");
        }

        @Test
        void aTransactionThatIsLeftOpenIsRolledBackAndTold() {
            plain(Connection::beginTransaction);
            assertSent("begin#1", "rollback#1");
            assertThat(isDestroyed()).isFalse();
            assertThat(logged.lines()).singleElement().asString().contains("WARN", "left a transaction open");
        }

        @Test
        void autoCommitIsSwitchedBackOnIfARollbackDoesNot() {
            plain(c -> c.setAutoCommit(false));
            assertSent("setAutoCommit#1", "rollback#1", "setAutoCommit#1");
            assertThat(isDestroyed()).isFalse();
        }

        @Test
        void aConnectionWhoseAutoCommitStaysOffIsDestroyed() {
            plain(c -> Mono.from(c.setAutoCommit(false))
                    .then(Mono.fromRunnable(() -> database.on("setAutoCommit", () -> Mono.error(failure)))));
            assertThat(isDestroyed()).isTrue();
        }

        @Test
        void closingAHandleEndsTheTransactionThatItBegan() {
            plain(c -> Flux.concat(
                    c.close(),
                    c.beginTransaction(),
                    Mono.from(scopes.connectionFactory().create()).flatMap(other -> Mono.from(other.close())),
                    Mono.fromRunnable(() -> assertThat(c.isAutoCommit()).isFalse()),
                    c.close()));
            assertSent("begin#1", "rollback#1");
            assertThat(logged.lines()).isEmpty();
        }

        @Test
        void twoPartsOfItCannotBeginOneEach() {
            plain(c -> Mono.from(scopes.connectionFactory().create())
                    .flatMapMany(other -> Flux.concat(
                            c.beginTransaction(),
                            Mono.from(c.beginTransaction()),
                            Mono.from(other.beginTransaction())
                                    .then(Mono.<Throwable>empty())
                                    .onErrorResume(Mono::just)
                                    .doOnSuccess(error -> assertThat(error)
                                            .isInstanceOf(IllegalStateException.class)
                                            .hasMessageContaining("Another part of the scope has begun a transaction")
                                            .hasMessageContaining("scope ")),
                            c.commitTransaction(),
                            other.beginTransaction(),
                            other.rollbackTransaction(),
                            c.beginTransaction(),
                            c.rollbackTransaction())));
            assertSent("begin#1", "begin#1", "commit#1", "begin#1", "rollback#1", "begin#1", "rollback#1");
        }

        @Test
        void aTransactionThatCouldNotBeginOrEndIsNobodysAnyMore() {
            database.on("begin", () -> Mono.error(failure)).on("commit", () -> Mono.error(failure));
            plain(c -> Mono.from(scopes.connectionFactory().create())
                    .flatMapMany(other -> Flux.concat(
                            Mono.from(c.beginTransaction()).onErrorComplete(),
                            Mono.fromRunnable(() -> database.on("begin", Mono::empty)),
                            other.beginTransaction(),
                            Mono.from(other.commitTransaction()).onErrorComplete(),
                            c.beginTransaction(),
                            c.rollbackTransaction())));
            assertSent("begin#1", "begin#1", "commit#1", "begin#1", "rollback#1");
        }

        @Test
        void theIsolationLevelIsSetBack() {
            plain(c -> Mono.from(c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE))
                    .then(Mono.fromRunnable(
                            () -> assertThat(c.getTransactionIsolationLevel()).isEqualTo(IsolationLevel.SERIALIZABLE)))
                    .then(Mono.from(c.setTransactionIsolationLevel(IsolationLevel.REPEATABLE_READ))));
            assertSent("isolation#1", "isolation#1", "isolation#1");
            assertThat(driver.noted()).containsExactly("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED");
        }

        @Test
        void theIsolationLevelThatATransactionLeavesBehindIsSetBack() {
            plain(c -> Flux.concat(
                    c.beginTransaction(new TransactionDefinition() {
                        @Override
                        public <T> @Nullable T getAttribute(io.r2dbc.spi.Option<T> option) {
                            return null;
                        }
                    }),
                    c.commitTransaction(),
                    Mono.fromRunnable(() -> driver.first().isolationIs(IsolationLevel.SERIALIZABLE))));
            assertSent("begin#1", "commit#1", "isolation#1");
            assertThat(driver.noted()).containsExactly("READ COMMITTED");
        }

        @Test
        void anIsolationLevelThatIsTheSameAgainIsLeftAlone() {
            plain(c -> Flux.concat(c.beginTransaction(IsolationLevel.SERIALIZABLE), c.commitTransaction()));
            assertSent("begin#1", "commit#1");
        }

        @Test
        void aConnectionWhoseTimeoutsCannotBeSetBackIsDestroyed() {
            plain(c -> c.setStatementTimeout(Duration.ofSeconds(1)));
            assertSent("statementTimeout#1");
            assertThat(isDestroyed()).isTrue();
            assertThat(events)
                    .hasAtLeastOneElementOfType(ScopeEvent.ReleaseFailed.class)
                    .anySatisfy(event -> assertThat(event)
                            .asString()
                            .startsWith("ReleaseFailed")
                            .contains("is not in a known state"));
        }

        @Test
        void timeoutsAreSetBackWhereTheDatabaseCan() {
            driver.on("reset timeouts", Mono::empty);
            plain(c -> Mono.from(c.setLockWaitTimeout(Duration.ofSeconds(1)))
                    .then(Mono.from(c.setStatementTimeout(Duration.ofSeconds(2)))));
            assertSent("lockWaitTimeout#1", "statementTimeout#1");
            assertThat(driver.noted()).containsExactly("lock PT1S", "statement PT2S", "reset timeouts");
            assertThat(isDestroyed()).isFalse();
        }

        @Test
        void aTransactionInsideLeavesItTheTimeoutsThatItHadSetItself() {
            driver.on("reset timeouts", Mono::empty);
            plain(c -> Flux.concat(
                    c.setStatementTimeout(Duration.ofSeconds(1)),
                    c.setLockWaitTimeout(Duration.ofSeconds(2)),
                    scopes.inTransaction(t -> Flux.concat(
                                    t.setStatementTimeout(Duration.ofSeconds(3)),
                                    t.setLockWaitTimeout(Duration.ofSeconds(4)))
                            .then())));
            assertThat(driver.noted())
                    .containsExactly(
                            "statement PT1S",
                            "lock PT2S",
                            "statement PT3S",
                            "lock PT4S",
                            "reset timeouts",
                            "statement PT1S",
                            "lock PT2S",
                            "reset timeouts");
        }

        @Test
        void aTransactionInsideThatSetsATimeoutFirstLeavesNone() {
            driver.on("reset timeouts", Mono::empty);
            plain(c -> scopes.inTransaction(t -> Mono.from(t.setStatementTimeout(Duration.ofSeconds(3)))));
            assertSent("begin#1", "statementTimeout#1", "commit#1");
            assertThat(driver.noted()).containsExactly("statement PT3S", "reset timeouts");
        }

        @Test
        void timeoutsOfATransactionInsideThatCannotBeSetBackCostTheOuterScopeItsConnection() {
            plain(c -> scopes.inTransaction(t -> Mono.from(t.setStatementTimeout(Duration.ofSeconds(3)))));
            assertSent("begin#1", "statementTimeout#1", "commit#1");
            assertThat(events.stream()
                            .filter(ScopeEvent.Released.class::isInstance)
                            .map(event -> ((ScopeEvent.Released) event).destroyed()))
                    .containsExactly(false, true);
        }

        @Test
        void validationAsksTheDriverOnThisSideOrTheDatabase() {
            plain(c -> Flux.concat(c.validate(ValidationDepth.LOCAL), c.validate(ValidationDepth.REMOTE))
                    .collectList()
                    .doOnNext(answers -> assertThat(answers).containsExactly(true, true)));
            assertSent("validate#1");
        }

        @Test
        void theRestIsTheDrivers() {
            database.onScheduler(Schedulers::immediate);
            plain(c -> Mono.fromRunnable(() -> {
                assertThat(c.getMetadata().getDatabaseProductName()).isEqualTo("probe");
                assertThat(c).hasToString("ScopedConnection[" + labelOf(c) + ", noting ProbeConnection#1]");
                Wrapped<?> wrapped = (Wrapped<?>) c;
                NotingDriver.NotingConnection first = driver.first();
                assertThat(wrapped.unwrap()).isSameAs(first);
                assertThat(wrapped.unwrap(Connection.class)).isSameAs(c);
                assertThat(wrapped.unwrap(NotingDriver.NotingConnection.class)).isSameAs(first);
                assertThat(wrapped.unwrap(Scheduler.class)).isSameAs(Schedulers.immediate());
                assertThat(wrapped.unwrap(String.class)).isNull();
                assertThat(c.createStatement("select 1")).hasToString("ScopedStatement[select 1]");
            }));
            assertSent();
        }

        private static String labelOf(Connection connection) {
            return Objects.requireNonNull(ScopedConnection.in(connection))
                    .scope()
                    .label()
                    .toString();
        }
    }

    @Nested
    class InATransaction {

        private @Nullable Throwable inTransaction(Function<Connection, Publisher<?>> body) {
            return errorOf(scopes.inTransaction(c -> Flux.from(body.apply(c)).then()));
        }

        @Test
        void beginningAndCommittingAreLeftToTheScope() {
            assertThat(inTransaction(c -> Flux.concat(
                            c.beginTransaction(),
                            c.beginTransaction(IsolationLevel.SERIALIZABLE),
                            c.commitTransaction(),
                            c.setAutoCommit(false),
                            Mono.fromRunnable(() -> assertThat(c.isAutoCommit()).isFalse()),
                            c.close())))
                    .isNull();
            assertSent("begin#1", "commit#1");
        }

        @Test
        void rollingBackDoomsIt() {
            assertThat(inTransaction(Connection::rollbackTransaction))
                    .isInstanceOf(ScopeRolledBackException.class)
                    .hasMessageContaining("code inside the scope called rollbackTransaction()");
            assertSent("begin#1", "rollback#1");
        }

        @Test
        void autoCommitCannotBeSwitchedOn() {
            assertThat(inTransaction(c -> c.setAutoCommit(true)))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("Auto-commit cannot be switched on inside a transactional scope")
                    .hasMessageContaining("scope ");
            assertSent("begin#1", "rollback#1");
        }

        @Test
        void savepointsAreSent() {
            assertThat(inTransaction(c -> Flux.concat(
                            c.createSavepoint("s"), c.rollbackTransactionToSavepoint("s"), c.releaseSavepoint("s"))))
                    .isNull();
            assertSent("begin#1", "savepoint#1", "rollback to savepoint#1", "release savepoint#1", "commit#1");
        }
    }

    @Nested
    class UnderTransactionPooling {

        private @Nullable Throwable error(Function<Connection, Publisher<Void>> setter) {
            return errorOf(scopes.with(ScopeOptions.defaults().withTransactionPooling(true))
                    .inTransaction(c -> Mono.from(setter.apply(c))));
        }

        @Test
        void whatOutlivesATransactionIsRefused() {
            assertThat(error(c -> c.setStatementTimeout(Duration.ofSeconds(1))))
                    .isInstanceOf(TransactionPoolingException.class)
                    .hasMessageContaining("setting the statement timeout")
                    .hasMessageContaining("ScopeOptions.withStatementTimeout");
            assertThat(error(c -> c.setLockWaitTimeout(Duration.ofSeconds(1))))
                    .isInstanceOf(TransactionPoolingException.class)
                    .hasMessageContaining("withLockWaitTimeout");
            assertThat(error(c -> c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE)))
                    .isInstanceOf(TransactionPoolingException.class)
                    .hasMessageContaining("TransactionOptions.withIsolation");
            assertThat(driver.noted()).isEmpty();
        }
    }

    @Test
    void aConnectionThatArrivesInAnOpenTransactionIsRolledBackBeforeItIsUsed() {
        database.on(
                "create", () -> Mono.fromSupplier(database::newConnection).delayUntil(Connection::beginTransaction));
        plain(c -> Rows.ints(c, "select 1"));
        assertSent("begin#1", "rollback#1", "select 1#1");
        assertThat(logged.lines()).singleElement().asString().contains("WARN", "in an open transaction");
    }

    @Test
    void aConnectionWhoseAutoCommitIsAlwaysOffGoesBackAsItIs() {
        driver.withoutAutoCommit();
        plain(c -> Rows.ints(c, "select 1"));
        assertSent("rollback#1", "select 1#1");
        assertThat(isDestroyed()).isFalse();
    }

    @Test
    void whatIsBoundToAStatementAndSaidOfItIsTheDrivers() {
        plain(c -> c.createStatement("insert")
                .bind(0, "a")
                .bind("b", 2)
                .add()
                .bindNull(0, String.class)
                .bindNull("b", Integer.class)
                .returnGeneratedValues("id", "at")
                .fetchSize(7)
                .execute());
        assertThat(driver.noted())
                .containsExactly(
                        "insert 0=a",
                        "insert b=2",
                        "insert again",
                        "insert 0=String",
                        "insert b=Integer",
                        "insert returning id,at",
                        "insert by 7");
        assertSent("insert#1", "insert#1");
    }

    /** Which are no rows: only the driver can map them. */
    @Test
    void theOutParametersOfAProcedureAreMapped() {
        Readable parameters = (Readable) Proxy.newProxyInstance(
                HandleCallsTest.class.getClassLoader(),
                new Class<?>[] {OutParameters.class},
                (proxy, method, args) -> method.getName().equals("get") ? 7 : null);
        Result ofTheDriver = (Result) Proxy.newProxyInstance(
                HandleCallsTest.class.getClassLoader(),
                new Class<?>[] {Result.class},
                (proxy, method, args) -> Mono.justOrEmpty(args[0] instanceof Function<?, ?> ? parameters : null)
                        .map(readable -> mapped(args[0], readable)));
        driver.executing("call", () -> Flux.just(ofTheDriver));
        List<Integer> read = new ArrayList<>();
        plain(c -> Flux.from(c.createStatement("call").execute())
                .flatMap(result -> result.map(readable -> readable.get(0, Integer.class)))
                .doOnNext(read::add));
        assertThat(read).containsExactly(7);
    }

    @SuppressWarnings("unchecked")
    private static Object mapped(Object mapping, Readable readable) {
        return ((Function<Readable, Object>) mapping).apply(readable);
    }

    @Test
    void resultsThatWereReadAheadComeAsTheyAreAskedFor() {
        Probe<Result> results = Probe.requesting(1);
        plain(c -> Mono.fromRunnable(() -> Flux.<Result>from(
                                c.createBatch().add("one").add("two").execute())
                        .subscribe(results))
                .thenMany(Rows.ints(c, "behind them"))
                .doOnNext(row -> {
                    assertThat(results.values()).hasSize(1);
                    assertThat(results.isTerminated()).isFalse();
                    results.request(1);
                    assertThat(results.values()).hasSize(2);
                    assertThat(results.isCompleted()).isTrue();
                }));
        assertSent("one#1", "two#1", "behind them#1");
    }

    @Test
    void aBatchIsCalledByItsFirstStatementAndTheNumberOfOthers() {
        plain(c -> Flux.concat(
                c.createBatch().add("one").execute(),
                c.createBatch().add("one").add("two").add("three").execute()));
        assertThat(events.stream()
                        .filter(ScopeEvent.StatementEnded.class::isInstance)
                        .map(event -> ((ScopeEvent.StatementEnded) event).sql()))
                .containsExactly("one", "one; and 2 more");
    }

    @Test
    void whatIsBoundToAQueryIsBoundToItsCursor() {
        driver.on("cursors", Mono::empty);
        assertThat(errorOf(scopes.inTransactionMany(c -> Rows.ints(c.createStatement("paged")
                                .bind(0, "a")
                                .bind("b", 2)
                                .bindNull(2, String.class)
                                .bindNull("d", Integer.class)
                                .fetchSize(7)))
                        .then()))
                .isNull();
        assertThat(driver.noted())
                .filteredOn(step -> step.startsWith("open"))
                .containsExactly(
                        "open paged by 0",
                        "open paged 0=a",
                        "open paged b=2",
                        "open paged 2=String",
                        "open paged d=Integer");
    }

    @Test
    void aTransactionThatCodeBeganKeepsOthersFromBeginningOneInside() {
        Throwable error = errorOf(scopes.withConnection(
                c -> Mono.from(c.beginTransaction()).then(scopes.inTransaction(t -> Mono.just(1)))));
        assertThat(error)
                .isInstanceOf(ScopeAcquisitionException.class)
                .hasMessageContaining("Code inside the scope has begun a transaction on its connection");
        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
    }
}
