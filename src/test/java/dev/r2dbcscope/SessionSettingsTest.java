package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatNullPointerException;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;
import reactor.util.context.Context;

/** What session settings are, and when they are set and set back. */
class SessionSettingsTest {

    private static final SessionSettings TENANT = SessionSettings.none().with("app.tenant", "secret-value");

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of()).knowingSettings();
    private final ConnectionScopes plain = witness.watch(ConnectionScopes.of(database));
    private final ConnectionScopes scopes = plain.with(ScopeOptions.defaults().withSettings(TENANT));
    private final TestSubscriber<Integer> subscriber = TestSubscriber.create();

    private static Map<String, String> resolved(SessionSettings settings) {
        return settings.resolve(Context.empty(), ScopeLabel.here("test"));
    }

    @Nested
    class Values {

        @ParameterizedTest
        @ValueSource(strings = {"", " ", "a b", "a;b", "a'b", "a\"b", ".a", "a.", "a..b", "1a", "a-b", "ä"})
        void ofKeysThatCouldBeSomethingElseAreRefused(String key) {
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> SessionSettings.none().with(key, "value"))
                    .withMessageContaining("\"" + key + "\"");
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> SessionSettings.none().fromContext(key, context -> "value"));
        }

        @Test
        void areNeverShown() {
            SessionSettings settings = TENANT.withRole("secret-role").fromContext("x", context -> "secret-x");
            assertThat(settings).hasToString("SessionSettings[app.tenant, role, x]");
            assertThat(ScopeOptions.defaults().withSettings(settings).toString())
                    .contains("app.tenant")
                    .doesNotContain("secret");
        }

        @Test
        void belongToACopy() {
            assertThat(resolved(SessionSettings.none())).isEmpty();
            assertThat(resolved(TENANT.with("APP.tenant", "other"))).isEqualTo(Map.of("app.tenant", "other"));
            assertThat(resolved(TENANT)).isEqualTo(Map.of("app.tenant", "secret-value"));
        }

        @Test
        void ofTheWellKnownKeys() {
            assertThat(resolved(SessionSettings.none()
                            .withRole("Web \"user\"")
                            .withSearchPath("$user", "odd \"one\", \"two\"", "Upper")
                            .withApplicationName("")))
                    .isEqualTo(Map.of(
                            "role",
                            "Web \"user\"",
                            "search_path",
                            "\"$user\", \"odd \"\"one\"\", \"\"two\"\"\", \"Upper\"",
                            "application_name",
                            ""));
        }

        @Test
        @SuppressWarnings("NullAway")
        void thatAreMissingAreRefused() {
            SessionSettings none = SessionSettings.none();
            assertThatNullPointerException()
                    .isThrownBy(() -> none.with("a", null))
                    .withMessage("value");
            assertThatNullPointerException()
                    .isThrownBy(() -> none.with(null, "a"))
                    .withMessage("key");
            assertThatNullPointerException()
                    .isThrownBy(() -> none.fromContext("a", null))
                    .withMessage("value");
            assertThatNullPointerException()
                    .isThrownBy(() -> none.withRole(null))
                    .withMessage("role");
            assertThatIllegalArgumentException().isThrownBy(() -> none.withRole(" "));
            assertThatIllegalArgumentException().isThrownBy(none::withSearchPath);
            assertThatIllegalArgumentException().isThrownBy(() -> none.withSearchPath("a", ""));
        }
    }

    @Nested
    class FromTheContext {

        private final ConnectionScopes tenants = plain.with(ScopeOptions.defaults()
                .withSettings(SessionSettings.none()
                        .fromContext("app.tenant", context -> context.getOrDefault("tenant", null))));

        @ParameterizedTest
        @EnumSource
        void aMissingValueFailsTheScopeBeforeAnythingIsAcquired(ScopeShape shape) {
            shape.around(tenants, c -> Mono.just(1)).subscribe(subscriber);
            assertThat(subscriber.expectTerminalError()).isInstanceOfSatisfying(SessionSettingException.class, e -> {
                assertThat(e.keys()).containsExactly("app.tenant");
                assertThat(e).hasMessageContaining("app.tenant").hasMessageContaining("returned null");
            });
            assertThat(database.log()).isEmpty();
        }

        @ParameterizedTest
        @EnumSource
        void aFunctionThatThrowsDoesSoToo(ScopeShape shape) {
            IllegalStateException thrown = new IllegalStateException("secret-value");
            SessionSettings failing = SessionSettings.none().fromContext("app.tenant", context -> {
                throw thrown;
            });
            shape.around(plain.with(ScopeOptions.defaults().withSettings(failing)), c -> Mono.just(1))
                    .subscribe(subscriber);
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(SessionSettingException.class)
                    .hasMessageContaining("failed with java.lang.IllegalStateException")
                    .hasMessageNotContaining("secret")
                    .hasCause(thrown);
            assertThat(database.log()).isEmpty();
        }

        @Test
        void eachSubscriptionHasItsOwn() {
            Mono<Integer> scope = tenants.inTransaction(c -> Flux.deferContextual(context -> Mono.just(1)));
            assertThat(scope.contextWrite(Context.of("tenant", "t1")).block()).isEqualTo(1);
            assertThat(database.log())
                    .containsExactly("create", "begin#1", "set local app.tenant#1", "commit#1", "close#1");
            scope.subscribe(subscriber);
            assertThat(subscriber.expectTerminalError()).isInstanceOf(SessionSettingException.class);
        }

        @Test
        void aScopeThatWouldJoinNeedsItsValueToo() {
            tenants.inTransaction(c -> tenants.inTransaction(i -> Mono.just(1)).contextWrite(x -> x.delete("tenant")))
                    .contextWrite(Context.of("tenant", "t1"))
                    .subscribe(subscriber);
            assertThat(subscriber.expectTerminalError()).isInstanceOf(SessionSettingException.class);
        }
    }

    private static String[] whole(ScopeShape shape, String ending) {
        return shape.transactional
                ? new String[] {"create", "begin#1", "set local app.tenant#1", ending, "close#1"}
                : new String[] {"create", "set app.tenant#1", "restore app.tenant#1", "close#1"};
    }

    @ParameterizedTest
    @EnumSource
    void areSetBeforeTheBodyAndSetBackAfterIt(ScopeShape shape) {
        shape.around(scopes, c -> Mono.fromSupplier(() -> database.log().size()))
                .subscribe(subscriber);
        assertThat(subscriber.getReceivedOnNext()).containsExactly(shape.transactional ? 3 : 2);
        assertThat(database.log()).containsExactly(whole(shape, "commit#1"));
    }

    @Test
    void areSentBehindBeginWithoutWaitingForItsAnswer() {
        Step<Void> begin = new Step<>();
        database.on("begin", begin);
        scopes.inTransactionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);
        assertThat(database.log()).containsExactly("create", "begin#1", "set local app.tenant#1");
        begin.complete();
        assertThat(subscriber.isTerminatedComplete()).isTrue();
    }

    @Test
    void areSetAgainIfTheyWereAnsweredBeforeBegin() {
        Step<Void> begin = new Step<>();
        database.on("begin", begin);
        scopes.inTransactionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);
        begin.complete();
        assertThat(database.log())
                .containsExactly(
                        "create",
                        "begin#1",
                        "set local app.tenant#1",
                        "set local app.tenant#1",
                        "select 1#1",
                        "commit#1",
                        "close#1");
    }

    @Test
    void areSetTogetherWithTheTimeouts() {
        ConnectionScopes bounded = plain.with(ScopeOptions.defaults()
                .withSettings(TENANT)
                .withStatementTimeout(Duration.ofSeconds(1))
                .withLockWaitTimeout(Duration.ofSeconds(1)));
        bounded.withConnection(c -> bounded.inTransaction(t -> Mono.just(1))).subscribe(subscriber);
        assertThat(database.log())
                .containsExactly(
                        "create",
                        "set app.tenant,statement,lock#1",
                        "begin#1",
                        "set local app.tenant,statement,lock#1",
                        "commit#1",
                        "restore app.tenant,statement,lock#1",
                        "close#1");
    }

    @Test
    void areNotSetAgainForASavepoint() {
        scopes.inTransaction(
                        c -> scopes.transactions(TransactionOptions.defaults().withPropagation(Propagation.NESTED))
                                .inTransaction(t -> Mono.just(1)))
                .subscribe(subscriber);
        assertThat(database.log())
                .containsExactly(
                        "create",
                        "begin#1",
                        "set local app.tenant#1",
                        "savepoint#1",
                        "release savepoint#1",
                        "commit#1",
                        "close#1");
    }

    @Nested
    class Cancel {

        @ParameterizedTest
        @CsvSource({
            "false, set app.tenant",
            "false, restore app.tenant",
            "true, begin",
            "true, set local app.tenant",
            "true, rollback"
        })
        void cutsNoStepInTwo(boolean transactional, String step) {
            Step<Void> slow = new Step<>();
            database.on(step, slow);
            Flux<Integer> scope = transactional
                    ? scopes.inTransactionMany(c -> Mono.never())
                    : scopes.withConnectionMany(c -> Mono.never());
            scope.subscribe(subscriber);
            subscriber.cancel();
            slow.awaitReached();
            assertThat(database.live()).isEqualTo(1);
            slow.complete();

            assertThat(slow.cancels()).isZero();
            List<String> before = transactional
                    ? List.of("create", "begin#1", "set local app.tenant#1", "rollback#1", "close#1")
                    : List.of("create", "set app.tenant#1", "restore app.tenant#1", "close#1");
            assertThat(database.log().stream().distinct()).isEqualTo(before);
        }
    }

    @Nested
    class Failing {

        private final R2dbcNonTransientResourceException refusal =
                new R2dbcNonTransientResourceException("invalid value: secret-value", "22023", 0);

        @ParameterizedTest
        @EnumSource
        void aRefusalFailsTheScopeAndNothingIsSetBack(ScopeShape shape) {
            database.on("set app.tenant", () -> Mono.error(refusal))
                    .on("set local app.tenant", () -> Mono.error(refusal));
            shape.around(scopes, c -> Rows.ints(c, "select 1")).subscribe(subscriber);
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(SessionSettingException.class)
                    .hasCause(refusal)
                    .hasMessageContaining("refused the session setting app.tenant (SQLSTATE 22023)")
                    .hasMessageNotContaining("secret");
            assertThat(database.log())
                    .containsExactly(Stream.of(whole(shape, "rollback#1"))
                            .filter(step -> !step.startsWith("restore"))
                            .toArray(String[]::new));
            assertThat(log.lines()).isEmpty();
        }

        @Test
        void aRefusalOfSeveralNamesThemAll() {
            database.on("set app.tenant,app.user", () -> Mono.error(refusal));
            plain.with(ScopeOptions.defaults().withSettings(TENANT.with("app.user", "u")))
                    .withConnectionMany(c -> Mono.just(1))
                    .subscribe(subscriber);
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOfSatisfying(
                            SessionSettingException.class,
                            error -> assertThat(error.keys()).containsExactlyInAnyOrder("app.tenant", "app.user"))
                    .hasMessageContaining("one of the session settings app.tenant, app.user (SQLSTATE 22023)");
        }

        @Test
        void anErrorOfBeginComesFirst() {
            IllegalStateException broken = new IllegalStateException("no begin");
            database.on("begin", () -> Mono.error(broken)).on("set local app.tenant", () -> Mono.error(refusal));
            scopes.inTransactionMany(c -> Rows.ints(c, "select 1")).subscribe(subscriber);
            assertThat(subscriber.expectTerminalError()).isSameAs(broken);
            assertThat(database.log()).doesNotContain("select 1#1", "commit#1");
        }

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void aRestoreThatFailsOrIsNotAnsweredDestroysTheConnection(boolean answered) {
            List<ScopeEvent> events = new java.util.concurrent.CopyOnWriteArrayList<>();
            database.on("restore app.tenant", () -> answered ? Mono.error(refusal) : Mono.never());
            plain.with(ScopeOptions.defaults()
                            .withSettings(TENANT)
                            .withReleaseTimeout(Duration.ofMillis(50))
                            .withListener(events::add))
                    .withConnectionMany(c -> Mono.just(1))
                    .subscribe(subscriber);
            subscriber.block(Duration.ofSeconds(60));
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(events)
                    .filteredOn(ScopeEvent.Released.class::isInstance)
                    .singleElement()
                    .satisfies(event -> assertThat(((ScopeEvent.Released) event).destroyed())
                            .isTrue());
        }
    }

    @Nested
    class OfADatabaseThatKnowsNone {

        private final ProbeConnectionFactory ignorant = witness.watch(ProbeConnectionFactory.of());
        private final ConnectionScopes all = witness.watch(ConnectionScopes.of(ignorant));

        @ParameterizedTest
        @EnumSource
        void theyFailTheScopeAndTheConnectionGoesBack(ScopeShape shape) {
            shape.around(all.with(ScopeOptions.defaults().withSettings(TENANT)), c -> Rows.ints(c, "select 1"))
                    .subscribe(subscriber);
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(SessionSettingException.class)
                    .hasMessageContaining("app.tenant");
            assertThat(ignorant.log()).containsExactly("create", "close#1");
        }

        @Test
        void timeoutsAreSetByWayOfTheSpi() {
            ConnectionScopes bounded = all.with(ScopeOptions.defaults()
                    .withStatementTimeout(Duration.ofSeconds(1))
                    .withLockWaitTimeout(Duration.ofSeconds(2)));
            bounded.inTransaction(c -> Mono.just(1)).subscribe(subscriber);
            assertThat(ignorant.log())
                    .containsExactly(
                            "create", "begin#1", "statementTimeout#1", "lockWaitTimeout#1", "commit#1", "close#1");
            assertThat(log.lines()).hasSize(1);
        }

        @Test
        void theLockWaitTimeoutOfATransactionComesWithItsDefinition() {
            all.with(ScopeOptions.defaults().withLockWaitTimeout(Duration.ofSeconds(2)))
                    .transactions(TransactionOptions.defaults().withLockWaitTimeout(Duration.ofSeconds(1)))
                    .inTransaction(c -> Mono.just(1))
                    .subscribe(subscriber);
            assertThat(ignorant.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        }
    }
}
