package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcTransientResourceException;
import io.r2dbc.spi.Wrapped;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Mono;

/** What each propagation does where there is nothing, a plain scope, or a transaction around. */
class PropagationTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));

    private static @Nullable Throwable errorOf(Mono<?> scope) {
        return scope.then(Mono.<Throwable>empty()).onErrorResume(Mono::just).block(FormContract.PATIENCE);
    }

    private Mono<Integer> inside(Propagation propagation) {
        return scopes.with(ScopeOptions.defaults().withName("inside"))
                .transactions(propagation)
                .inTransaction(c -> Rows.ints(c, "inside").next());
    }

    @ParameterizedTest
    @EnumSource
    void withNothingAround(Propagation propagation) {
        Throwable error = errorOf(inside(propagation));
        switch (propagation) {
            case REQUIRED, REQUIRES_NEW, NESTED ->
                assertThat(database.log()).containsExactly("create", "begin#1", "inside#1", "commit#1", "close#1");
            case SUPPORTS, NOT_SUPPORTED, NEVER ->
                assertThat(database.log()).containsExactly("create", "inside#1", "close#1");
            case MANDATORY -> {
                assertThat(error)
                        .isInstanceOf(ScopePropagationException.class)
                        .hasMessageContaining("MANDATORY, and there is no transaction to join: call it");
                assertThat(database.log()).isEmpty();
                return;
            }
        }
        assertThat(error).isNull();
    }

    /** Its connection is asked for when it is needed, and its pipeline can go on without one. */
    @ParameterizedTest
    @EnumSource
    void inATransactionThatCouldNotBegin(Propagation propagation) {
        IllegalStateException down = new IllegalStateException("down");
        AtomicBoolean begun = new AtomicBoolean();
        Mono<Integer> around =
                scopes.transactional(Mono.from(scopes.connectionFactory().create())
                        .thenReturn(1)
                        .onErrorResume(e -> {
                            database.on("create", () -> Mono.fromSupplier(database::newConnection));
                            return inside(propagation).doOnSubscribe(s -> begun.set(true));
                        }));
        database.on("create", () -> Mono.error(down));

        Throwable error = errorOf(around);

        assertThat(begun).isTrue();
        if (propagation == Propagation.REQUIRES_NEW || propagation == Propagation.NOT_SUPPORTED) {
            assertThat(database.log()).contains("inside#1");
        } else {
            assertThat(error)
                    .isInstanceOf(ScopeClosedException.class)
                    .hasMessageContaining("has no connection, because it could not be opened")
                    .hasMessageNotContaining("'inside'");
            assertThat(database.log()).containsExactly("create");
        }
    }

    @ParameterizedTest
    @EnumSource
    void inAPlainScope(Propagation propagation) {
        Throwable error = errorOf(scopes.with(ScopeOptions.defaults().withName("around"))
                .withConnection(c -> Rows.ints(c, "before").then(inside(propagation))));
        switch (propagation) {
            case REQUIRED, REQUIRES_NEW, NESTED ->
                assertThat(database.log())
                        .containsExactly("create", "before#1", "begin#1", "inside#1", "commit#1", "close#1");
            case SUPPORTS, NOT_SUPPORTED, NEVER ->
                assertThat(database.log()).containsExactly("create", "before#1", "inside#1", "close#1");
            case MANDATORY -> {
                assertThat(error)
                        .isInstanceOf(ScopePropagationException.class)
                        .hasMessageContaining("no transaction to join in scope 'around'");
                return;
            }
        }
        assertThat(error).isNull();
    }

    @ParameterizedTest
    @EnumSource
    void inATransaction(Propagation propagation) {
        Throwable error = errorOf(scopes.with(ScopeOptions.defaults().withName("around"))
                .inTransaction(c -> Rows.ints(c, "before").then(inside(propagation))));
        switch (propagation) {
            case REQUIRED, MANDATORY, SUPPORTS ->
                assertThat(database.log())
                        .containsExactly("create", "begin#1", "before#1", "inside#1", "commit#1", "close#1");
            case NESTED ->
                assertThat(database.log())
                        .containsExactly(
                                "create",
                                "begin#1",
                                "before#1",
                                "savepoint#1",
                                "inside#1",
                                "release savepoint#1",
                                "commit#1",
                                "close#1");
            case REQUIRES_NEW ->
                assertThat(database.log())
                        .containsExactly(
                                "create",
                                "begin#1",
                                "before#1",
                                "create",
                                "begin#2",
                                "inside#2",
                                "commit#2",
                                "close#2",
                                "commit#1",
                                "close#1");
            case NOT_SUPPORTED ->
                assertThat(database.log())
                        .containsExactly(
                                "create",
                                "begin#1",
                                "before#1",
                                "create",
                                "inside#2",
                                "close#2",
                                "commit#1",
                                "close#1");
            case NEVER -> {
                assertThat(error)
                        .isInstanceOf(ScopePropagationException.class)
                        .hasMessageContaining("NEVER, and there is a transaction, of scope 'around'");
                return;
            }
        }
        assertThat(error).isNull();
    }

    @Nested
    class PartOfATransaction {

        private @Nullable Throwable join(TransactionOptions around, TransactionOptions inside) {
            return errorOf(scopes.with(ScopeOptions.defaults().withName("around"))
                    .transactions(around)
                    .inTransaction(c -> scopes.transactions(inside).inTransaction(d -> Mono.just(1))));
        }

        private final TransactionOptions defaults = TransactionOptions.defaults();

        @Test
        void canAskForWhatItHas() {
            assertThat(join(
                            defaults.withIsolation(IsolationLevel.SERIALIZABLE).withReadOnly(true),
                            defaults.withIsolation(IsolationLevel.SERIALIZABLE).withReadOnly(true)))
                    .isNull();
            assertThat(join(defaults.withReadOnly(false), defaults.withReadOnly(true)))
                    .isNull();
            assertThat(join(defaults.withReadOnly(true), defaults)).isNull();
            assertThat(join(defaults, defaults.withReadOnly(false))).isNull();
        }

        @Test
        void cannotAskForAnotherIsolationLevel() {
            TransactionOptions serializable = defaults.withIsolation(IsolationLevel.SERIALIZABLE);
            assertThat(join(defaults, serializable))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("SERIALIZABLE inside a transaction that began with the database's own level")
                    .hasMessageContaining("that of scope 'around'");
            assertThat(join(defaults.withIsolation(IsolationLevel.REPEATABLE_READ), serializable))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("began with REPEATABLE READ");
        }

        @Test
        void cannotWriteInAReadOnlyOne() {
            assertThat(join(defaults.withReadOnly(true), defaults.withReadOnly(false)))
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("that writes inside a read-only one, that of scope 'around'");
            assertThat(join(
                            defaults.withReadOnly(true),
                            defaults.withReadOnly(false).withPropagation(Propagation.NESTED)))
                    .isInstanceOf(ScopePropagationException.class);
        }

        @Test
        void cannotHaveOtherSettings() {
            ScopeOptions tenant =
                    ScopeOptions.defaults().withSettings(SessionSettings.none().with("app.tenant", "secret"));
            Throwable error = errorOf(scopes.with(ScopeOptions.defaults().withName("around"))
                    .inTransaction(c -> scopes.with(tenant).inTransaction(d -> Mono.just(1))));
            assertThat(error)
                    .isInstanceOf(ScopePropagationException.class)
                    .hasMessageContaining("cannot join scope 'around'")
                    .hasMessageContaining("app.tenant")
                    .hasMessageNotContaining("secret");
        }
    }

    @Test
    void savepointsHaveNamesOfTheirOwn() {
        NotingDriver driver = new NotingDriver(database);
        ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
        scopes.inTransaction(c -> nested.inTransaction(d -> nested.inTransaction(e -> Mono.just(1)))
                        .then(nested.inTransaction(d -> Mono.error(new IllegalStateException("inside"))))
                        .onErrorComplete())
                .block(FormContract.PATIENCE);
        List<String> names = driver.noted().stream()
                .filter(call -> call.startsWith("savepoint "))
                .map(call -> call.substring("savepoint ".length()))
                .toList();
        assertThat(names).hasSize(3).doesNotHaveDuplicates().allMatch(name -> name.matches("scope_\\d+"));
        assertThat(driver.noted())
                .containsExactly(
                        "savepoint " + names.get(0),
                        "savepoint " + names.get(1),
                        "release " + names.get(1),
                        "release " + names.get(0),
                        "savepoint " + names.get(2),
                        "rollback to " + names.get(2),
                        "release " + names.get(2));
    }

    @Test
    void theHandleOfAScopeIsThatOfItsOwnConnectionWhereverItIsUsed() {
        scopes.inTransaction(c -> scopes.transactions(Propagation.REQUIRES_NEW)
                        .inTransaction(d -> Rows.ints(c, "outer").next()))
                .block(FormContract.PATIENCE);
        assertThat(database.log()).contains("outer#1").doesNotContain("outer#2");
    }

    @Nested
    class Retries {

        private final AtomicInteger attempts = new AtomicInteger();

        /** Fails once. */
        private Mono<Integer> retried(Propagation propagation) {
            return scopes.transactions(TransactionOptions.defaults()
                            .withPropagation(propagation)
                            .withRetry(RetryPolicy.serialization(3)))
                    .inTransaction(c -> attempts.incrementAndGet() == 1
                            ? Mono.error(new R2dbcTransientResourceException("again", "40001"))
                            : Mono.just(1));
        }

        @ParameterizedTest
        @EnumSource(names = {"REQUIRED", "REQUIRES_NEW", "NESTED"})
        void whatBeginsATransaction(Propagation propagation) {
            assertThat(errorOf(retried(propagation))).isNull();
            assertThat(attempts).hasValue(2);
        }

        @ParameterizedTest
        @EnumSource(names = {"SUPPORTS", "NOT_SUPPORTED", "NEVER"})
        void nothingElse(Propagation propagation) {
            assertThat(errorOf(retried(propagation))).isNotNull();
            assertThat(attempts).hasValue(1);
        }

        @ParameterizedTest
        @EnumSource(names = {"REQUIRED", "NESTED", "SUPPORTS", "MANDATORY"})
        void noPartOfOne(Propagation propagation) {
            assertThat(errorOf(scopes.inTransaction(c -> retried(propagation)))).isNotNull();
            assertThat(attempts).hasValue(1);
        }

        @Test
        void aNewOneInsideAnother() {
            assertThat(errorOf(scopes.inTransaction(c -> retried(Propagation.REQUIRES_NEW))))
                    .isNull();
            assertThat(attempts).hasValue(2);
        }

        @Test
        void aTransactionInsideAPlainScope() {
            assertThat(errorOf(scopes.withConnection(c -> retried(Propagation.REQUIRED))))
                    .isNull();
            assertThat(attempts).hasValue(2);
        }
    }

    @Nested
    class Factories {

        @Test
        void oneThatBringsItsContextGivesTheConnectionOfTheScope() {
            List<String> told = scopes.inTransaction(c -> Mono.deferContextual(context -> {
                        ConnectionFactory bound = scopes.connectionFactory(context);
                        Mono<Connection> lost = Mono.<Connection>from(bound.create())
                                .contextWrite(ignored -> reactor.util.context.Context.empty());
                        assertThat(((Wrapped<?>) bound).unwrap()).isSameAs(scopes.connectionFactory());
                        return lost.flatMapMany(d -> Rows.ints(d, "inside"))
                                .then(Mono.just(List.of(
                                        bound.getMetadata().getName(),
                                        bound.toString(),
                                        scopes.connectionFactory().toString())));
                    }))
                    .block(FormContract.PATIENCE);
            assertThat(told.get(0)).isEqualTo("probe");
            assertThat(told.get(1)).startsWith("BoundConnectionFactory[ScopedConnectionFactory[probe: ");
            assertThat(told.get(2)).startsWith("ScopedConnectionFactory[probe: ");
            assertThat(database.log()).containsExactly("create", "begin#1", "inside#1", "commit#1", "close#1");
            assertThat(scopes.connectionFactory().getMetadata().getName()).isEqualTo("probe");
            assertThat(((Wrapped<?>) scopes.connectionFactory()).unwrap()).isSameAs(database);
        }

        @Test
        void scopesOfAScopedFactoryAreThoseOfTheFactoryInside() {
            ConnectionScopes same = ConnectionScopes.of(scopes.connectionFactory());
            scopes.inTransaction(
                            c -> same.inTransaction(d -> Rows.ints(d, "inside").next()))
                    .block(FormContract.PATIENCE);
            assertThat(database.log()).containsExactly("create", "begin#1", "inside#1", "commit#1", "close#1");
        }
    }
}
