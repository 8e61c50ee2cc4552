package dev.r2dbcscope.testkit;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.Rows;
import dev.r2dbcscope.Settling;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** Connections that serve one step at a time. */
class ProbeOrderTest {

    private final ProbeConnectionFactory probe =
            ProbeConnectionFactory.of().servingInOrder().on("select 1", () -> Flux.range(1, 1_000));
    private final Connection connection =
            Mono.<Connection>fromDirect(probe.create()).blockOptional().orElseThrow();

    private static TestSubscriber<Object> start(Publisher<?> step) {
        TestSubscriber<Object> subscriber = TestSubscriber.create();
        Flux.<Object>from(step).subscribe(subscriber);
        return subscriber;
    }

    private List<String> served() {
        List<String> log = probe.log();
        return log.subList(1, log.size());
    }

    @Test
    void aStatementWaitsUntilTheOneBeforeItWasReadToItsEnd() {
        TestSubscriber<Object> first =
                TestSubscriber.builder().initialRequest(2).build();
        Flux.<Object>from(Rows.ints(connection, "select 1")).subscribe(first);
        TestSubscriber<Object> second = start(Rows.ints(connection, "select 2"));
        TestSubscriber<Object> commit = start(connection.commitTransaction());

        assertThat(first.getReceivedOnNext()).containsExactly(1, 2);
        assertThat(served()).containsExactly("select 1#1");

        first.request(1_000);
        assertThat(first.isTerminatedComplete()).isTrue();
        assertThat(second.isTerminatedComplete()).isTrue();
        assertThat(commit.isTerminatedComplete()).isTrue();
        assertThat(served()).containsExactly("select 1#1", "select 2#1", "commit#1");
    }

    @Test
    void anotherConnectionDoesNotWait() {
        TestSubscriber<Object> first =
                start(connection.createStatement("select 1").execute());
        Connection other = probe.newConnection();

        assertThat(Rows.ints(other, "select 2").blockLast()).isEqualTo(1);
        first.cancel();
    }

    @Test
    void aResultThatWasCancelledFreesTheConnection() {
        TestSubscriber<Object> first =
                TestSubscriber.builder().initialRequest(1).build();
        Flux.<Object>from(Rows.ints(connection, "select 1")).subscribe(first);
        TestSubscriber<Object> second = start(Rows.ints(connection, "select 2"));
        assertThat(second.isTerminated()).isFalse();

        first.cancel();

        assertThat(second.isTerminatedComplete()).isTrue();
    }

    @Test
    void anExecutionThatWasLeftWithItsResultUnreadFreesTheConnection() {
        TestSubscriber<Object> unread =
                start(connection.createStatement("select 1").execute());
        assertThat(unread.getReceivedOnNext()).hasSize(1);
        assertThat(unread.isTerminated()).isFalse();
        TestSubscriber<Object> second = start(Rows.ints(connection, "select 2"));
        assertThat(second.isTerminated()).isFalse();

        unread.cancel();

        assertThat(second.isTerminatedComplete()).isTrue();
    }

    @Test
    void aResultThatFailedFreesTheConnection() {
        probe.on("broken", () -> Flux.just(1).concatWith(Mono.error(new IllegalStateException("staged"))));

        assertThat(start(Rows.ints(connection, "broken")).expectTerminalError()).hasMessage("staged");
        assertThat(start(Rows.ints(connection, "select 2")).isTerminatedComplete())
                .isTrue();
    }

    @Test
    void aStepThatFailsOrIsDroppedFreesTheConnection() {
        for (ProbeFault fault : List.of(ProbeFault.fail("08006"), ProbeFault.drop(), ProbeFault.failAfter("08006"))) {
            probe.on("select 1", fault).on("begin", fault);
            start(Rows.ints(connection, "select 1"));
            start(connection.beginTransaction());
            probe.withoutFaults();

            assertThat(start(Rows.ints(connection, "select 2")).isTerminatedComplete())
                    .as(fault.toString())
                    .isTrue();
        }
    }

    @Test
    void whoLeavesBeforeItsTurnIsNotServed() {
        TestSubscriber<Object> first =
                start(connection.createStatement("select 1").execute());
        TestSubscriber<Object> second = start(Rows.ints(connection, "select 2"));
        TestSubscriber<Object> third = start(Rows.ints(connection, "select 3"));

        second.cancel();
        first.cancel();

        assertThat(third.isTerminatedComplete()).isTrue();
        assertThat(served()).containsExactly("select 1#1", "select 3#1");
    }

    @Test
    void aRequestToCancelDoesNotWait() {
        probe.knowingCancel().on("slow", Flux::never);
        TestSubscriber<Object> slow = start(Rows.ints(connection, "slow"));
        TestSubscriber<Object> next = start(Rows.ints(connection, "select 2"));

        assertThat(start(new ProbeDialect().cancelRunning(connection)).isTerminatedComplete())
                .isTrue();

        assertThat(slow.isTerminatedError()).isTrue();
        assertThat(next.isTerminatedComplete()).isTrue();
    }

    // races ----------------------------------------------------------------------------------------------------------

    @Test
    @Tag("race")
    void noTurnIsLostWhenACancelRacesIt() {
        for (int i = 0; i < Settling.RACES; i++) {
            Sinks.Many<Integer> rows = Sinks.many().unicast().onBackpressureBuffer();
            probe.forgetful().on("head", rows::asFlux);
            TestSubscriber<Object> head = start(Rows.ints(connection, "head"));
            TestSubscriber<Object> left = start(Rows.ints(connection, "select 2"));
            TestSubscriber<Object> third = start(Rows.ints(connection, "select 3"));

            RaceTestUtils.race(rows::tryEmitComplete, left::cancel);

            third.block();
            assertThat(third.isTerminatedComplete()).isTrue();
            assertThat(head.isTerminatedComplete()).isTrue();
        }
    }

    @Test
    @Tag("race")
    void noTurnIsLostWhenACancelOfTheHeadRacesNewcomers() {
        probe.forgetful();
        for (int i = 0; i < Settling.RACES; i++) {
            TestSubscriber<Object> head =
                    start(connection.createStatement("select 1").execute());
            List<TestSubscriber<Object>> others =
                    new ArrayList<>(List.of(TestSubscriber.create(), TestSubscriber.create()));

            RaceTestUtils.race(
                    head::cancel,
                    () -> Flux.<Object>from(Rows.ints(connection, "select 2")).subscribe(others.get(0)),
                    () -> Flux.<Object>from(connection.beginTransaction()).subscribe(others.get(1)));

            others.forEach(TestSubscriber::block);
            assertThat(others).allMatch(TestSubscriber::isTerminatedComplete);
        }
    }

    @Test
    @Tag("race")
    void oneAtATimeIsServed() {
        probe.forgetful();
        for (int i = 0; i < Settling.RACES; i++) {
            AtomicInteger busy = new AtomicInteger();
            AtomicInteger most = new AtomicInteger();
            probe.on(
                    "counted",
                    () -> Flux.just(1)
                            .doOnSubscribe(s -> most.accumulateAndGet(busy.incrementAndGet(), Math::max))
                            .doOnComplete(busy::decrementAndGet));
            TestSubscriber<Object> first = TestSubscriber.create();
            TestSubscriber<Object> second = TestSubscriber.create();

            RaceTestUtils.race(
                    () -> Flux.<Object>from(Rows.ints(connection, "counted")).subscribe(first),
                    () -> Flux.<Object>from(Rows.ints(connection, "counted")).subscribe(second));

            first.block();
            second.block();
            assertThat(most).hasValue(1);
        }
    }

    @Test
    void resultsOfOneExecutionComeOneAfterTheOther() {
        List<String> read = new ArrayList<>();
        Disposable all = Flux.from(connection
                        .createStatement("select 1")
                        .bind(0, 1)
                        .add()
                        .bind(0, 2)
                        .execute())
                .flatMap(Result::getRowsUpdated)
                .subscribe(count -> read.add(served().size() + ": " + count));

        assertThat(all.isDisposed()).isTrue();
        assertThat(read).containsExactly("1: 1000", "2: 1000");
    }
}
