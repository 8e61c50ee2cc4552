package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.blockhound.BlockingOperationError;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;
import reactor.test.StepVerifier;

/** No blocking call on a thread that must not block: BlockHound watches the whole test run. */
class BlockingTest {

    private final ProbeConnectionFactory database = ProbeConnectionFactory.of();
    private final ConnectionScopes scopes = ConnectionScopes.of(database);

    @Test
    @Tag("lifecycle-38")
    void blockHoundIsOnGuard() {
        Mono<Boolean> blocking = Mono.fromCallable(() -> new CountDownLatch(1).await(1, TimeUnit.MILLISECONDS));
        StepVerifier.create(blocking.subscribeOn(Schedulers.parallel()))
                .expectErrorSatisfies(error -> assertThat(error).isInstanceOf(BlockingOperationError.class))
                .verify(Duration.ofSeconds(60));
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-38")
    void completesOnNonBlockingThreads(ScopeShape shape) {
        Flux<Integer> scope = shape.around(
                scopes,
                connection -> Flux.range(1, 100)
                        .flatMap(n -> Rows.ints(connection, "select 1").publishOn(Schedulers.parallel()), 16)
                        .count()
                        .map(Long::intValue));
        StepVerifier.create(scope.subscribeOn(Schedulers.parallel()))
                .expectNext(100)
                .expectComplete()
                .verify(Duration.ofSeconds(60));
        Settling.assertSettled(scopes, database);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-38")
    void failsOnNonBlockingThreads(ScopeShape shape) {
        Flux<Integer> scope = shape.around(
                scopes,
                connection -> Rows.ints(connection, "select 1")
                        .publishOn(Schedulers.parallel())
                        .map(n -> 1 / (n - 1)));
        StepVerifier.create(scope.subscribeOn(Schedulers.single()))
                .expectError(ArithmeticException.class)
                .verify(Duration.ofSeconds(60));
        Settling.assertSettled(scopes, database);
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-38")
    void isCancelledOnNonBlockingThreads(ScopeShape shape) {
        database.on(
                "create",
                () -> Mono.<Connection>fromSupplier(database::newConnection).delayElement(Duration.ofMillis(1)));
        database.on(
                "select 1",
                () -> Flux.interval(Duration.ofMillis(1)).map(Long::intValue).take(20));
        Flux<Integer> scope = shape.around(
                scopes, connection -> Rows.ints(connection, "select 1").thenMany(Flux.never()));
        StepVerifier.create(scope.timeout(Duration.ofMillis(5)).subscribeOn(Schedulers.parallel()))
                .expectError(java.util.concurrent.TimeoutException.class)
                .verify(Duration.ofSeconds(60));
        Settling.assertSettled(scopes, database);
    }
}
