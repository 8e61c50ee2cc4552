package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.scheduler.Schedulers;
import reactor.test.subscriber.TestSubscriber;

/** An operator behind the scope that fails so badly that Reactor throws; a Mono's value comes after the exit anyway. */
class FatalSubscriberTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));

    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION_MANY", "CONNECTED_FLUX", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-35")
    void getsItsErrorAndEndsTheScope(ScopeShape shape) {
        StackOverflowError fatal = new StackOverflowError("of the subscriber");
        TestSubscriber<Integer> subscriber = TestSubscriber.create();

        shape.around(scopes, c -> Flux.range(1, 3).publishOn(Schedulers.parallel()))
                .<Integer>map(i -> {
                    throw fatal;
                })
                .subscribe(subscriber);
        subscriber.block(FormContract.PATIENCE);

        assertThat(subscriber.expectTerminalError()).isSameAs(fatal);
        Settling.assertSettled(scopes, database);
        assertThat(database.log()).containsExactly(shape.rolledBack());
    }
}
