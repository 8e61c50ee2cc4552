package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BiFunction;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.MonoSink;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;
import reactor.test.publisher.TestPublisher;
import reactor.test.subscriber.TestSubscriber;

/** The subscriber leaves before the connection is there. */
class CancelWhileAcquiringTest {

    private final ProbeConnectionFactory database = ProbeConnectionFactory.of();
    private final ConnectionScopes scopes = ConnectionScopes.of(database);
    private final AtomicInteger bodies = new AtomicInteger();

    private Flux<Integer> scope(ScopeShape shape) {
        return shape.around(scopes, connection -> {
            bodies.incrementAndGet();
            return Flux.never();
        });
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-15")
    void acquiresNothingWhenCancelledInsideOnSubscribe(ScopeShape shape) {
        Drops drops = new Drops();
        scope(shape).contextWrite(drops::watch).subscribe(new BaseSubscriber<>() {
            @Override
            protected void hookOnSubscribe(Subscription subscription) {
                cancel();
            }
        });
        assertThat(database.log()).isEmpty();
        assertThat(bodies).hasValue(0);
        assertThat(drops.errors()).isEmpty();
        assertSettled(scopes, database);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-15")
    void acquiresNothingWhenTheLeaderIsGoneBeforeItSubscribes(ScopeShape shape) {
        Sinks.Empty<Void> trigger = Sinks.empty();
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        trigger.asMono().thenMany(scope(shape)).subscribe(subscriber);
        subscriber.cancel();
        trigger.tryEmitEmpty();
        assertThat(database.log()).isEmpty();
        assertSettled(scopes, database);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-16")
    void holdsNothingWhenTheConnectionNeverComes(ScopeShape shape) {
        TestPublisher<Connection> acquisition = TestPublisher.create();
        database.on("create", acquisition::flux);
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scope(shape).subscribe(subscriber);
        assertThat(scopes.live()).hasSize(1);
        subscriber.cancel();
        assertThat(scopes.live()).isEmpty();
        assertThat(database.log()).containsExactly("create");
        assertThat(bodies).hasValue(0);
        acquisition.assertNotCancelled();
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-17")
    void releasesALateConnectionUntouched(ScopeShape shape) {
        TestPublisher<Connection> acquisition = TestPublisher.create();
        database.on("create", acquisition::flux);
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scope(shape).subscribe(subscriber);
        subscriber.cancel();
        acquisition.next(database.newConnection()).complete();
        assertSettled(scopes, database);
        assertThat(database.log()).containsExactly("create", "close#1");
        assertThat(bodies).hasValue(0);
        assertThat(subscriber.isTerminated()).isFalse();
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-17")
    void ignoresALateAcquisitionError(ScopeShape shape) {
        TestPublisher<Connection> acquisition = TestPublisher.create();
        database.on("create", acquisition::flux);
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scope(shape).subscribe(subscriber);
        subscriber.cancel();
        acquisition.error(new IllegalStateException("late"));
        assertThat(subscriber.isTerminated()).isFalse();
        assertSettled(scopes, database);
    }

    /** Acquisition chains that lose a value which arrives after a cancel. */
    enum Chain {
        FLAT_MAP((database, gate) -> gate.flatMap(go -> Mono.fromSupplier(database::newConnection))),
        TIMEOUT((database, gate) -> gate.map(go -> database.newConnection()).timeout(Duration.ofSeconds(60))),
        PUBLISH_ON((database, gate) -> gate.map(go -> database.newConnection()).publishOn(Schedulers.boundedElastic())),
        SUBSCRIBE_ON((database, gate) -> {
            CountDownLatch open = new CountDownLatch(1);
            gate.subscribe(go -> open.countDown());
            return Mono.<Connection>fromCallable(() -> {
                        assertThat(open.await(60, TimeUnit.SECONDS)).isTrue();
                        return database.newConnection();
                    })
                    .subscribeOn(Schedulers.boundedElastic());
        }),
        MONO_CREATE((database, gate) -> {
            AtomicReference<MonoSink<Connection>> sink = new AtomicReference<>();
            gate.subscribe(go -> sink.get().success(database.newConnection()));
            return Mono.<Connection>create(sink::set);
        }),
        FROM_FUTURE((database, gate) -> {
            CompletableFuture<Connection> future = new CompletableFuture<>();
            gate.subscribe(go -> future.complete(database.newConnection()));
            return Mono.fromFuture(future);
        }),
        FLUX((database, gate) -> gate.map(go -> database.newConnection()).flux().concatWith(Mono.never()));

        final BiFunction<ProbeConnectionFactory, Mono<Boolean>, Publisher<? extends Connection>> chain;

        Chain(BiFunction<ProbeConnectionFactory, Mono<Boolean>, Publisher<? extends Connection>> chain) {
            this.chain = chain;
        }
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-18")
    void releasesWhatAcquisitionsLoseThatForgetTheirValueOnCancel(Chain chain) {
        for (ScopeShape shape : ScopeShape.values()) {
            ProbeConnectionFactory lossy = ProbeConnectionFactory.of();
            Sinks.One<Boolean> gate = Sinks.one();
            Publisher<? extends Connection> acquisition = chain.chain.apply(lossy, gate.asMono());
            lossy.on("create", () -> acquisition);
            ConnectionScopes over = ConnectionScopes.of(lossy);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            shape.around(over, connection -> {
                        bodies.incrementAndGet();
                        return Flux.never();
                    })
                    .subscribe(subscriber);
            subscriber.cancel();
            gate.tryEmitValue(true);
            Settling.await("the connection was closed", () -> lossy.log().contains("close#1"));
            assertSettled(over, lossy);
            assertThat(lossy.log()).containsExactly("create", "close#1");
            assertThat(bodies).hasValue(0);
        }
    }

    @Nested
    class Opening {

        @ParameterizedTest
        @EnumSource(names = {"IN_TRANSACTION", "IN_TRANSACTION_MANY", "TRANSACTIONAL_MONO", "TRANSACTIONAL_FLUX"})
        @Tag("lifecycle-54")
        @Tag("lifecycle-66")
        void rollsBackOnlyAfterBeginWasAnswered(ScopeShape shape) {
            TestPublisher<Void> begin = TestPublisher.create();
            database.on("begin", begin::flux);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scope(shape).subscribe(subscriber);
            subscriber.cancel();
            assertThat(database.log()).containsExactly("create", "begin#1");
            begin.assertNotCancelled();
            begin.complete();
            assertThat(database.log()).containsExactly(shape.rolledBack());
            assertThat(bodies).hasValue(0);
            assertSettled(scopes, database);
        }

        @ParameterizedTest
        @EnumSource(names = {"IN_TRANSACTION", "IN_TRANSACTION_MANY", "TRANSACTIONAL_MONO", "TRANSACTIONAL_FLUX"})
        @Tag("lifecycle-54")
        void releasesWhenBeginFailsAfterTheCancel(ScopeShape shape) {
            TestPublisher<Void> begin = TestPublisher.create();
            database.on("begin", begin::flux);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scope(shape).subscribe(subscriber);
            subscriber.cancel();
            begin.error(new IllegalStateException("no"));
            assertThat(bodies).hasValue(0);
            assertThat(subscriber.isTerminated()).isFalse();
            assertSettled(scopes, database);
        }

        @Test
        @Tag("lifecycle-30")
        void isAwaitedByDrain() {
            TestPublisher<Void> begin = TestPublisher.create();
            database.on("begin", begin::flux);
            TestSubscriber<Integer> subscriber = TestSubscriber.create();
            scope(ScopeShape.IN_TRANSACTION).subscribe(subscriber);
            subscriber.cancel();
            TestSubscriber<Void> drained = TestSubscriber.create();
            scopes.drain(Duration.ofSeconds(60)).subscribe(drained);
            assertThat(drained.isTerminated()).isFalse();
            begin.complete();
            assertThat(drained.isTerminatedComplete()).isTrue();
            assertThat(database.live()).isZero();
        }
    }
}
