package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.test.StepVerifier;
import reactor.util.context.Context;

/** Memory of the driver that is held for a value, and let go of once. */
class HeldTest {

    private final AtomicInteger released = new AtomicInteger();
    private final Held<String> held = new Held<>("row", released::incrementAndGet);
    private final Drops drops = new Drops();

    @Test
    void isReleasedOnce() {
        held.release();
        held.release();
        assertThat(released).hasValue(1);
    }

    @Test
    void isReleasedWhenItIsThrownAway() {
        Held.discard(held, drops.watch(Context.empty()));
        assertThat(released).hasValue(1);
        assertThat(drops.values()).as("is none of the user's values").isEmpty();
    }

    @Test
    void aValueThatHoldsNothingIsDiscardedAsReactorDoesIt() {
        Held.discard("row", drops.watch(Context.empty()));
        assertThat(drops.values()).containsExactly("row");
    }

    @Test
    void isReleasedByAnOperatorThatThrowsItAway() {
        StepVerifier.create(Held.releaseDiscarded(Flux.just(held).filter(any -> false)))
                .verifyComplete();
        assertThat(released).hasValue(1);
    }
}
