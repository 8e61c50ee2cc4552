package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.lang.ref.WeakReference;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.subscriber.TestSubscriber;

/** What remains of scopes that have ended: nothing. */
class MillionScopesTest {

    /** These take some 10 s; {@code -Dscopes=1000000} is the full length. */
    private static final int COUNT = Integer.getInteger("scopes", 400_000);

    private static final Duration PATIENCE = Duration.ofSeconds(300);

    /** What as many leaked map entries would need at the very least is more than twice as much. */
    private static final long GROWTH = 8 << 20;

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of().forgetful());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final List<WeakReference<Connection>> samples = new ArrayList<>();
    private int number;

    @Test
    @Tag("lifecycle-60")
    void leaveNothingBehind() {
        Mono<Integer> one = scopes.withConnection(c -> {
            if (++number % 10_000 == 0) {
                samples.add(new WeakReference<>(c));
                samples.add(new WeakReference<>(FactorySupply.physical(c)));
            }
            return Mono.just(1);
        });
        one.repeat(COUNT / 10 - 1).blockLast(PATIENCE);
        long before = used();

        Long count = one.repeat(COUNT - COUNT / 10 - 1).count().block(PATIENCE);

        assertThat(count).isEqualTo(COUNT - COUNT / 10);
        assertThat(database.live()).isZero();
        assertThat(scopes.live()).isEmpty();
        assertThat(samples).hasSize(2 * COUNT / 10_000);
        awaitCleared(samples);
        assertThat(used() - before).isLessThan(GROWTH);
    }

    @Test
    @Tag("lifecycle-60")
    void letGoOfTheConnectionEvenWhileTheirSubscriptionIsHeld() {
        AtomicReference<WeakReference<Connection>> physical = new AtomicReference<>();
        Flux<Integer> flux = scopes.inTransactionMany(c -> {
            physical.set(new WeakReference<>(FactorySupply.physical(c)));
            return Rows.ints(c, "select 1");
        });
        TestSubscriber<Integer> holdingItsSubscription = TestSubscriber.create();

        flux.subscribe(holdingItsSubscription);
        holdingItsSubscription.block(PATIENCE);

        awaitCleared(List.of(physical.get()));
        assertThat(holdingItsSubscription.isTerminatedComplete()).isTrue();
    }

    private static void awaitCleared(List<WeakReference<Connection>> references) {
        Await.until(
                () -> {
                    System.gc();
                    return references.stream().allMatch(reference -> reference.get() == null);
                },
                () -> "references that are still held: "
                        + references.stream()
                                .filter(reference -> reference.get() != null)
                                .count());
    }

    private static long used() {
        System.gc();
        return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
    }
}
