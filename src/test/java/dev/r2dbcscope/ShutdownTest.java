package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** Whom a shutdown refuses, and for whom it waits. */
class ShutdownTest {

    private static final Duration HOUR = Duration.ofHours(1);

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new ArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final Probe<Integer> probe = Probe.unbounded();
    private final Probe<Void> drained = Probe.unbounded();
    private final Step<Connection> create = new Step<>();

    private Mono<Integer> ambient() {
        return Mono.<Connection>from(scopes.connectionFactory().create())
                .flatMap(c -> Rows.ints(c, "select").next());
    }

    @Test
    void refusesAScopeThatBeganBeforeAndHasNoConnectionYet() {
        Sinks.Empty<Void> go = Sinks.empty();
        go.asMono().then(ambient()).as(scopes::connected).subscribe(probe);
        scopes.drain(HOUR).subscribe(drained);
        assertThat(drained.isCompleted()).as("nothing is held").isTrue();
        go.tryEmitEmpty().orThrow();
        assertThat(probe.error()).isInstanceOf(ScopesDrainedException.class).hasNoSuppressedExceptions();
        assertThat(database.log()).isEmpty();
        assertThat(scopes.live()).isEmpty();
        assertThat(events).hasExactlyElementsOfTypes(ScopeEvent.OpenFailed.class);
    }

    @Test
    void letsALiveScopeOpenAnotherInside() {
        Sinks.Empty<Void> go = Sinks.empty();
        scopes.inTransaction(c -> go.asMono()
                        .then(Mono.defer(() -> scopes.transactions(Propagation.REQUIRES_NEW)
                                .inTransaction(d -> Rows.ints(d, "inside").next()))))
                .subscribe(probe);
        scopes.drain(HOUR).subscribe(drained);
        assertThat(drained.isTerminated()).isFalse();
        go.tryEmitEmpty().orThrow();
        assertThat(probe.awaitEnd().values()).containsExactly(1);
        assertThat(drained.awaitEnd().isCompleted()).isTrue();
        assertThat(database.log()).contains("inside#2");
    }

    @Test
    void doesNotWaitForAConnectionThatWillNeverCome() {
        database.on("create", create);
        scopes.withConnection(c -> Mono.just(1)).subscribe(probe);
        probe.cancel();
        scopes.drain(HOUR).subscribe(drained);
        assertThat(drained.isTerminated()).isFalse();
        create.fail(new IllegalStateException("no"));
        assertThat(drained.isCompleted()).isTrue();
    }

    @Test
    void waitsForTheHooksOfAScopeThatWasLeftBeforeItsConnectionCame() {
        Step<Void> hook = new Step<>();
        database.on("create", create);
        CurrentScope.get()
                .doOnNext(scope -> scope.afterRollback(hook.publisher()))
                .then(ambient())
                .as(scopes::transactional)
                .subscribe(probe);
        probe.cancel();
        assertThat(hook.isReached()).isTrue();
        scopes.drain(HOUR).subscribe(drained);
        create.fail(new IllegalStateException("no"));
        assertThat(drained.isTerminated()).isFalse();
        hook.complete();
        assertThat(drained.isCompleted()).isTrue();
    }

    @Test
    void tellsTheListenersOfATransactionThatCouldNotBeginAfterItWasLeft() {
        Step<Integer> begin = new Step<>();
        database.on("begin", begin);
        IllegalStateException failure = new IllegalStateException("of BEGIN");
        scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
        probe.cancel();
        begin.fail(failure);
        assertThat(events)
                .filteredOn(ScopeEvent.OpenFailed.class::isInstance)
                .singleElement()
                .satisfies(event ->
                        assertThat(((ScopeEvent.OpenFailed) event).error()).isSameAs(failure));
        assertThat(database.log()).endsWith("close#1");
    }

    @Test
    void anErrorThatTheFactoryKeepsIsNotedOnce() {
        IllegalStateException always = new IllegalStateException("always the same");
        database.on("create", () -> Mono.error(always));
        Mono<Integer> scope = scopes.withConnection(c -> Mono.just(1));
        for (int i = 0; i < 3; i++) {
            scope.onErrorComplete().block(FormContract.PATIENCE);
        }
        assertThat(always.getSuppressed()).hasSize(1);
        scopes.with(ScopeOptions.defaults().withName("another"))
                .withConnection(c -> Mono.just(1))
                .onErrorComplete()
                .block(FormContract.PATIENCE);
        assertThat(always.getSuppressed()).hasSize(2);
    }
}
