package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import dev.r2dbcscope.testkit.ProbeHold;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** Statements right behind BEGIN, see {@link PipelinedBegin}. */
class PipelinedBeginTest {

    private static final R2dbcNonTransientResourceException REFUSED =
            new R2dbcNonTransientResourceException("BEGIN was cancelled", "57014");

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of()).pipeliningBegin().abortingTransactions();
    private final ConnectionScopes plain = witness.watch(ConnectionScopes.of(database));
    private final ConnectionScopes scopes = with(ScopeOptions.defaults());
    private final TestSubscriber<Integer> subscriber = TestSubscriber.create();
    private final ProbeHold begin = ProbeHold.of();

    private ConnectionScopes with(ScopeOptions options) {
        return witness.watch(
                plain.with(options.withPipelinedBegin(Duration.ZERO).withListener(events::add)));
    }

    private static Flux<Integer> rows(Connection connection, String sql) {
        return Rows.ints(connection, sql);
    }

    /** A transaction whose BEGIN is not answered before the test says so. */
    private void beginHeld(Function<Connection, Flux<Integer>> body) {
        database.on("begin", ProbeFault.hold(begin));
        scopes.inTransactionMany(body).subscribe(subscriber);
        assertThat(database.log()).containsExactly("create", "begin#1");
    }

    private List<String> kinds() {
        return events.stream().map(event -> event.getClass().getSimpleName()).toList();
    }

    private void assertFailedWith(Throwable error) {
        assertThat(subscriber.expectTerminalError()).isSameAs(error);
        assertThat(database.durable()).isEmpty();
        assertThat(database.live()).isZero();
        assertThat(kinds()).contains("OpenFailed").doesNotContain("Opened", "Exiting", "Released");
    }

    @Nested
    class TheFirstStatements {

        @Test
        void areSentBeforeBeginIsAnswered() {
            beginHeld(c -> rows(c, "insert 1").concatWith(rows(c, "insert 2")));
            LiveScope live = scopes.live().get(0);
            assertThat(live.state()).isEqualTo(ScopeState.OPENING);
            assertThat(live.statement()).isEqualTo("BEGIN");
            assertThat(live.statementsInFlight()).isEqualTo(2);
            assertThat(live.statements()).isEqualTo(1);
            assertThat(kinds()).containsExactly("Waiting");

            begin.release();

            assertThat(subscriber.getReceivedOnNext()).containsExactly(1, 1);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(database.log())
                    .containsExactly("create", "begin#1", "guard#1", "insert 1#1", "insert 2#1", "commit#1", "close#1");
            assertThat(database.durable()).containsExactly("insert 1", "insert 2");
            assertThat(kinds())
                    .startsWith("Waiting", "Opened", "StatementEnded")
                    .endsWith("Released")
                    .hasSize(6);
        }

        @Test
        void areBehindOneGuardTogether() {
            beginHeld(c -> Flux.merge(rows(c, "insert 1"), rows(c, "insert 2"), rows(c, "insert 3")));
            assertThat(scopes.live().get(0).statementsInFlight()).isEqualTo(4);
            begin.release();
            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "guard#1",
                            "insert 1#1",
                            "insert 2#1",
                            "insert 3#1",
                            "commit#1",
                            "close#1");
        }

        @Test
        void needNoGuardWhenBeginWasAnswered() {
            scopes.inTransactionMany(c -> rows(c, "insert 1")).subscribe(subscriber);
            assertThat(database.log()).containsExactly("create", "begin#1", "insert 1#1", "commit#1", "close#1");
        }

        @Test
        void waitWhenTheyMayNotFollow() {
            beginHeld(c -> Flux.merge(rows(c, "lock t"), rows(c, "insert 1")));
            assertThat(scopes.live().get(0).statementsInFlight()).isEqualTo(1);
            begin.release();
            assertThat(database.log())
                    .containsExactly("create", "begin#1", "lock t#1", "insert 1#1", "commit#1", "close#1");
        }

        @Test
        void waitWhenTheyAreNoStatements() {
            beginHeld(c -> Mono.from(c.createSavepoint("s")).thenMany(rows(c, "insert 1")));
            begin.release();
            assertThat(database.log())
                    .containsExactly("create", "begin#1", "savepoint#1", "insert 1#1", "commit#1", "close#1");
        }

        @Test
        void waitWhenOnlyOneMayBeInFlight() {
            database.on("begin", ProbeFault.hold(begin));
            with(ScopeOptions.defaults().withMaxStatementsInFlight(1))
                    .inTransactionMany(c -> rows(c, "insert 1"))
                    .subscribe(subscriber);
            begin.release();
            assertThat(database.log()).containsExactly("create", "begin#1", "insert 1#1", "commit#1", "close#1");
        }

        @Test
        void waitInATransactionInsideAnotherScope() {
            database.on("begin", ProbeFault.hold(begin));
            scopes.withConnectionMany(c -> scopes.inTransactionMany(t -> rows(t, "insert 1")))
                    .subscribe(subscriber);
            begin.release();
            assertThat(database.log()).containsExactly("create", "begin#1", "insert 1#1", "commit#1", "close#1");
        }

        @Test
        void areNotNeeded() {
            beginHeld(c -> Flux.just(7));
            begin.release();
            assertThat(subscriber.getReceivedOnNext()).containsExactly(7);
            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        }

        @Test
        void comeBehindTheSettingsThatAreLocal() {
            database.knowingSettings().on("begin", ProbeFault.hold(begin));
            with(ScopeOptions.defaults()
                            .withSettings(SessionSettings.none()
                                    .with("app.tenant", "7")
                                    .withValuesInSql()))
                    .inTransactionMany(c -> rows(c, "insert 1"))
                    .subscribe(subscriber);
            begin.release();
            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "set local app.tenant#1",
                            "guard#1",
                            "insert 1#1",
                            "commit#1",
                            "close#1");
        }

        @Test
        void waitWhenValuesOfSettingsAreBound() {
            database.knowingSettings().on("begin", ProbeFault.hold(begin));
            with(ScopeOptions.defaults().withSettings(SessionSettings.none().with("app.tenant", "7")))
                    .inTransactionMany(c -> rows(c, "insert 1"))
                    .subscribe(subscriber);
            begin.release();
            assertThat(database.log())
                    .containsExactly(
                            "create", "begin#1", "set local app.tenant#1", "insert 1#1", "commit#1", "close#1");
        }

        @Test
        void seeTheIsolationLevelOfTheTransaction() {
            AtomicReference<IsolationLevel> seen = new AtomicReference<>();
            scopes.transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.SERIALIZABLE))
                    .inTransactionMany(c -> {
                        seen.set(c.getTransactionIsolationLevel());
                        return rows(c, "insert 1");
                    })
                    .subscribe(subscriber);
            assertThat(seen).hasValue(IsolationLevel.SERIALIZABLE);
        }
    }

    @Nested
    class WhenBeginFails {

        @Test
        void whatIsBehindItGetsItsErrorAndHasNoEffect() {
            beginHeld(c -> Flux.mergeDelayError(8, rows(c, "insert 1"), rows(c, "insert 2")));
            begin.fail(REFUSED);
            assertThat(reactor.core.Exceptions.unwrapMultiple(subscriber.expectTerminalError()))
                    .contains(REFUSED);
            assertThat(database.durable()).isEmpty();
            assertThat(database.log())
                    .startsWith("create", "begin#1", "guard#1")
                    .endsWith("close#1");
            assertThat(database.closed()).isEqualTo(1);
            log.clear();
        }

        @Test
        void theScopeFailsWithItAndTheConnectionIsClosed() {
            beginHeld(c -> rows(c, "insert 1"));
            begin.fail(REFUSED);
            assertFailedWith(REFUSED);
            assertThat(database.log()).containsExactly("create", "begin#1", "guard#1", "close#1");
            assertThat(REFUSED.getSuppressed()).hasAtLeastOneElementOfType(ScopeAcquisitionException.class);
            log.clear();
        }

        @Test
        void nothingIsSentAnyMore() {
            beginHeld(c -> Mono.from(c.createSavepoint("s")).thenMany(rows(c, "insert 1")));
            begin.fail(REFUSED);
            assertFailedWith(REFUSED);
            assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
            log.clear();
        }

        @Test
        void aPipelineThatNeedsNoStatementFails() {
            beginHeld(c -> Flux.just(7));
            begin.fail(REFUSED);
            assertFailedWith(REFUSED);
            log.clear();
        }

        @Test
        void aPipelineThatKeepsTheErrorToItselfFails() {
            AtomicReference<Throwable> kept = new AtomicReference<>();
            beginHeld(c -> rows(c, "insert 1")
                    .doOnError(kept::set)
                    .onErrorResume(e -> rows(c, "insert 2").onErrorResume(again -> Flux.just(7))));
            begin.fail(REFUSED);
            assertThat(kept).hasValue(REFUSED);
            assertFailedWith(REFUSED);
            log.clear();
        }

        @Test
        void itsHooksHearOfARollback() {
            List<TransactionOutcome> outcomes = new CopyOnWriteArrayList<>();
            beginHeld(c -> CurrentScope.get()
                    .doOnNext(current ->
                            current.afterCompletion(outcome -> Mono.fromRunnable(() -> outcomes.add(outcome))))
                    .thenMany(rows(c, "insert 1")));
            begin.fail(REFUSED);
            assertThat(outcomes).containsExactly(TransactionOutcome.ROLLED_BACK);
            log.clear();
        }

        @Test
        void aPolicyTriesAgain() {
            Sinks.Empty<Void> first = Sinks.empty();
            AtomicInteger begins = new AtomicInteger();
            database.on("begin", () -> begins.incrementAndGet() == 1 ? first.asMono() : Mono.empty());
            scopes.transactions(TransactionOptions.defaults().withRetry(RetryPolicy.serialization(3)))
                    .inTransaction(c -> rows(c, "insert 1"))
                    .subscribe(subscriber);
            first.tryEmitError(new R2dbcRollbackException("again", "40001"));
            Settling.await("the second attempt", subscriber::isTerminated);
            assertThat(subscriber.isTerminatedComplete()).isTrue();
            assertThat(begins).hasValue(2);
            assertThat(database.durable()).containsExactly("insert 1");
            log.clear();
        }

        @Test
        void aSettingThatIsRefusedIsToldAsSuch() {
            database.knowingSettings()
                    .on("begin", ProbeFault.hold(begin))
                    .on("set local app.tenant", ProbeFault.fail("22023"));
            with(ScopeOptions.defaults()
                            .withSettings(SessionSettings.none()
                                    .with("app.tenant", "7")
                                    .withValuesInSql()))
                    .inTransactionMany(c -> rows(c, "insert 1"))
                    .subscribe(subscriber);
            begin.release();
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(SessionSettingException.class)
                    .hasMessageContaining("app.tenant");
            assertThat(database.durable()).isEmpty();
            assertThat(database.log()).endsWith("rollback#1", "close#1");
        }
    }

    @Nested
    class TheGuard {

        @Test
        void thatFailsEndsTheTransaction() {
            database.on("guard", ProbeFault.fail("57014"));
            beginHeld(c -> rows(c, "insert 1"));
            begin.release();
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(R2dbcNonTransientResourceException.class)
                    .hasMessageContaining("staged");
            assertThat(database.durable()).isEmpty();
            assertThat(database.log()).endsWith("rollback#1", "close#1");
        }

        @Test
        void thatMayNotBeCalledIsNotUsedAgain() {
            database.on("guard", ProbeFault.fail("42501"));
            beginHeld(c -> rows(c, "insert 1"));
            begin.release();
            assertThat(subscriber.isTerminatedError()).isTrue();
            ProbeHold second = ProbeHold.of();
            database.on("begin", ProbeFault.hold(second));
            TestSubscriber<Integer> again = TestSubscriber.create();
            scopes.inTransactionMany(c -> rows(c, "insert 2")).subscribe(again);
            second.release();
            assertThat(again.isTerminatedComplete()).isTrue();
            assertThat(database.durable()).containsExactly("insert 2");
            assertThat(database.log()).doesNotContain("guard#2");
        }

        @Test
        void thatIsNotAnsweredIsBoundedByTheAcquireTimeout() {
            VirtualTimeScheduler time = witness.virtualTime();
            database.on("guard", ProbeFault.hang());
            beginHeld(c -> rows(c, "insert 1"));
            begin.release();
            time.advanceTimeBy(Duration.ofSeconds(31));
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("did not answer while the transaction began");
            assertThat(database.closed()).isEqualTo(1);
            assertThat(database.durable()).isEmpty();
            log.clear();
        }
    }

    @Nested
    class ABeginThatIsNotAnswered {

        @Test
        void isBoundedByTheAcquireTimeout() {
            VirtualTimeScheduler time = witness.virtualTime();
            beginHeld(c -> rows(c, "insert 1"));
            time.advanceTimeBy(Duration.ofSeconds(29));
            assertThat(subscriber.isTerminated()).isFalse();
            time.advanceTimeBy(Duration.ofSeconds(2));
            assertThat(subscriber.expectTerminalError())
                    .isInstanceOf(ScopeAcquisitionException.class)
                    .hasMessageContaining("did not answer while the transaction began");
            assertThat(database.log()).containsExactly("create", "begin#1", "close#1");
            log.clear();
        }

        @Test
        void isAwaitedByAPipelineThatIsCancelled() {
            beginHeld(c -> rows(c, "insert 1"));
            subscriber.cancel();
            assertThat(database.log()).containsExactly("create", "begin#1");
            begin.release();
            assertThat(database.log())
                    .startsWith("create", "begin#1", "guard#1")
                    .endsWith("rollback#1", "close#1");
            assertThat(database.durable()).isEmpty();
        }

        @Test
        void isNotHitByARequestToCancelTheStatementBehindIt() {
            VirtualTimeScheduler time = witness.virtualTime();
            database.knowingCancel();
            beginHeld(c -> rows(c, "insert 1"));
            subscriber.cancel();
            time.advanceTimeBy(Duration.ofSeconds(3));
            assertThat(database.log()).containsExactly("create", "begin#1");
            begin.release();
            time.advanceTimeBy(Duration.ofSeconds(1));
            assertThat(database.log()).endsWith("rollback#1", "close#1").doesNotContain("cancel#1");
        }
    }

    @Nested
    class ItIsUsed {

        @Test
        void onlyWhereTheDatabaseKnowsIt() {
            AtomicInteger asked = new AtomicInteger();
            database.on("pipelining", () -> Mono.fromSupplier(() -> asked.incrementAndGet() > 5));
            for (int i = 0; i < 3; i++) {
                scopes.inTransactionMany(c -> rows(c, "insert 1")).blockLast();
            }
            assertThat(asked).hasValue(1);
            beginHeldAgain();
            assertThat(database.log()).doesNotContain("guard#4");
        }

        @Test
        void notBeforeItIsFoundOut() {
            AtomicInteger asked = new AtomicInteger();
            database.on("pipelining", () -> asked.incrementAndGet() == 1 ? Mono.empty() : Mono.just(true));
            scopes.inTransactionMany(c -> rows(c, "insert 1")).blockLast();
            beginHeldAgain();
            assertThat(asked).hasValue(2);
            assertThat(database.log()).contains("guard#2").doesNotContain("guard#1");
        }

        @Test
        void notBeforeThatIsKnown() {
            AtomicInteger asked = new AtomicInteger();
            database.on("pipelining", () -> asked.incrementAndGet() == 1 ? Mono.error(REFUSED) : Mono.just(true));
            scopes.inTransactionMany(c -> rows(c, "insert 1")).subscribe(subscriber);
            assertThat(subscriber.expectTerminalError()).isSameAs(REFUSED);
            assertThat(database.durable()).isEmpty();
            beginHeldAgain();
            assertThat(asked).hasValue(2);
            assertThat(database.log()).contains("guard#2");
        }

        @Test
        void onlyWhereARoundTripTakesLong() {
            ConnectionScopes fast =
                    witness.watch(plain.with(ScopeOptions.defaults().withPipelinedBegin(Duration.ofDays(1))));
            database.on("begin", ProbeFault.hold(begin));
            fast.inTransactionMany(c -> rows(c, "insert 1")).subscribe(subscriber);
            begin.release();
            assertThat(database.log()).containsExactly("create", "begin#1", "insert 1#1", "commit#1", "close#1");
        }

        private void beginHeldAgain() {
            ProbeHold held = ProbeHold.of();
            database.on("begin", ProbeFault.hold(held));
            TestSubscriber<Integer> again = TestSubscriber.create();
            scopes.inTransactionMany(c -> rows(c, "insert 1")).subscribe(again);
            held.release();
            assertThat(again.isTerminatedComplete()).isTrue();
        }
    }

    @Nested
    class TheRoundTrip {

        private final RoundTrips trips = new RoundTrips();

        private boolean isAtLeast(long nanos) {
            return trips.areAtLeast(Duration.ofNanos(nanos));
        }

        @Test
        void isNotLongAsLongAsItIsNotKnown() {
            assertThat(isAtLeast(1)).isFalse();
            assertThat(isAtLeast(0)).isTrue();
        }

        @Test
        void isTheShortest() {
            for (int i = 0; i < 15; i++) {
                trips.note(700 + i);
            }
            assertThat(isAtLeast(1)).as("not enough").isFalse();
            trips.note(900);
            assertThat(isAtLeast(700)).isTrue();
            assertThat(isAtLeast(701)).isFalse();
            trips.note(500);
            assertThat(isAtLeast(500)).isTrue();
            assertThat(isAtLeast(501)).isFalse();
        }

        @Test
        void isThatOfTheLastOnes() {
            trips.note(10);
            for (int i = 0; i < 62; i++) {
                trips.note(500);
            }
            assertThat(isAtLeast(11)).isFalse();
            for (int i = 0; i < 65; i++) {
                trips.note(500);
            }
            assertThat(isAtLeast(500)).isTrue();
            trips.note(20);
            assertThat(isAtLeast(21)).isFalse();
        }
    }
}
