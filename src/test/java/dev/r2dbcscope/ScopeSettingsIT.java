package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A scope runs under its session settings, and the next borrower does not. */
class ScopeSettingsIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private static final SessionSettings TENANT = SessionSettings.none().with("app.tenant", "t1");

    private static final SessionSettings ALL = TENANT.withRole("settings_guest")
            .withSearchPath("settings \"odd\"", "public")
            .withApplicationName("the application")
            .with("work_mem", "1234kB");

    private final WatchedPool pool = WatchedPool.of(1);

    @BeforeAll
    static void roles() {
        Postgres.execute("create role settings_guest");
        Postgres.execute("create schema \"settings \"\"odd\"\"\"");
        Postgres.execute("create table \"settings \"\"odd\"\"\".here (n int)");
        Postgres.execute("grant usage on schema \"settings \"\"odd\"\"\" to settings_guest");
        Postgres.execute("grant select on \"settings \"\"odd\"\"\".here to settings_guest");
    }

    @AfterEach
    void theConnectionIsWholeAndHasNoSettings() {
        pool.awaitQuiet();
        assertThat(pool.borrow(ScopeSettingsIT::shown)).isEqualTo(UNSET);
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    private static final List<String> UNSET =
            List.of("", "none", "\"$user\", public", "4MB", "off", "0", "0", "read committed");

    private static final List<String> SET = List.of(
            "t1",
            "settings_guest",
            "\"settings \"\"odd\"\"\", \"public\"",
            "1234kB",
            "off",
            "0",
            "0",
            "read committed");

    private static Flux<String> shown(Connection connection) {
        return Flux.just(
                        "app.tenant",
                        "role",
                        "search_path",
                        "work_mem",
                        "log_duration",
                        "statement_timeout",
                        "lock_timeout",
                        "default_transaction_isolation")
                .concatMap(key -> shown(connection, key));
    }

    private static Mono<String> shown(Connection connection, String key) {
        return Flux.from(connection
                        .createStatement("select coalesce(current_setting('" + key + "', true), '')")
                        .execute())
                .concatMap(result -> result.map((row, metadata) -> row.get(0, String.class)))
                .single();
    }

    private ConnectionScopes with(SessionSettings settings) {
        return with(options -> options.withSettings(settings));
    }

    private ConnectionScopes with(UnaryOperator<ScopeOptions> options) {
        return pool.with(options);
    }

    static List<ScopeShape> shapes() {
        return List.of(
                ScopeShape.WITH_CONNECTION_MANY,
                ScopeShape.IN_TRANSACTION_MANY,
                ScopeShape.CONNECTED_FLUX,
                ScopeShape.TRANSACTIONAL_FLUX);
    }

    private static <T> List<T> run(ScopeShape shape, ConnectionScopes scopes, Function<Connection, Flux<T>> body) {
        List<T> seen = new CopyOnWriteArrayList<>();
        shape.around(scopes, c -> body.apply(c).doOnNext(seen::add).map(value -> 1))
                .blockLast(LONG);
        return seen;
    }

    @ParameterizedTest
    @MethodSource("shapes")
    void theyHoldForTheScope(ScopeShape shape) {
        assertThat(run(shape, with(ALL), ScopeSettingsIT::shown)).isEqualTo(SET);
        assertThat(run(shape, with(ALL), c -> shown(c, "application_name").flux()))
                .containsExactly("the application");
        assertThat(run(shape, with(ALL), c -> Rows.ints(c, "select n from here")))
                .isEmpty();
    }

    @ParameterizedTest
    @MethodSource("shapes")
    void theyAreTakenBackWhenTheScopeFails(ScopeShape shape) {
        assertThatThrownBy(() -> run(shape, with(ALL), c -> Rows.ints(c, "select 1 / 0")))
                .isInstanceOf(R2dbcException.class);
    }

    @ParameterizedTest
    @MethodSource("shapes")
    void theyAreTakenBackWhenTheScopeIsCancelled(ScopeShape shape) {
        assertThat(Flux.from(shape.around(with(ALL), c -> Rows.ints(c, "select generate_series(1, 1000)")))
                        .next()
                        .block(LONG))
                .isEqualTo(1);
    }

    @ParameterizedTest
    @MethodSource("shapes")
    void formerValuesComeBack(ScopeShape shape) {
        pool.borrow(c -> Rows.update(c, "set work_mem = '5MB'; set app.tenant = 'before'; set role settings_guest"));
        try {
            run(shape, with(ALL), ScopeSettingsIT::shown);
            pool.awaitQuiet();
            assertThat(pool.borrow(c -> shown(c).take(4)))
                    .containsExactly("before", "settings_guest", "\"$user\", public", "5MB");
        } finally {
            pool.borrow(c -> Rows.update(c, "reset role; reset app.tenant; reset work_mem"));
        }
    }

    @Test
    void whatACommittedTransactionSetForItselfIsGone() {
        assertThat(with(TENANT)
                        .withConnectionMany(c -> with(TENANT.withRole("settings_guest"))
                                .inTransactionMany(t -> shown(t).take(2))
                                .concatWith(shown(c).take(2)))
                        .collectList()
                        .block(LONG))
                .containsExactly("t1", "settings_guest", "t1", "none");
    }

    @Test
    void aFailedTransactionLeavesNothing() {
        assertThatThrownBy(() -> with(ALL)
                        .inTransaction(c ->
                                Rows.ints(c, "select 1 / 0").onErrorComplete().then(Mono.just(1)))
                        .block(LONG))
                .isInstanceOf(R2dbcException.class);
    }

    @Test
    void aTransactionInsideAPlainScopeHasItsOwnTenantForItsTime() {
        assertThat(with(TENANT)
                        .withConnectionMany(c -> with(SessionSettings.none().with("app.tenant", "t2"))
                                .inTransactionMany(t -> shown(t, "app.tenant"))
                                .concatWith(shown(c, "app.tenant")))
                        .collectList()
                        .block(LONG))
                .containsExactly("t2", "t1");
    }

    /** Only a superuser may change log_duration, and settings_guest is none. */
    @ParameterizedTest
    @MethodSource("shapes")
    void aRoleNeedNotHaveThePrivilegesForTheOtherSettings(ScopeShape shape) {
        SessionSettings privileged =
                SessionSettings.none().withRole("settings_guest").with("log_duration", "on");
        assertThat(run(shape, with(privileged), c -> shown(c, "log_duration").concatWith(shown(c, "role"))))
                .containsExactly("on", "settings_guest");
    }

    @ParameterizedTest
    @MethodSource("shapes")
    void valuesAreBound(ScopeShape shape) {
        String hostile = "x', true); drop table \"settings \"\"odd\"\"\".here; --";
        assertThat(run(
                        shape,
                        with(SessionSettings.none().with("app.tenant", hostile)),
                        c -> shown(c, "app.tenant").flux()))
                .containsExactly(hostile);
        assertThat(Postgres.number("select count(*) from \"settings \"\"odd\"\"\".here"))
                .isZero();
    }

    @Test
    void whatCodeInsideChangesByTheSpiIsUndoneToo() {
        ConnectionScopes scopes =
                with(options -> options.withSettings(ALL).withStatementTimeout(Duration.ofSeconds(50)));
        for (ScopeShape shape : shapes()) {
            run(
                    shape,
                    scopes,
                    c -> Flux.concat(
                                    c.setStatementTimeout(Duration.ofSeconds(7)),
                                    c.setLockWaitTimeout(Duration.ofSeconds(7)))
                            .thenMany(shape.transactional ? Flux.empty() : Flux.from(c.setAutoCommit(false))));
            pool.awaitQuiet();
            assertThat(pool.borrow(ScopeSettingsIT::shown)).isEqualTo(UNSET);
        }
    }

    @Test
    void aTransactionInsideTakesBackWhatItsCodeChangedToTheScopesOwn() {
        assertThat(with(options -> options.withStatementTimeout(Duration.ofSeconds(50)))
                        .withConnectionMany(c -> pool.scopes
                                .inTransaction(t -> Mono.from(t.setStatementTimeout(Duration.ofSeconds(7))))
                                .thenMany(shown(c, "statement_timeout")))
                        .collectList()
                        .block(LONG))
                .containsExactly("50s");
    }

    @Test
    void aSavepointTakesBackWhatItsCodeChangedToTheOutermostScopesOwn() {
        ConnectionScopes scopes = with(options -> options);
        ConnectionScopes savepoints = scopes.transactions(Propagation.NESTED);
        ConnectionScopes outermost = with(options -> options.withStatementTimeout(Duration.ofSeconds(20)));
        Function<Connection, Mono<String>> timeout = c -> shown(c, "statement_timeout");

        List<String> seen = outermost
                .withConnectionMany(c -> scopes.inTransactionMany(t -> savepoints
                                .inTransaction(s -> Mono.from(s.setStatementTimeout(Duration.ofSeconds(7)))
                                        .then(timeout.apply(s)))
                                .concatWith(Mono.defer(() -> timeout.apply(t))))
                        .concatWith(Mono.defer(() -> timeout.apply(c))))
                .collectList()
                .block(LONG);

        assertThat(seen).containsExactly("7s", "20s", "20s");
    }

    @Test
    void timeoutsAreSetTogetherWithTheRest() {
        ConnectionScopes scopes = with(options -> options.withSettings(TENANT)
                .withStatementTimeout(Duration.ofSeconds(50))
                .withLockWaitTimeout(Duration.ofMillis(1_500)));
        for (ScopeShape shape : shapes()) {
            assertThat(run(shape, scopes, ScopeSettingsIT::shown))
                    .startsWith("t1")
                    .contains("50s", "1500ms");
        }
        assertThat(scopes.transactions(TransactionOptions.defaults().withLockWaitTimeout(Duration.ofSeconds(3)))
                        .inTransaction(c -> shown(c, "lock_timeout"))
                        .block(LONG))
                .isEqualTo("3s");
    }

    @Test
    void aTransactionBeginsWithItsSettingsInOneRoundTrip() throws Exception {
        try (FaultyProxy proxy = Postgres.network();
                WatchedPool far = WatchedPool.to(1, server -> server.port(proxy.port()), UnaryOperator.identity())) {
            far.borrow(c -> Rows.ints(c, "select 1"));
            proxy.await(NetworkTrigger.clientSends("set_config")).subscribe(null, null, proxy::heal);
            proxy.strike(NetworkFault.ANSWERS_STALLED);
            assertThat(far.with(options -> options.withSettings(ALL).withStatementTimeout(Duration.ofSeconds(50)))
                            .inTransactionMany(ScopeSettingsIT::shown)
                            .take(4)
                            .collectList()
                            .block(LONG))
                    .isEqualTo(SET.subList(0, 4));
            far.assertWhole();
        }
    }

    @Nested
    class Joining {

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void aScopeWithEqualOrFewerSettingsJoins(boolean transactional) {
            ConnectionScopes outer = with(TENANT.withApplicationName("outer"));
            Function<Connection, Mono<String>> inner =
                    c -> with(SessionSettings.none().with("APP.Tenant", "t1"))
                            .withConnection(i -> shown(i, "application_name"));
            assertThat((transactional ? outer.inTransaction(inner) : outer.withConnection(inner)).block(LONG))
                    .isEqualTo("outer");
        }

        @Test
        void aScopeOfAnotherTenantDoesNot() {
            SessionSettings other =
                    SessionSettings.none().withApplicationName("outer").with("app.tenant", "secret-2");
            ConnectionScopes outer =
                    with(SessionSettings.none().withApplicationName("outer").with("app.tenant", "secret-1"));
            ConnectionScopes nested =
                    with(other).transactions(TransactionOptions.defaults().withPropagation(Propagation.NESTED));
            for (Mono<String> joining : List.of(
                    outer.inTransaction(c -> with(other).inTransaction(i -> shown(i, "app.tenant"))),
                    outer.inTransaction(c -> with(other).withConnection(i -> shown(i, "app.tenant"))),
                    outer.inTransaction(c -> nested.inTransaction(i -> shown(i, "app.tenant"))),
                    outer.withConnection(c -> with(other).withConnection(i -> shown(i, "app.tenant"))),
                    outer.withConnection(c ->
                            pool.scopes.inTransaction(t -> with(other).inTransaction(i -> shown(i, "app.tenant")))))) {
                assertThatThrownBy(() -> joining.block(LONG))
                        .isInstanceOf(ScopePropagationException.class)
                        .hasMessageContaining("app.tenant")
                        .hasMessageNotContainingAny("application_name", "secret");
                pool.awaitQuiet();
            }
        }

        @Test
        void aScopeWithASettingThatTheOuterOneDoesNotMakeDoesNot() {
            assertThatThrownBy(() -> pool.scopes
                            .inTransaction(c -> with(TENANT).inTransaction(i -> shown(i, "app.tenant")))
                            .block(LONG))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("app.tenant");
        }

        @Test
        void aTransactionOnAConnectionOfItsOwnHasItsOwn() {
            try (WatchedPool two = WatchedPool.of(2)) {
                ConnectionScopes outer = two.with(options -> options.withSettings(TENANT));
                ConnectionScopes own = two.with(options ->
                                options.withSettings(SessionSettings.none().with("app.tenant", "t2")))
                        .transactions(TransactionOptions.defaults().withPropagation(Propagation.REQUIRES_NEW));
                assertThat(outer.inTransactionMany(c -> own.inTransaction(i -> shown(i, "app.tenant"))
                                        .concatWith(shown(c, "app.tenant")))
                                .collectList()
                                .block(LONG))
                        .containsExactly("t2", "t1");
                two.assertWhole();
            }
        }
    }

    @Nested
    class Refused {

        static final String SECRET = "secret-value";

        @ParameterizedTest
        @ValueSource(strings = {"role", "work_mem", "no_such_setting", "transaction_isolation", "search_path"})
        void settingsAreNamedAndNoneIsLeft(String key) {
            String value = key.equals("search_path") ? "\"" + SECRET : SECRET;
            SessionSettings refused = TENANT.with("log_duration", "on").with(key, value);
            for (ScopeShape shape : shapes()) {
                assertThatThrownBy(() -> run(shape, with(refused), ScopeSettingsIT::shown))
                        .isInstanceOfSatisfying(SessionSettingException.class, e -> {
                            assertThat(e.keys()).contains(key, "app.tenant");
                            assertThat(e.getMessage()).contains(key).doesNotContain(SECRET);
                            assertThat(e.getCause()).isInstanceOf(R2dbcException.class);
                        });
                pool.awaitQuiet();
                assertThat(pool.borrow(ScopeSettingsIT::shown)).isEqualTo(UNSET);
            }
        }
    }

    @Test
    void nothingIsLeftWhereverTheSubscriberCancels() {
        for (ScopeShape shape : shapes()) {
            for (int i = 0; i < 300; i++) {
                Disposable left = Flux.from(shape.around(with(ALL), c -> Rows.ints(c, "select 1")))
                        .subscribe();
                for (int spin = 0; spin < i * 60; spin++) {
                    Thread.onSpinWait();
                }
                left.dispose();
                pool.awaitQuiet();
                assertThat(pool.borrow(c -> shown(c).take(3))).isEqualTo(UNSET.subList(0, 3));
            }
        }
    }
}
