package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Hooks;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** The answer to BEGIN, against what comes behind it. */
@Tag("race")
class PipelinedBeginRaceTest {

    private static final R2dbcNonTransientResourceException REFUSED =
            new R2dbcNonTransientResourceException("BEGIN was cancelled", "57014");

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final Scheduler threads = Schedulers.fromExecutorService(Executors.newFixedThreadPool(2));

    /** Those that come on another thread than the answer: it is this thread's cancel that nobody is left to be told of. */
    @BeforeEach
    void dropQuietly() {
        Hooks.onErrorDropped(error -> {});
    }

    @AfterEach
    void stop() {
        Hooks.resetOnErrorDropped();
        threads.dispose();
    }

    /** One transaction, whose BEGIN and first statement the test lets go. */
    private static final class Race {

        final Sinks.Empty<Void> begin = Sinks.empty();
        final Sinks.Empty<Void> statement = Sinks.empty();
        final ProbeConnectionFactory database =
                ProbeConnectionFactory.of().pipeliningBegin().on("begin", begin::asMono);
        final ConnectionScopes scopes =
                ConnectionScopes.of(database).with(ScopeOptions.defaults().withPipelinedBegin(Duration.ZERO));
        final TestSubscriber<Integer> subscriber = TestSubscriber.create();
        Session session;

        Race() {
            scopes.inTransactionMany(c -> Flux.deferContextual(context -> {
                        session = Objects.requireNonNull(ScopeRoot.innermost(context))
                                .session();
                        return statement.asMono().thenMany(Rows.ints(c, "insert 1"));
                    }))
                    .subscribe(subscriber);
            assertThat(database.log()).containsExactly("create", "begin#1");
        }

        boolean isGuarded() {
            return database.log().contains("guard#1");
        }

        void assertEnds() {
            Settling.await("the end", () -> subscriber.isTerminated() || subscriber.isCancelled());
            assertSettled(scopes, database);
            assertThat(subscriber.getProtocolErrors()).isEmpty();
        }
    }

    private void race(Runnable one, Runnable other) {
        RaceTestUtils.race(threads, one, other);
    }

    @Test
    void aStatementThatComesAsBeginFailsHasNoEffect() {
        AtomicInteger guarded = new AtomicInteger();
        for (int i = 0; i < Settling.RACES; i++) {
            Race race = new Race();
            race(() -> race.begin.tryEmitError(REFUSED), () -> race.statement.tryEmitEmpty());
            race.assertEnds();
            assertThat(race.subscriber.expectTerminalError())
                    .satisfiesAnyOf(
                            e -> assertThat(e).isSameAs(REFUSED),
                            e -> assertThat(e).isInstanceOf(ScopeClosedException.class));
            assertThat(race.database.durable()).isEmpty();
            guarded.addAndGet(race.isGuarded() ? 1 : 0);
        }
        System.out.println("behind the guard: " + guarded + " of " + Settling.RACES);
        log.clear();
    }

    @Test
    void aStatementThatComesAsBeginSucceedsIsCommitted() {
        AtomicInteger guarded = new AtomicInteger();
        for (int i = 0; i < Settling.RACES; i++) {
            Race race = new Race();
            race(() -> race.begin.tryEmitEmpty(), () -> race.statement.tryEmitEmpty());
            race.assertEnds();
            assertThat(race.subscriber.getReceivedOnNext()).containsExactly(1);
            assertThat(race.subscriber.isTerminatedComplete()).isTrue();
            assertThat(race.database.durable()).containsExactly("insert 1");
            guarded.addAndGet(race.isGuarded() ? 1 : 0);
        }
        System.out.println("behind the guard: " + guarded + " of " + Settling.RACES);
    }

    @Test
    void aCancelThatComesAsBeginIsAnsweredRollsBack() {
        for (int i = 0; i < Settling.RACES; i++) {
            Race race = new Race();
            race.statement.tryEmitEmpty();
            race(
                    i % 2 == 0 ? race.begin::tryEmitEmpty : () -> race.begin.tryEmitError(REFUSED),
                    race.subscriber::cancel);
            race.assertEnds();
            boolean committed = race.subscriber.isTerminatedComplete();
            assertThat(race.database.durable()).hasSize(committed ? 1 : 0);
        }
        log.clear();
    }

    @Test
    void anAcquireTimeoutThatComesAsBeginIsAnsweredEndsOnce() {
        for (int i = 0; i < Settling.RACES; i++) {
            Race race = new Race();
            Entry entry = race.session.entry();
            race.statement.tryEmitEmpty();
            race(
                    i % 2 == 0 ? race.begin::tryEmitEmpty : () -> race.begin.tryEmitError(REFUSED),
                    entry::acquireTimedOut);
            race.assertEnds();
            boolean committed = race.subscriber.isTerminatedComplete();
            assertThat(race.database.durable()).hasSize(committed ? 1 : 0);
        }
        log.clear();
    }
}
