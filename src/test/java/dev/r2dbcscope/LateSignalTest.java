package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.reactivestreams.Subscription;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.subscriber.TestSubscriber;
import reactor.test.util.RaceTestUtils;

/** Rows and values that come at the moment, or after it, at which a scope ends; and bounds that never come. */
class LateSignalTest {

    @RegisterExtension
    final Witness witness = new Witness();

    @Test
    @Tag("lifecycle-61")
    @Tag("race")
    void ofARowIsNotDeliveredAfterTheErrorOfAnAbandonedScope() {
        for (int i = 0; i < RACES; i++) {
            Sinks.Many<Integer> rows = Sinks.many().unicast().onBackpressureBuffer();
            ProbeConnectionFactory database = ProbeConnectionFactory.of().on("rows", rows::asFlux);
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Probe<Integer> detached = Probe.unbounded();
            Probe<Integer> probe = Probe.unbounded();
            scopes.withConnectionMany(c -> {
                        Rows.ints(c, "rows").subscribe(detached);
                        return Flux.<Integer>never();
                    })
                    .subscribe(probe);

            RaceTestUtils.race(probe::cancel, () -> {
                rows.tryEmitNext(1);
                rows.tryEmitNext(2);
                rows.tryEmitNext(3);
            });
            rows.tryEmitComplete();

            assertThat(detached.awaitEnd().error()).isInstanceOf(ScopeClosedException.class);
            detached.assertSound();
            assertSettled(scopes, database);
        }
    }

    @Test
    @Tag("lifecycle-26")
    void ofAMonoIsDiscardedWhenTheCancelComesBeforeItsEnd() {
        ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
        ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
        List<Object> discarded = new ArrayList<>();
        TestSubscriber<Object> subscriber = TestSubscriber.create();
        Mono<Object> emitsAndNeverEnds = Mono.fromDirect(s -> s.onSubscribe(new Subscription() {
            @Override
            public void request(long n) {
                s.onNext("value");
            }

            @Override
            public void cancel() {}
        }));

        scopes.connected(emitsAndNeverEnds)
                .doOnDiscard(Object.class, discarded::add)
                .subscribe(subscriber);
        subscriber.cancel();

        assertThat(discarded).containsExactly("value");
        assertThat(subscriber.getReceivedOnNext()).isEmpty();
    }

    enum Bound {
        ACQUIRE,
        RELEASE,
        LEAK;

        ScopeOptions withoutEnd() {
            Duration forEver = Duration.ofSeconds(Long.MAX_VALUE);
            ScopeOptions defaults = ScopeOptions.defaults();
            return switch (this) {
                case ACQUIRE -> defaults.withAcquireTimeout(forEver);
                case RELEASE -> defaults.withReleaseTimeout(forEver);
                case LEAK -> defaults.withLeakThreshold(forEver);
            };
        }
    }

    @ParameterizedTest
    @EnumSource
    void ofABoundNeverComesWhenItIsForEver(Bound bound) {
        Step<Integer> begin = new Step<>();
        Step<Integer> commit = new Step<>();
        ProbeConnectionFactory database =
                witness.watch(ProbeConnectionFactory.of()).on("begin", begin).on("commit", commit);
        new Form(Form.Shape.IN_TRANSACTION_MANY, true).stage(database);
        TestSubscriber<Integer> subscriber = TestSubscriber.create();

        witness.watch(ConnectionScopes.of(database).with(bound.withoutEnd()))
                .inTransactionMany(c -> Rows.ints(c, "select 1"))
                .subscribe(subscriber);
        begin.awaitReached().complete();
        commit.awaitReached().complete();
        subscriber.block(FormContract.PATIENCE);

        assertThat(subscriber.isTerminatedComplete()).isTrue();
        assertThat(database.log()).containsExactly("create", "begin#1", "select 1#1", "commit#1", "close#1");
    }
}
