package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;
import reactor.util.context.Context;

/** How a transaction goes on without its subscriber under {@link OnCancel#COMPLETE}. */
class OnCancelCompleteTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private static final TransactionOptions COMPLETE =
            TransactionOptions.defaults().withOnCancel(OnCancel.COMPLETE).withCompletionTimeout(Duration.ofSeconds(10));

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withListener(events::add))
            .transactions(COMPLETE));
    private final Drops drops = new Drops();
    private final Sinks.Many<Integer> body = Sinks.many().unicast().onBackpressureBuffer();

    private <T> TestSubscriber<T> subscriber(long demand) {
        return TestSubscriber.builder()
                .initialRequest(demand)
                .contextPutAll(drops.watch(Context.empty()))
                .build();
    }

    private List<Class<?>> kinds() {
        return events.stream().<Class<?>>map(Object::getClass).toList();
    }

    private ScopeEvent.Released released() {
        return events.stream()
                .filter(ScopeEvent.Released.class::isInstance)
                .map(ScopeEvent.Released.class::cast)
                .findFirst()
                .orElseThrow();
    }

    @Test
    void finishesAndCommitsWithoutItsSubscriberAndWithoutDemand() {
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransactionMany(c -> Flux.concat(body.asFlux(), Rows.ints(c, "last")))
                .subscribe(subscriber);
        body.tryEmitNext(1);
        body.tryEmitNext(2);

        subscriber.cancel();
        body.tryEmitNext(3);
        assertThat(scopes.live()).hasSize(1);
        body.tryEmitComplete();

        assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
        assertThat(drops.values()).containsExactly(2, 3, 1);
        assertThat(database.log()).containsExactly("create", "begin#1", "last#1", "commit#1", "close#1");
        assertThat(released().outcome()).isEqualTo(ScopeOutcome.COMPLETED);
        assertThat(released().transaction()).isEqualTo(TransactionOutcome.COMMITTED);
        assertThat(kinds())
                .containsExactly(
                        ScopeEvent.Waiting.class,
                        ScopeEvent.Opened.class,
                        ScopeEvent.Detached.class,
                        ScopeEvent.StatementEnded.class,
                        ScopeEvent.Exiting.class,
                        ScopeEvent.Released.class);
    }

    @Test
    void discardsTheValueOfAMono() {
        Step<Integer> value = new Step<>();
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransaction(c -> value.publisher()).subscribe(subscriber);

        subscriber.cancel();
        subscriber.cancel();
        value.complete(7);

        assertThat(value.cancels()).isZero();
        assertThat(drops.values()).containsExactly(7);
        assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
    }

    @Test
    void rollsBackAndDropsTheErrorWhenItFails() {
        IllegalStateException failure = new IllegalStateException("own");
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransactionMany(c -> body.asFlux()).subscribe(subscriber);

        subscriber.cancel();
        body.tryEmitError(failure);

        assertThat(drops.errors()).containsExactly(failure);
        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        assertThat(released().error()).isSameAs(failure);
    }

    @Test
    void dropsTheErrorOfTheCommit() {
        IllegalStateException failure = new IllegalStateException("of COMMIT");
        database.on("commit", () -> Mono.error(failure));
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransactionMany(c -> body.asFlux()).subscribe(subscriber);

        subscriber.cancel();
        body.tryEmitComplete();

        assertThat(drops.errors()).singleElement().isSameAs(released().error());
    }

    @Test
    void isCancelledAndRolledBackAtTheDeadline() {
        VirtualTimeScheduler time = witness.virtualTime();
        Step<Integer> value = new Step<>();
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransaction(c -> value.publisher()).subscribe(subscriber);

        subscriber.cancel();
        time.advanceTimeBy(Duration.ofSeconds(9));
        assertThat(value.cancels()).isZero();
        time.advanceTimeBy(Duration.ofSeconds(1));

        assertThat(value.cancels()).isEqualTo(1);
        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        assertThat(drops.errors())
                .singleElement()
                .isInstanceOf(ScopeTimeoutException.class)
                .isSameAs(released().error());
        assertThat(drops.errors().get(0)).hasMessageContaining("PT10S");
    }

    @Test
    void isAwaitedByDrain() {
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransactionMany(c -> body.asFlux()).subscribe(subscriber);
        subscriber.cancel();
        TestSubscriber<Void> drained = TestSubscriber.create();
        scopes.drain(FormContract.PATIENCE).subscribe(drained);

        assertThat(drained.isTerminated()).isFalse();
        body.tryEmitComplete();

        assertThat(drained.isTerminatedComplete()).isTrue();
    }

    @Test
    void isCancelledIfItHasNotStarted() {
        Step<Integer> begin = new Step<>();
        database.on("begin", begin);
        TestSubscriber<Integer> subscriber = subscriber(1);
        scopes.inTransactionMany(c -> body.asFlux()).subscribe(subscriber);

        subscriber.cancel();
        begin.complete();

        assertThat(database.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
        assertThat(kinds()).doesNotContain(ScopeEvent.Detached.class);
    }

    @Test
    void goesOnIfItWaitsForItsConnectionInTheMiddle() {
        Step<Integer> begin = new Step<>();
        database.on("begin", begin);
        TestSubscriber<Integer> subscriber = subscriber(1);
        Mono.from(scopes.connectionFactory().create())
                .flatMapMany(c -> Rows.ints(c, "insert"))
                .as(scopes::transactional)
                .subscribe(subscriber);

        subscriber.cancel();
        begin.complete();

        assertThat(database.log()).containsExactly("create", "begin#1", "insert#1", "commit#1", "close#1");
    }

    @Test
    void isAnOrdinaryRollbackWithoutAConnectionOfItsOwn() {
        for (Propagation propagation : List.of(Propagation.REQUIRED, Propagation.NESTED)) {
            TestSubscriber<Integer> subscriber = subscriber(1);
            scopes.transactions(COMPLETE.withOnCancel(OnCancel.ROLLBACK))
                    .inTransactionMany(
                            c -> scopes.transactions(propagation).inTransactionMany(d -> Flux.<Integer>never()))
                    .subscribe(subscriber);
            subscriber.cancel();
        }
        TestSubscriber<Integer> inPlain = subscriber(1);
        scopes.withConnectionMany(c -> scopes.inTransactionMany(d -> Flux.<Integer>never()))
                .subscribe(inPlain);
        inPlain.cancel();

        assertThat(database.log()).filteredOn(step -> step.startsWith("commit")).isEmpty();
        assertThat(database.log())
                .filteredOn(step -> step.startsWith("rollback#"))
                .hasSize(3);
        assertThat(kinds()).doesNotContain(ScopeEvent.Detached.class);
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    @Tag("race")
    void endsOnceAsItsBodyDoesWhenCancelRacesTheEnd(boolean fails) {
        String sent = fails ? "rollback#1" : "commit#1";
        TransactionOutcome outcome = fails ? TransactionOutcome.ROLLED_BACK : TransactionOutcome.COMMITTED;
        for (int i = 0; i < RACES; i++) {
            events.clear();
            ProbeConnectionFactory raced = ProbeConnectionFactory.of();
            ConnectionScopes racing = ConnectionScopes.of(raced)
                    .with(ScopeOptions.defaults().withListener(events::add))
                    .transactions(COMPLETE);
            Sinks.One<Integer> end = Sinks.one();
            IllegalStateException failure = new IllegalStateException("own");
            Probe<Integer> probe = Probe.unbounded();
            racing.inTransactionMany(c -> end.asMono()).subscribe(probe);

            RaceTestUtils.race(probe::cancel, () -> {
                if (fails) {
                    end.tryEmitError(failure);
                } else {
                    end.tryEmitValue(7);
                }
            });

            Settling.await("the release", () -> kinds().contains(ScopeEvent.Released.class));
            assertSettled(racing, raced);
            probe.assertSound();
            assertThat(raced.log()).containsExactly("create", "begin#1", sent, "close#1");
            assertThat(released().transaction()).isEqualTo(outcome);
            assertThat(kinds()).endsWith(ScopeEvent.Released.class);
            if (fails) {
                Settling.await(
                        "the error arrives or is dropped",
                        () -> probe.error() == failure || probe.drops().errors().equals(List.of(failure)));
            } else {
                assertThat(probe.values().size() + probe.drops().values().size())
                        .isEqualTo(1);
            }
        }
    }

    @Test
    @Tag("race")
    void commitsOrRollsBackAsItReportsWhenTheDeadlineRacesTheEnd() {
        for (int i = 0; i < RACES; i++) {
            events.clear();
            ProbeConnectionFactory raced = ProbeConnectionFactory.of();
            ConnectionScopes racing = ConnectionScopes.of(raced)
                    .with(ScopeOptions.defaults().withListener(events::add))
                    .transactions(COMPLETE.withCompletionTimeout(Duration.ofNanos(1 + i * 7919L % 100_000)));
            Sinks.Empty<Integer> end = Sinks.empty();
            Probe<Integer> probe = Probe.unbounded();
            racing.inTransaction(c -> end.asMono()).subscribe(probe);

            probe.cancel();
            end.tryEmitEmpty();

            Settling.await("the release", () -> kinds().contains(ScopeEvent.Released.class));
            assertSettled(racing, raced);
            String sent = released().transaction() == TransactionOutcome.COMMITTED ? "commit#1" : "rollback#1";
            assertThat(raced.log()).containsExactly("create", "begin#1", sent, "close#1");
        }
    }
}
