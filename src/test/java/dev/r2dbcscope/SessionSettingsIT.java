package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.h2.H2ConnectionConfiguration;
import io.r2dbc.h2.H2ConnectionFactory;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.reactivestreams.Publisher;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What code inside a scope sets for its connection does not reach the next borrower. */
class SessionSettingsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final Duration SHORT = Duration.ofMillis(12_345);

    private enum Setting {
        STATEMENT_TIMEOUT(c -> c.setStatementTimeout(SHORT)),
        LOCK_TIMEOUT(c -> c.setLockWaitTimeout(SHORT)),
        ISOLATION(c -> c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE)),
        ALL(c -> Flux.concat(
                c.setStatementTimeout(SHORT),
                c.setLockWaitTimeout(SHORT),
                c.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE)));

        private final Function<Connection, Publisher<Void>> change;

        Setting(Function<Connection, Publisher<Void>> change) {
            this.change = change;
        }

        Mono<Void> on(Connection connection) {
            return Flux.from(change.apply(connection)).then();
        }
    }

    private enum Ending {
        COMPLETE,
        ERROR,
        CANCEL
    }

    static Stream<Arguments> cases() {
        return Stream.of(Setting.values())
                .flatMap(setting -> Stream.of(Ending.values())
                        .flatMap(ending ->
                                Stream.of(Arguments.of(setting, ending, false), Arguments.of(setting, ending, true))));
    }

    /** Runs a scope that changes the setting to the given end. */
    private static void run(ConnectionScopes scopes, Setting setting, Ending ending, boolean transactional)
            throws InterruptedException {
        CountDownLatch changed = new CountDownLatch(1);
        Function<Connection, Mono<Void>> body = c -> setting.on(c).then(Mono.defer(() -> {
            changed.countDown();
            return switch (ending) {
                case COMPLETE -> Mono.empty();
                case ERROR -> Mono.error(new IllegalStateException("the scope fails"));
                case CANCEL -> Mono.never();
            };
        }));
        Mono<Void> scope = transactional ? scopes.inTransaction(body) : scopes.withConnection(body);
        if (ending == Ending.CANCEL) {
            Disposable left = scope.subscribe();
            assertThat(changed.await(60, TimeUnit.SECONDS)).isTrue();
            left.dispose();
        } else {
            scope.onErrorResume(IllegalStateException.class, e -> Mono.empty()).block(LONG);
        }
        Await.until(() -> scopes.live().isEmpty(), () -> "still live: " + scopes.live());
    }

    private static void runWithALevelOfItsOwn(ConnectionScopes scopes) {
        scopes.transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.REPEATABLE_READ))
                .inTransaction(t -> Setting.ISOLATION.on(t))
                .block(LONG);
    }

    @Nested
    class OnPostgresql {

        private WatchedPool pool = WatchedPool.of(1);

        @AfterEach
        void theConnectionWasReturned() {
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
            pool.close();
        }

        /** As the server knows them. */
        private List<String> settings() {
            return pool.borrow(this::settings);
        }

        private Flux<String> settings(Connection connection) {
            return Flux.just("statement_timeout", "lock_timeout", "default_transaction_isolation")
                    .concatMap(name -> Flux.from(
                                    connection.createStatement("show " + name).execute())
                            .concatMap(result -> result.map((row, metadata) -> row.get(0, String.class))));
        }

        @ParameterizedTest
        @MethodSource("dev.r2dbcscope.SessionSettingsIT#cases")
        void theNextBorrowerHasTheOldOnes(Setting setting, Ending ending, boolean transactional)
                throws InterruptedException {
            List<String> before = settings();
            run(pool.scopes, setting, ending, transactional);
            pool.awaitQuiet();
            assertThat(settings()).isEqualTo(before);
            assertThat(pool.borrow(c -> Flux.just(c.getTransactionIsolationLevel())))
                    .containsExactly(IsolationLevel.READ_COMMITTED);
        }

        @Test
        void theScopeItselfHasTheNewOnes() {
            assertThat(pool.scopes
                            .withConnectionMany(c -> Setting.ALL.on(c).thenMany(settings(c)))
                            .collectList()
                            .block(LONG))
                    .containsExactly("12345ms", "12345ms", "serializable");
        }

        @Test
        void timeoutsThatTheFactoryWasConfiguredWithComeBack() throws InterruptedException {
            pool.close();
            pool = WatchedPool.to(
                    1,
                    server -> server.statementTimeout(Duration.ofSeconds(50)).lockWaitTimeout(Duration.ofSeconds(40)),
                    UnaryOperator.identity());
            assertThat(settings()).startsWith("50s", "40s");
            run(pool.scopes, Setting.ALL, Ending.COMPLETE, false);
            pool.awaitQuiet();
            assertThat(settings()).containsExactly("50s", "40s", "read committed");
        }

        @Test
        void aTransactionInsideAScopeLeavesTheScopeWhatItHadSet() {
            List<String> afterwards = pool.scopes
                    .withConnectionMany(c -> Mono.from(c.setStatementTimeout(Duration.ofSeconds(30)))
                            .then(pool.scopes.inTransaction(t -> Setting.ISOLATION.on(t)))
                            .thenMany(settings(c)))
                    .collectList()
                    .block(LONG);
            assertThat(afterwards).containsExactly("30s", "0", "read committed");
        }

        @Test
        void aTransactionInsideAScopeUndoesOnlyItsOwn() {
            List<String> afterwards = pool.scopes
                    .withConnectionMany(c -> Mono.from(c.setStatementTimeout(Duration.ofSeconds(30)))
                            .then(Mono.from(c.setLockWaitTimeout(Duration.ofSeconds(20))))
                            .then(pool.scopes.inTransaction(t -> Setting.ALL.on(t)))
                            .thenMany(settings(c)))
                    .collectList()
                    .block(LONG);
            assertThat(afterwards).containsExactly("30s", "20s", "read committed");
            assertThat(settings()).containsExactly("0", "0", "read committed");
        }

        @Test
        void theLevelOfATransactionIsNotTakenForThatOfItsConnection() {
            runWithALevelOfItsOwn(pool.scopes);
            pool.awaitQuiet();
            assertThat(settings()).containsExactly("0", "0", "read committed");
        }

        @Test
        void theLevelOfATransactionOfTheCodeItselfIsNotTakenForThatOfItsConnection() {
            pool.scopes
                    .withConnection(c -> Mono.from(c.beginTransaction(IsolationLevel.REPEATABLE_READ))
                            .then(Setting.ISOLATION.on(c))
                            .then(Mono.from(c.commitTransaction())))
                    .block(LONG);
            pool.awaitQuiet();
            assertThat(settings()).containsExactly("0", "0", "read committed");
        }
    }

    /** H2 has no dialect: what cannot be set back by the SPI is closed with the connection. */
    @Nested
    class OnH2 {

        @RegisterExtension
        private final LogCapture log = new LogCapture();

        private final ConnectionPool pool = new ConnectionPool(
                ConnectionPoolConfiguration.builder(new H2ConnectionFactory(H2ConnectionConfiguration.builder()
                                .inMemory("settings")
                                .build()))
                        .initialSize(0)
                        .maxSize(1)
                        .build());
        private final List<ScopeEvent.Released> releases = new CopyOnWriteArrayList<>();
        private final ConnectionScopes scopes = ConnectionScopes.of(pool)
                .with(ScopeOptions.defaults().withListener(event -> {
                    if (event instanceof ScopeEvent.Released released) {
                        releases.add(released);
                    }
                }));

        @AfterEach
        void theNextBorrowerIsServed() {
            assertThat(Mono.usingWhen(
                                    pool.create(), c -> Mono.just(c.getTransactionIsolationLevel()), Connection::close)
                            .block(LONG))
                    .isEqualTo(IsolationLevel.READ_COMMITTED);
            assertThat(pool.getMetrics().orElseThrow().acquiredSize()).isZero();
            pool.dispose();
        }

        @ParameterizedTest
        @EnumSource
        void aConnectionWithOtherTimeoutsIsDestroyed(Ending ending) throws InterruptedException {
            run(scopes, Setting.LOCK_TIMEOUT, ending, false);
            run(scopes, Setting.STATEMENT_TIMEOUT, ending, true);
            assertThat(releases).hasSize(2).allMatch(ScopeEvent.Released::destroyed);
            assertThat(log.lines()).hasSize(2).allMatch(line -> line.startsWith("WARN "));
        }

        @ParameterizedTest
        @EnumSource
        void anIsolationLevelIsSetBack(Ending ending) throws InterruptedException {
            run(scopes, Setting.ISOLATION, ending, false);
            run(scopes, Setting.ISOLATION, ending, true);
            assertThat(releases).hasSize(2).noneMatch(ScopeEvent.Released::destroyed);
        }

        @Test
        void aTransactionInsideAScopeLeavesTheDestructionToTheScope() {
            assertThat(scopes.withConnection(c -> scopes.inTransaction(t -> Setting.STATEMENT_TIMEOUT.on(t))
                                    .then(Rows.ints(c, "select 42").next()))
                            .block(LONG))
                    .isEqualTo(42);
            assertThat(releases).extracting(ScopeEvent.Released::destroyed).containsExactly(false, true);
        }

        @Test
        void theLevelOfATransactionEndsWithIt() {
            scopes.transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.REPEATABLE_READ))
                    .inTransaction(t -> Rows.ints(t, "select 1").next())
                    .block(LONG);
            assertThat(releases).hasSize(1).noneMatch(ScopeEvent.Released::destroyed);
        }

        @Test
        void theLevelOfATransactionIsNotTakenForThatOfItsConnection() {
            runWithALevelOfItsOwn(scopes);
            assertThat(releases).hasSize(1).noneMatch(ScopeEvent.Released::destroyed);
        }
    }
}
