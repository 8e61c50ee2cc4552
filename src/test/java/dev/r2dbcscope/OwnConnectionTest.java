package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** Scopes that join none around them, connections that are not returned, and what is kept for the length of a scope. */
class OwnConnectionTest {

    private static final Duration PATIENCE = Duration.ofSeconds(60);

    @RegisterExtension
    private final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new ArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));

    private <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }

    private static Mono<Integer> one(Connection connection, String sql) {
        return Rows.ints(connection, sql).next();
    }

    @Test
    void aConnectionOfItsOwnIsOpenedInsidePlainScopesAndTransactions() {
        scopes.withConnection(c -> one(c, "outer")
                        .thenMany(scopes.withOwnConnectionMany(own -> one(own, "own")))
                        .then(one(c, "outer again")))
                .block(PATIENCE);
        scopes.inTransaction(c -> scopes.withOwnConnectionMany(
                                own -> one(own, "own").then(scopes.inTransaction(inside -> one(inside, "inside"))))
                        .then())
                .block(PATIENCE);
        assertThat(database.log())
                .containsExactly(
                        "create",
                        "outer#1",
                        "create",
                        "own#2",
                        "close#2",
                        "outer again#1",
                        "close#1",
                        "create",
                        "begin#3",
                        "create",
                        "own#4",
                        "begin#4",
                        "inside#4",
                        "commit#4",
                        "close#4",
                        "commit#3",
                        "close#3");
    }

    /** Its scopes join each other, and none downstream of it. */
    @Test
    void whatIsApartOpensScopesOfItsOwn() {
        Flux<Integer> source = scopes.inTransactionMany(
                c -> one(c, "source").thenMany(scopes.withConnectionMany(inside -> one(inside, "inside"))));

        scopes.inTransaction(c -> one(c, "outer")
                        .thenMany(scopes.apart(source))
                        .then(scopes.withConnection(joined -> one(joined, "joined"))))
                .block(PATIENCE);

        assertThat(database.log())
                .containsExactly(
                        "create",
                        "begin#1",
                        "outer#1",
                        "create",
                        "begin#2",
                        "source#2",
                        "inside#2",
                        "commit#2",
                        "close#2",
                        "joined#1",
                        "commit#1",
                        "close#1");
    }

    @Test
    void aConnectionOfItsOwnThatCouldNeverComeFailsAtOnce() {
        try (ScriptedPool pool = new ScriptedPool(1)) {
            ConnectionScopes small = ConnectionScopes.of(pool.pool);
            assertThatThrownBy(() -> small.inTransaction(c -> small.withOwnConnectionMany(own -> Mono.just(1))
                                    .then())
                            .block(PATIENCE))
                    .isInstanceOf(NestedAcquireDeadlockException.class);
        }
    }

    @Test
    void theBeginningOfAShutdownIsToldToThoseWhoEndThemselvesAndToThoseWhoAskLater() {
        TestSubscriber<Integer> endless = TestSubscriber.create();
        scopes.withConnectionMany(c -> Flux.<Integer>never().takeUntilOther(scopes.draining()))
                .subscribe(endless);
        TestSubscriber<Void> drained = TestSubscriber.create();
        Mono<Void> drain = scopes.drain(PATIENCE);
        assertThat(endless.isTerminated()).isFalse();
        drain.subscribe(drained);
        assertThat(endless.isTerminatedComplete()).isTrue();
        assertThat(drained.isTerminatedComplete()).isTrue();
        scopes.with(ScopeOptions.defaults().withName("another")).draining().block(PATIENCE);
    }

    @Test
    void aConnectionThatIsToBeDestroyedServesUntilTheEndAndIsNoFailure() {
        try (ScriptedPool pool = new ScriptedPool(1)) {
            ConnectionScopes small =
                    ConnectionScopes.of(pool.pool).with(ScopeOptions.defaults().withListener(events::add));
            int answer = small.withConnection(c -> DriverTurn.take(c, "spending", turn -> {
                                turn.destroyAtEnd();
                                return Mono.empty();
                            })
                            .then(one(c, "select 1"))
                            .then(small.inTransaction(t -> one(t, "select 2"))))
                    .blockOptional(PATIENCE)
                    .orElseThrow();
            assertThat(answer).isEqualTo(1);
            assertThat(pool.pool.getMetrics().orElseThrow().allocatedSize()).isZero();
            assertThat(pool.database.log())
                    .containsExactly("create", "select 1#1", "begin#1", "select 2#1", "commit#1", "close#1", "close#1");
            assertThat(events(ScopeEvent.ReleaseFailed.class)).isEmpty();
            assertThat(events(ScopeEvent.Released.class))
                    .extracting(ScopeEvent.Released::destroyed)
                    .containsExactly(false, true);
        }
    }

    @Test
    void aConnectionThatATransactionInsideGaveUpIsDestroyedByTheScopeAroundIt() {
        try (ScriptedPool pool = new ScriptedPool(1)) {
            ConnectionScopes small = ConnectionScopes.of(pool.pool);
            small.withConnection(c -> small.inTransaction(t -> DriverTurn.take(t, "spending", turn -> {
                                turn.destroyAtEnd();
                                return Mono.empty();
                            }))
                            .then(one(c, "still there")))
                    .block(PATIENCE);
            assertThat(pool.pool.getMetrics().orElseThrow().allocatedSize()).isZero();
            assertThat(pool.database.log())
                    .containsExactly("create", "begin#1", "commit#1", "still there#1", "close#1", "close#1");
        }
    }

    @Test
    void aConnectionThatCannotBeDestroyedIsReported() {
        try (ScriptedPool pool = new ScriptedPool(1)) {
            pool.database.on("close", () -> Mono.error(new IllegalStateException("cannot close")));
            ConnectionScopes small =
                    ConnectionScopes.of(pool.pool).with(ScopeOptions.defaults().withListener(events::add));
            small.withConnection(c -> DriverTurn.take(c, "spending", turn -> {
                        turn.destroyAtEnd();
                        return Mono.empty();
                    }))
                    .block(PATIENCE);
            assertThat(events(ScopeEvent.ReleaseFailed.class))
                    .singleElement()
                    .satisfies(failed -> assertThat(failed.error()).hasMessageContaining("cannot close"));
        }
    }

    @Test
    void whatIsKeptBelongsToTheSessionThatKeepsIt() {
        List<StringBuilder> kept = new ArrayList<>();
        scopes.withConnection(c -> keep(c, kept)
                        .then(scopes.withConnection(joined -> keep(joined, kept)))
                        .then(scopes.inTransaction(inside -> keep(inside, kept))))
                .block(PATIENCE);
        assertThat(kept.get(0)).isSameAs(kept.get(1)).isNotSameAs(kept.get(2));
    }

    private static Mono<Void> keep(Connection connection, List<StringBuilder> kept) {
        return DriverTurn.take(connection, "keeping", turn -> {
            kept.add(turn.kept(StringBuilder.class, StringBuilder::new));
            return Mono.empty();
        });
    }

    @Test
    void whatNeedsATransactionOrASessionIsRefusedWithoutOne() {
        assertThatThrownBy(() -> scopes.withConnection(c -> DriverTurn.take(c, "the work", turn -> {
                            turn.requireTransaction();
                            return Mono.just(1);
                        }))
                        .block(PATIENCE))
                .isInstanceOf(TransactionRequiredException.class)
                .hasMessageStartingWith("the work lasts as long as the transaction");
        ConnectionScopes pooled = scopes.with(ScopeOptions.defaults().withTransactionPooling(true));
        assertThatThrownBy(() -> pooled.inTransaction(c -> DriverTurn.take(c, "the work", turn -> {
                            turn.requireTransaction();
                            turn.requireSession("do something else");
                            return Mono.just(1);
                        }))
                        .block(PATIENCE))
                .isInstanceOfSatisfying(
                        TransactionPoolingException.class,
                        e -> assertThat(e.feature()).isEqualTo("the work"))
                .hasMessageContaining("do something else");
    }
}
