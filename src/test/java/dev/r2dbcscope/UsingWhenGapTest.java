package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowable;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.publisher.TestPublisher;

/**
 * Where Reactor's usingWhen, given an asynchronous resource, is not exact, and the scope on the same program is. When one
 * of these fails because Reactor repaired its half, the guard in ScopeSubscriber and BodySubscriber may lose that part.
 */
class UsingWhenGapTest {

    private static final String REPAIRED = "Reactor repaired usingWhen: this part of the guard may go";

    /** A transaction by hand. */
    private static <T> Flux<T> bareMany(
            Publisher<? extends Connection> connections,
            Function<? super Connection, ? extends Publisher<? extends T>> body) {
        return Flux.usingWhen(
                connections,
                body,
                c -> Mono.from(c.commitTransaction()).then(Mono.from(c.close())),
                (c, e) -> Mono.from(c.rollbackTransaction()).then(Mono.from(c.close())),
                c -> Mono.from(c.rollbackTransaction()).then(Mono.defer(() -> Mono.from(c.close()))));
    }

    private static <T> Mono<T> bare(
            Publisher<? extends Connection> connections,
            Function<? super Connection, ? extends Mono<? extends T>> body) {
        return Mono.usingWhen(
                connections,
                body,
                c -> Mono.from(c.commitTransaction()).then(Mono.defer(() -> Mono.from(c.close()))),
                (c, e) -> Mono.from(c.rollbackTransaction()).then(Mono.defer(() -> Mono.from(c.close()))),
                c -> Mono.from(c.rollbackTransaction()).then(Mono.defer(() -> Mono.from(c.close()))));
    }

    @Test
    @Tag("lifecycle-23")
    void missesACancelWhileASynchronousBodyEmits() {
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of();
        AtomicInteger emitted = new AtomicInteger();
        bareMany(Mono.from(byHand.create()).hide(), c -> counting(emitted))
                .next()
                .block(Duration.ofSeconds(60));
        assertThat(emitted).as(REPAIRED).hasValue(1_000_000);
        assertThat(byHand.log()).as(REPAIRED).contains("commit#1").doesNotContain("rollback#1");

        ProbeConnectionFactory scoped = ProbeConnectionFactory.of();
        scoped.on("create", () -> Mono.fromSupplier(scoped::newConnection).hide());
        AtomicInteger emittedInScope = new AtomicInteger();
        ConnectionScopes.of(scoped)
                .inTransactionMany(c -> counting(emittedInScope))
                .next()
                .block(Duration.ofSeconds(60));
        assertThat(emittedInScope).hasValue(1);
        assertThat(scoped.log()).containsExactly("create", "begin#1", "rollback#1", "close#1");
    }

    private static Flux<Integer> counting(AtomicInteger emitted) {
        return Flux.range(1, 1_000_000).doOnNext(n -> emitted.incrementAndGet());
    }

    @Test
    @Tag("lifecycle-17")
    void losesAConnectionThatComesAfterTheCancel() {
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of();
        CompletableFuture<Connection> late = new CompletableFuture<>();
        cancelled(bareMany(Mono.fromFuture(late, true), c -> Flux.never()));
        late.complete(byHand.newConnection());
        assertThat(byHand.live()).as(REPAIRED).isEqualTo(1);

        ProbeConnectionFactory scoped = ProbeConnectionFactory.of();
        CompletableFuture<Connection> lateInScope = new CompletableFuture<>();
        scoped.on("create", () -> Mono.fromFuture(lateInScope, true));
        ConnectionScopes scopes = ConnectionScopes.of(scoped);
        cancelled(scopes.inTransactionMany(c -> Flux.never()));
        lateInScope.complete(scoped.newConnection());
        Settling.assertSettled(scopes, scoped);
    }

    @Test
    @Tag("lifecycle-28")
    void skipsTheCleanUpWhenCancellingTheBodyThrows() {
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of();
        Throwable thrown = catchThrowable(() -> cancelled(bareMany(byHand.create(), c -> new ThrowsOnCancel())));
        assertThat(thrown).as(REPAIRED).isInstanceOf(IllegalStateException.class);
        assertThat(byHand.live()).as(REPAIRED).isEqualTo(1);

        ProbeConnectionFactory scoped = ProbeConnectionFactory.of();
        ConnectionScopes scopes = ConnectionScopes.of(scoped);
        Probe<Integer> probe = cancelled(scopes.inTransactionMany(c -> new ThrowsOnCancel()));
        Settling.assertSettled(scopes, scoped);
        assertThat(probe.drops().errors()).hasSize(1);
    }

    @Test
    @Tag("lifecycle-2")
    void wrapsTheErrorOfCommit() {
        RuntimeException failure = new IllegalStateException("commit");
        Supplier<Publisher<?>> fails = () -> Mono.error(failure);
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of().on("commit", fails);
        Throwable bare = catchThrowable(
                () -> bareMany(byHand.create(), c -> Flux.just(1)).blockLast(Duration.ofSeconds(60)));
        assertThat(bare).as(REPAIRED).isNotSameAs(failure).hasCause(failure);
        assertThat(bare).hasMessageContaining("Async resource cleanup failed");

        ProbeConnectionFactory scoped = ProbeConnectionFactory.of().on("commit", fails);
        Probe<Integer> probe = Probe.unbounded();
        ConnectionScopes.of(scoped).inTransactionMany(c -> Flux.just(1)).subscribe(probe);
        assertThat(probe.error()).isSameAs(failure);
        assertThat(scoped.live()).isZero();
    }

    @Test
    @Tag("lifecycle-42")
    void cancelsASupplierThatIsNoMonoAfterItsFirstElement() {
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of();
        TestPublisher<Connection> supplier = TestPublisher.create();
        bareMany(supplier.flux(), c -> Flux.just(1)).subscribe(Probe.unbounded());
        supplier.next(byHand.newConnection());
        assertThat(supplier.wasCancelled()).as(REPAIRED).isTrue();

        ProbeConnectionFactory scoped = ProbeConnectionFactory.of();
        TestPublisher<Connection> supplierOfScope = TestPublisher.create();
        scoped.on("create", supplierOfScope::flux);
        ConnectionScopes scopes = ConnectionScopes.of(scoped);
        Probe<Integer> probe = Probe.unbounded();
        scopes.inTransactionMany(c -> Flux.just(1)).subscribe(probe);
        supplierOfScope.next(scoped.newConnection());
        assertThat(probe.awaitEnd().values()).containsExactly(1);
        supplierOfScope.assertNotCancelled();
        Settling.assertSettled(scopes, scoped);
    }

    @Test
    @Tag("lifecycle-26")
    void deliversAMonosValueAfterACancelDuringTheCleanUp() {
        TestPublisher<Void> commit = TestPublisher.create();
        ProbeConnectionFactory byHand = ProbeConnectionFactory.of().on("commit", commit::flux);
        Probe<Integer> bare = cancelled(bare(byHand.create(), c -> Mono.just(7)));
        commit.complete();
        assertThat(bare.values()).as(REPAIRED).containsExactly(7);

        TestPublisher<Void> commitOfScope = TestPublisher.create();
        ProbeConnectionFactory scoped = ProbeConnectionFactory.of().on("commit", commitOfScope::flux);
        Probe<Integer> probe = cancelled(ConnectionScopes.of(scoped).inTransaction(c -> Mono.just(7)));
        commitOfScope.complete();
        assertThat(probe.values()).isEmpty();
        assertThat(probe.drops().values()).containsExactly(7);
        assertThat(scoped.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
    }

    private static <T> Probe<T> cancelled(Publisher<T> publisher) {
        Probe<T> probe = Probe.unbounded();
        Flux.from(publisher).subscribe(probe);
        probe.cancel();
        return probe;
    }

    private static final class ThrowsOnCancel extends Flux<Integer> {
        @Override
        public void subscribe(reactor.core.CoreSubscriber<? super Integer> actual) {
            actual.onSubscribe(new Subscription() {
                @Override
                public void request(long n) {
                    // it never emits
                }

                @Override
                public void cancel() {
                    throw new IllegalStateException("cancel");
                }
            });
        }
    }
}
