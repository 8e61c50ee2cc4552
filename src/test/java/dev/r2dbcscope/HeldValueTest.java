package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** The value of a Mono that is held until the exit, when its body does not end well after it. */
class HeldValueTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final VirtualTimeScheduler time = witness.virtualTime();
    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final List<Object> discarded = new CopyOnWriteArrayList<>();

    private TestSubscriber<Integer> start(ConnectionScopes scopes, Flux<Integer> rest) {
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.inTransaction(c -> Mono.fromDirect(Flux.just(7).concatWith(rest)))
                .doOnDiscard(Object.class, discarded::add)
                .subscribe(subscriber);
        return subscriber;
    }

    @Test
    void isDiscardedOnceWhenATimeLimitEndsTheBody() {
        TestSubscriber<Integer> subscriber =
                start(scopes.with(ScopeOptions.defaults().withMaxHold(Duration.ofSeconds(1))), Flux.never());
        time.advanceTimeBy(Duration.ofSeconds(2));

        assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeTimeoutException.class);
        assertThat(subscriber.getReceivedOnNext()).isEmpty();
        assertThat(discarded).containsExactly(7);
    }

    @Test
    void isDiscardedOnceWhenTheBodyFailsAfterIt() {
        Sinks.Empty<Integer> end = Sinks.empty();
        TestSubscriber<Integer> subscriber = start(scopes, end.asMono().flux());
        end.tryEmitError(new IllegalStateException("the user's"));

        assertThat(subscriber.expectTerminalError()).hasMessage("the user's");
        assertThat(subscriber.getReceivedOnNext()).isEmpty();
        assertThat(discarded).containsExactly(7);
    }
}
