package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Consumer;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Subscription;
import reactor.core.publisher.BaseSubscriber;
import reactor.util.context.Context;

/** A subscriber that leaves is an everyday event: the scope drops no error of its own because of it. */
class QuietCancelTest {

    private final ProbeConnectionFactory database = ProbeConnectionFactory.of();
    private final ConnectionScopes scopes = ConnectionScopes.of(database);
    private final List<Throwable> dropped = new CopyOnWriteArrayList<>();
    private final Context context = Context.of("reactor.onErrorDropped.local", (Consumer<Throwable>) dropped::add);

    @Test
    @Tag("lifecycle-15")
    void cancelInsideOnSubscribeDropsNoError() {
        BaseSubscriber<Integer> subscriber = new BaseSubscriber<>() {
            @Override
            protected void hookOnSubscribe(Subscription subscription) {
                subscription.cancel();
            }
        };
        scopes.inTransaction(connection -> Rows.ints(connection, "select 1"))
                .contextWrite(context)
                .subscribe(subscriber);

        assertThat(dropped).isEmpty();
        assertThat(database.log()).isEmpty();
    }

    @Test
    @Tag("lifecycle-31")
    void bodyThatIsCancelledWhileItStartsDropsNoRefusal() {
        BaseSubscriber<Integer> subscriber = new BaseSubscriber<>() {};
        scopes.withConnection(connection -> {
                    subscriber.cancel();
                    return Rows.ints(connection, "select 1");
                })
                .contextWrite(context)
                .subscribe(subscriber);
        scopes.drain(Duration.ofSeconds(60)).block();

        assertThat(dropped).isEmpty();
        assertThat(database.log()).containsExactly("create", "close#1");
    }

    @Test
    @Tag("lifecycle-31")
    void bodyThatFailsAfterItWasCancelledDropsItsError() {
        IllegalStateException late = new IllegalStateException("late");
        BaseSubscriber<Integer> subscriber = new BaseSubscriber<>() {};
        scopes.<Integer>withConnection(connection -> {
                    subscriber.cancel();
                    throw late;
                })
                .contextWrite(context)
                .subscribe(subscriber);
        scopes.drain(Duration.ofSeconds(60)).block();

        assertThat(dropped).containsExactly(late);
    }
}
