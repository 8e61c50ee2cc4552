package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** What is kept for scopes until something comes that may be long in coming: how much of it there may be. */
class KeptForScopesTest {

    private final ProbeConnectionFactory database =
            ProbeConnectionFactory.of().onScheduler(() -> Schedulers.immediate());
    private final ConnectionScopes scopes = ConnectionScopes.of(database);

    private static Mono<Integer> register(int hooks, AtomicInteger run) {
        return CurrentScope.get().map(scope -> {
            for (int i = 0; i < hooks; i++) {
                scope.afterCommit(Mono.fromRunnable(run::incrementAndGet));
            }
            return hooks;
        });
    }

    @Test
    void aScopeKeepsOnlySoManyHooks() {
        AtomicInteger run = new AtomicInteger();
        Probe<Integer> probe = Probe.unbounded();
        scopes.inTransaction(c -> register(ScopeHooks.MOST, run)
                        .flatMap(
                                all -> register(1, run).onErrorResume(HookOverflowException.class, e -> Mono.just(-1))))
                .subscribe(probe);

        assertThat(probe.awaitEnd().values()).containsExactly(-1);
        Await.until(() -> run.get() == ScopeHooks.MOST, () -> run + " hooks have run");
        Settling.assertSettled(scopes, database);
    }

    @Test
    void theHooksOfSavepointsCountForTheTransactionAroundThem() {
        AtomicInteger run = new AtomicInteger();
        Probe<Integer> probe = Probe.unbounded();
        ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
        scopes.inTransaction(c -> nested.inTransaction(inner -> register(ScopeHooks.MOST, run))
                        .then(register(1, run).onErrorResume(HookOverflowException.class, e -> Mono.just(-1))))
                .subscribe(probe);

        assertThat(probe.awaitEnd().values()).containsExactly(-1);
        Await.until(() -> run.get() == ScopeHooks.MOST, () -> run + " hooks have run");
        Settling.assertSettled(scopes, database);
    }

    /** Each of them is in the pool's queue, too, in front of everybody who comes. */
    @Test
    void onlySoManyScopesThatWereLeftWaitForTheirConnection() {
        Sinks.Empty<Void> comes = Sinks.empty();
        database.on("create", () -> comes.asMono().then(Mono.fromSupplier(database::newConnection)));
        Mono<Integer> scope = scopes.withConnection(c -> Mono.just(1));
        for (int i = 0; i < LiveScopes.MOST_ABANDONED; i++) {
            scope.subscribe().dispose();
        }
        Probe<Integer> tooMany = Probe.unbounded();
        scope.subscribe(tooMany);
        assertThat(tooMany.error())
                .isInstanceOf(ScopeAcquisitionException.class)
                .hasMessageContainingAll("10000 scopes whose subscribers have left", "maxAcquireTime");

        comes.tryEmitEmpty();
        Settling.assertSettled(scopes, database);
        Probe<Integer> served = Probe.unbounded();
        scope.subscribe(served);
        assertThat(served.awaitEnd().values()).containsExactly(1);
        Settling.assertSettled(scopes, database);
    }
}
