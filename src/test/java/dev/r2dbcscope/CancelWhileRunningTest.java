package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Schedulers;
import reactor.test.StepVerifier;
import reactor.test.publisher.TestPublisher;

/** The subscriber leaves while the body runs, or while the scope ends. */
class CancelWhileRunningTest {

    private final ProbeConnectionFactory database = ProbeConnectionFactory.of();
    private final ConnectionScopes scopes = ConnectionScopes.of(database);
    private final Probe<Integer> probe = Probe.unbounded();

    private void assertRolledBack(ScopeShape shape) {
        assertSettled(scopes, database);
        assertThat(database.log()).containsExactly(shape.rolledBack());
        assertThat(probe.isTerminated()).isFalse();
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-20")
    void cancelsASubscriptionOfTheBodyThatComesLate(ScopeShape shape) {
        Late late = new Late();
        shape.around(scopes, connection -> late).subscribe(probe);
        probe.cancel();
        assertRolledBack(shape);
        late.arrive();
        assertThat(late.cancels).hasValue(1);
        assertThat(late.requests).hasValue(0);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-21")
    void exitsThoughTheBodyNeverCallsOnSubscribe(ScopeShape shape) {
        shape.around(scopes, connection -> new Late()).subscribe(probe);
        probe.cancel();
        assertRolledBack(shape);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-22")
    void cancelsAnAsynchronousBodyBeforeItExits(ScopeShape shape) {
        List<List<String>> logAtCancel = new CopyOnWriteArrayList<>();
        shape.around(scopes, connection -> Flux.<Integer>never().doOnCancel(() -> logAtCancel.add(database.log())))
                .subscribe(probe);
        probe.cancel();
        assertRolledBack(shape);
        assertThat(logAtCancel).hasSize(1);
        assertThat(logAtCancel.get(0)).doesNotContain("rollback#1", "close#1");
    }

    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION_MANY", "CONNECTED_FLUX", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-23")
    void emitsNoMoreThanTheCurrentElementOfASynchronousBody(ScopeShape shape) {
        AtomicInteger emitted = new AtomicInteger();
        Flux<Integer> scope =
                shape.around(scopes, connection -> Flux.range(1, 1_000_000).doOnNext(n -> emitted.incrementAndGet()));
        StepVerifier.create(scope.next()).expectNext(1).verifyComplete();
        assertThat(emitted).hasValue(1);
        assertRolledBack(shape);
    }

    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION_MANY", "CONNECTED_FLUX", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-23")
    void stopsASynchronousBodyWhenTheSubscriberHasSeenEnough(ScopeShape shape) {
        AtomicInteger emitted = new AtomicInteger();
        Flux<Integer> scope =
                shape.around(scopes, connection -> Flux.range(1, 1_000_000).doOnNext(n -> emitted.incrementAndGet()));
        StepVerifier.create(scope.takeUntil(n -> n == 3)).expectNext(1, 2, 3).verifyComplete();
        assertThat(emitted).hasValue(3);
        assertRolledBack(shape);
    }

    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION_MANY", "CONNECTED_FLUX", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-23")
    void stopsASynchronousBodyWhenAnOperatorBehindItThrows(ScopeShape shape) {
        AtomicInteger emitted = new AtomicInteger();
        Flux<Integer> scope =
                shape.around(scopes, connection -> Flux.range(1, 1_000_000).doOnNext(n -> emitted.incrementAndGet()));
        StepVerifier.create(scope.map(n -> 1 / (n - 1))).verifyError(ArithmeticException.class);
        assertThat(emitted).hasValue(1);
        assertRolledBack(shape);
    }

    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION_MANY", "CONNECTED_FLUX", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-24")
    void freesTheThreadOfAnInfiniteSynchronousBody(ScopeShape shape) {
        AtomicBoolean free = new AtomicBoolean();
        Flux<Integer> scope = shape.around(
                scopes,
                connection -> Flux.generate(() -> 0, (n, sink) -> {
                    sink.next(n);
                    return n + 1;
                }));
        Mono.fromRunnable(() -> scope.subscribe(probe))
                .doFinally(end -> free.set(true))
                .subscribeOn(Schedulers.single())
                .subscribe();
        Settling.await("the body emits", () -> probe.values().size() > 10);
        probe.cancel();
        Settling.await("the thread is free", free::get);
        assertRolledBack(shape);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-28")
    void exitsThoughCancellingTheBodyThrows(ScopeShape shape) {
        RuntimeException failure = new IllegalStateException("cancel");
        shape.around(scopes, connection -> new Publisher<>() {
                    @Override
                    public void subscribe(org.reactivestreams.Subscriber<? super Integer> subscriber) {
                        subscriber.onSubscribe(new Subscription() {
                            @Override
                            public void request(long n) {
                                // it never emits
                            }

                            @Override
                            public void cancel() {
                                throw failure;
                            }
                        });
                    }
                })
                .subscribe(probe);
        probe.cancel();
        assertRolledBack(shape);
        assertThat(probe.drops().errors()).containsExactly(failure);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-31")
    void dropsWhatTheBodySaysAfterTheCancel(ScopeShape shape) {
        RuntimeException failure = new IllegalStateException("late");
        Raw raw = new Raw();
        shape.around(scopes, connection -> raw).subscribe(probe);
        probe.cancel();
        raw.subscriber.onNext(7);
        raw.subscriber.onError(failure);
        assertRolledBack(shape);
        assertThat(probe.values()).isEmpty();
        assertThat(probe.drops().values()).containsExactly(7);
        assertThat(probe.drops().errors()).containsExactly(failure);
    }

    /** The body has ended; its exit has not. */
    @Nested
    class Exiting {

        @ParameterizedTest
        @EnumSource(names = {"IN_TRANSACTION", "TRANSACTIONAL_MONO"})
        @Tag("lifecycle-26")
        void commitsOnceAndDiscardsTheValue(ScopeShape shape) {
            TestPublisher<Void> commit = TestPublisher.create();
            database.on("commit", commit::flux);
            shape.around(scopes, connection -> Mono.just(7)).subscribe(probe);
            probe.cancel();
            commit.assertNotCancelled();
            commit.complete();
            assertSettled(scopes, database);
            assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
            assertThat(probe.values()).isEmpty();
            assertThat(probe.isTerminated()).isFalse();
            assertThat(probe.drops().values()).containsExactly(7);
        }

        @ParameterizedTest
        @EnumSource
        @Tag("lifecycle-26")
        void releasesOnceThoughNobodyWaits(ScopeShape shape) {
            TestPublisher<Void> close = TestPublisher.create();
            database.on("close", close::flux);
            shape.around(scopes, connection -> Mono.just(7)).subscribe(probe);
            probe.cancel();
            close.assertNotCancelled();
            assertThat(scopes.live()).hasSize(1);
            close.complete();
            assertSettled(scopes, database);
            assertThat(probe.isTerminated()).isFalse();
            assertThat(probe.values()).hasSize(shape.single ? 0 : 1);
        }

        @ParameterizedTest
        @EnumSource(names = {"IN_TRANSACTION", "IN_TRANSACTION_MANY", "TRANSACTIONAL_MONO", "TRANSACTIONAL_FLUX"})
        @Tag("lifecycle-29")
        void destroysTheConnectionWhenTheRollbackFails(ScopeShape shape) {
            RuntimeException failure = new IllegalStateException("rollback");
            database.on("rollback", () -> Mono.error(failure));
            Failures failures = new Failures();
            cancelled(shape, failures, Duration.ofSeconds(60));
            assertSettled(scopes, database);
            assertThat(failures.errors).containsExactly(failure);
            assertThat(probe.isTerminated()).isFalse();
        }

        @ParameterizedTest
        @EnumSource(names = {"IN_TRANSACTION", "IN_TRANSACTION_MANY", "TRANSACTIONAL_MONO", "TRANSACTIONAL_FLUX"})
        @Tag("lifecycle-29")
        void destroysTheConnectionWhenTheRollbackHangs(ScopeShape shape) {
            database.on("rollback", Flux::never);
            Failures failures = new Failures();
            cancelled(shape, failures, Duration.ofMillis(5));
            assertSettled(scopes, database);
            assertThat(failures.errors).singleElement().isInstanceOf(ScopeReleaseException.class);
            assertThat(failures.errors.get(0)).hasMessageContaining("ROLLBACK was not answered");
            assertThat(failures.destroyed).isEqualTo(List.of(true));
        }

        @ParameterizedTest
        @EnumSource
        @Tag("lifecycle-29")
        void endsThoughTheConnectionCannotBeClosed(ScopeShape shape) {
            database.on("close", Flux::never);
            Failures failures = new Failures();
            cancelled(shape, failures, Duration.ofMillis(5));
            Settling.await("no scope is live", () -> scopes.live().isEmpty());
            assertThat(failures.errors).hasSize(1);
            assertThat(failures.errors.get(0)).hasMessageContaining("The connection was not taken back");
        }

        private void cancelled(ScopeShape shape, ScopeListener listener, Duration releaseTimeout) {
            ConnectionScopes bounded = scopes.with(
                    ScopeOptions.defaults().withReleaseTimeout(releaseTimeout).withListener(listener));
            shape.around(bounded, connection -> Flux.never()).subscribe(probe);
            probe.cancel();
        }

        @ParameterizedTest
        @EnumSource
        @Tag("lifecycle-30")
        void isAwaitedByDrain(ScopeShape shape) {
            TestPublisher<Void> close = TestPublisher.create();
            database.on("close", close::flux);
            shape.around(scopes, connection -> Flux.never()).subscribe(probe);
            probe.cancel();
            Probe<Void> drained = Probe.unbounded();
            scopes.drain(Duration.ofSeconds(60)).subscribe(drained);
            assertThat(drained.isTerminated()).isFalse();
            close.complete();
            assertThat(drained.isCompleted()).isTrue();
        }

        @Test
        @Tag("lifecycle-30")
        void drainListsThoseThatDoNotEndInTime() {
            ScopeShape.IN_TRANSACTION.around(scopes, connection -> Flux.never()).subscribe(probe);
            StepVerifier.create(scopes.drain(Duration.ofMillis(5)))
                    .expectErrorSatisfies(error -> assertThat(((ScopesDrainedException) error).remaining())
                            .hasSize(1))
                    .verify(Duration.ofSeconds(60));
            probe.cancel();
            assertSettled(scopes, database);
        }
    }

    /** Remembers the failures of releases. */
    private static final class Failures implements ScopeListener {

        private final List<Throwable> errors = new CopyOnWriteArrayList<>();
        private final List<Boolean> destroyed = new CopyOnWriteArrayList<>();

        @Override
        public void onEvent(ScopeEvent event) {
            if (event instanceof ScopeEvent.ReleaseFailed failed) {
                errors.add(failed.error());
            } else if (event instanceof ScopeEvent.Released released) {
                destroyed.add(released.destroyed());
            }
        }
    }

    /** A publisher that calls onSubscribe when it is told to. */
    private static final class Late implements Publisher<Integer> {

        private final AtomicInteger cancels = new AtomicInteger();
        private final AtomicInteger requests = new AtomicInteger();
        private org.reactivestreams.Subscriber<? super Integer> subscriber = Operators.emptySubscriber();

        @Override
        public void subscribe(org.reactivestreams.Subscriber<? super Integer> actual) {
            subscriber = actual;
        }

        void arrive() {
            subscriber.onSubscribe(new Subscription() {
                @Override
                public void request(long n) {
                    requests.incrementAndGet();
                }

                @Override
                public void cancel() {
                    cancels.incrementAndGet();
                }
            });
        }
    }

    /** A publisher that hears nothing. */
    private static final class Raw implements Publisher<Integer> {

        private org.reactivestreams.Subscriber<? super Integer> subscriber = Operators.emptySubscriber();

        @Override
        public void subscribe(org.reactivestreams.Subscriber<? super Integer> actual) {
            subscriber = actual;
            actual.onSubscribe(Operators.emptySubscription());
        }
    }
}
