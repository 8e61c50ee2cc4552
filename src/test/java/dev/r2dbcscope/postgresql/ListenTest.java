package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.Notification.Listening;
import dev.r2dbcscope.postgresql.Notification.MayHaveMissed;
import dev.r2dbcscope.postgresql.Notification.MayHaveMissed.Reason;
import dev.r2dbcscope.postgresql.Notification.Received;
import io.r2dbc.spi.R2dbcBadGrammarException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;
import reactor.test.StepVerifier;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** One subscription to notifications, without a database: gaps, attempts and their pauses. */
class ListenTest {

    private static final int RACES = 20_000;

    private static ListenOptions options(int buffer) {
        return ListenOptions.DEFAULTS.with(draft -> draft.buffer = buffer);
    }

    private static Notification received(int number) {
        return new Received("numbers", Integer.toString(number), 1);
    }

    /** Every number follows the one before it, or a signal that there is a gap. */
    private static int assertGapsAreTold(List<Notification> heard) {
        int last = 0;
        int gaps = 0;
        boolean told = false;
        for (Notification notification : heard) {
            if (notification instanceof MayHaveMissed missed) {
                assertThat(missed.reason()).isEqualTo(Reason.OVERFLOW);
                told = true;
                gaps++;
            } else {
                int number = Integer.parseInt(((Received) notification).payload());
                assertThat(number > last + 1).as("gap before " + number).isEqualTo(told);
                last = number;
                told = false;
            }
        }
        return gaps;
    }

    @Test
    void aGapIsToldExactlyWhereItIsHoweverDemandRacesWithWhatComes() {
        int withGaps = 0;
        for (int i = 0; i < RACES; i++) {
            Sinks.Many<Notification> source = Sinks.many().unicast().onBackpressureBuffer();
            TestSubscriber<Notification> subscriber =
                    TestSubscriber.builder().initialRequest(0).build();
            new Listen(options(2)).to(source.asFlux()).subscribe(subscriber);
            RaceTestUtils.race(
                    () -> {
                        for (int n = 1; n <= 6; n++) {
                            source.tryEmitNext(received(n)).orThrow();
                        }
                    },
                    () -> {
                        subscriber.request(1);
                        subscriber.request(2);
                        subscriber.request(Long.MAX_VALUE);
                    });
            List<Notification> heard = subscriber.getReceivedOnNext();
            withGaps += assertGapsAreTold(heard) > 0 ? 1 : 0;
            assertThat(heard).last().isEqualTo(received(6));
            subscriber.cancel();
        }
        assertThat(withGaps).isPositive();
    }

    @Test
    void attemptsComeAfterGrowingPausesAndStartAnewAfterASuccess() {
        AtomicInteger attempts = new AtomicInteger();
        Flux<Notification> failsTwiceThenIsLost = Flux.defer(() -> attempts.incrementAndGet() % 3 == 0
                ? Flux.<Notification>just(new Listening()).concatWith(lost())
                : lost());
        ListenOptions threeTimes = ListenOptions.DEFAULTS.with(draft -> {
            draft.attempts = 3;
            draft.firstPause = Duration.ofSeconds(1);
            draft.longestPause = Duration.ofSeconds(10);
        });
        StepVerifier.withVirtualTime(
                        () -> new Listen(threeTimes).to(failsTwiceThenIsLost).take(3))
                .expectSubscription()
                .expectNoEvent(Duration.ofMillis(1_400))
                .thenAwait(Duration.ofMinutes(10))
                .expectNext(new Listening())
                .expectNextMatches(ListenTest::isReconnect)
                .expectNextMatches(ListenTest::isReconnect)
                .verifyComplete();
        assertThat(attempts).hasValue(9);
    }

    private static boolean isReconnect(Notification notification) {
        return notification instanceof MayHaveMissed missed
                && missed.reason() == Reason.RECONNECTED
                && missed.cause() instanceof R2dbcNonTransientResourceException;
    }

    private static Flux<Notification> lost() {
        return Flux.error(new R2dbcNonTransientResourceException("lost", "08006"));
    }

    @Test
    void attemptsThatAreUsedUpFailWithTheLastError() {
        ListenOptions twice = ListenOptions.DEFAULTS.with(draft -> draft.attempts = 2);
        StepVerifier.withVirtualTime(() -> new Listen(twice).to(lost()))
                .thenAwait(Duration.ofMinutes(10))
                .verifyErrorMessage("lost");
    }

    @Test
    void errorsThatAnotherAttemptWouldNotMendFailAtOnce() {
        AtomicInteger attempts = new AtomicInteger();
        for (Throwable error : List.of(
                new R2dbcBadGrammarException("no such database", "3D000"),
                new R2dbcNonTransientResourceException("no such database", "3D000"),
                new IllegalStateException("closed"))) {
            Flux<Notification> failing = Flux.defer(() -> {
                attempts.incrementAndGet();
                return Flux.error(error);
            });
            StepVerifier.create(new Listen(ListenOptions.DEFAULTS).to(failing))
                    .verifyErrorMatches(thrown -> thrown == error);
        }
        assertThat(attempts).hasValue(3);
    }
}
