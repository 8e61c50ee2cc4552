package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.lang.ref.WeakReference;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** The statements of one scope that wait for their turn: how many there may be. */
class StatementQueueTest {

    private static final int MOST = 3;

    private final Sinks.Empty<Void> turn = Sinks.empty();
    private final ProbeConnectionFactory database = ProbeConnectionFactory.of()
            .onScheduler(() -> Schedulers.immediate())
            .on("slow", () -> turn.asMono());
    private final ConnectionScopes scopes = ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withMaxStatementsInFlight(1).withMaxStatementsWaiting(MOST));
    private final AtomicReference<Connection> connection = new AtomicReference<>();
    private final Sinks.Empty<Void> end = Sinks.empty();
    private final Probe<Object> scope = Probe.unbounded();

    @BeforeEach
    void aStatementThatKeepsTheConnection() {
        scopes.withConnection(c -> {
                    connection.set(c);
                    return end.asMono();
                })
                .subscribe(scope);
        execute("slow");
    }

    @AfterEach
    void everythingIsReleased() {
        turn.tryEmitEmpty();
        end.tryEmitEmpty();
        assertThat(scope.awaitEnd().isCompleted()).isTrue();
        Settling.assertSettled(scopes, database);
    }

    private Probe<Integer> execute(String sql) {
        Probe<Integer> probe = Probe.unbounded();
        Rows.ints(connection.get(), sql).subscribe(probe);
        return probe;
    }

    private int waiting() {
        return scopes.live().get(0).statementsWaiting();
    }

    @Test
    void oneMoreThanTheBoundFailsAndTheOthersAreServed() {
        List<Probe<Integer>> waiting = new ArrayList<>();
        for (int i = 0; i < MOST; i++) {
            waiting.add(execute("next"));
        }
        Probe<Integer> tooMany = execute("one too many");

        assertThat(tooMany.error()).isInstanceOfSatisfying(StatementQueueOverflowException.class, error -> {
            assertThat(error.getSql()).isEqualTo("one too many");
            assertThat(error.maxStatementsWaiting()).isEqualTo(MOST);
            assertThat(error).hasMessageContainingAll("3 statements", "withMaxStatementsWaiting");
        });
        assertThat(waiting()).isEqualTo(MOST);

        turn.tryEmitEmpty();
        assertThat(waiting)
                .allSatisfy(probe -> assertThat(probe.awaitEnd().values()).containsExactly(1));
        assertThat(waiting()).isZero();
        assertThat(execute("now it may").awaitEnd().values()).containsExactly(1);
    }

    @Test
    void whoeverHasLeftDoesNotCount() {
        for (int round = 0; round < 1_000; round++) {
            Probe<Integer> left = execute("next");
            assertThat(left.error()).isNull();
            left.cancel();
            assertThat(waiting()).isZero();
        }
        execute("next");
        execute("next");
        assertThat(waiting()).isEqualTo(2);
    }

    @Test
    void whoeverLeavesWhileItIsSubscribedDoesNotCount() {
        for (int round = 0; round < 10; round++) {
            Rows.ints(connection.get(), "next").take(0).subscribe();
            Mono.from(connection.get().createStatement("next").execute()).subscribe(new BaseSubscriber<Object>() {
                @Override
                protected void hookOnSubscribe(org.reactivestreams.Subscription subscription) {
                    cancel();
                }
            });
        }
        assertThat(waiting()).isZero();
    }

    /** Even if one that stays waits before them. */
    @Test
    void whoeverHasLeftIsForgotten() {
        execute("next");
        List<WeakReference<Object>> left = new ArrayList<>();
        for (int i = 0; i < 1_000; i++) {
            Object subscriber = new Object();
            left.add(new WeakReference<>(subscriber));
            Disposable subscription = Rows.ints(connection.get(), "next").subscribe(value -> subscriber.hashCode());
            subscription.dispose();
        }
        Await.until(
                () -> {
                    System.gc();
                    return left.stream().filter(each -> each.get() != null).count() < 500;
                },
                () -> "they are kept");
    }

    @Test
    void requestsToTheConnectionItselfCountToo() {
        Probe<Integer> first = Probe.unbounded();
        for (int i = 0; i < MOST; i++) {
            execute("next");
        }
        Mono.from(connection.get().setStatementTimeout(Duration.ofSeconds(1)))
                .thenReturn(1)
                .subscribe(first);
        assertThat(first.error()).isInstanceOf(StatementQueueOverflowException.class);
    }
}
