package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Subscription;

/** What a source that comes late is asked for. */
class LateSubscriptionTest {

    private final LateSubscription late = new LateSubscription();
    private final List<Object> seen = new ArrayList<>();

    /** A source, and what its first rows make its subscriber do. */
    private Subscription source(Runnable whenAsked) {
        return new Subscription() {

            @Override
            public void request(long n) {
                seen.add(n);
                if (seen.size() == 1) {
                    whenAsked.run();
                }
            }

            @Override
            public void cancel() {
                seen.add("cancel");
            }
        };
    }

    @Test
    void earlyDemandIsAddedUp() {
        late.request(2);
        late.request(3);
        late.arrive(source(() -> {}));
        late.request(4);
        assertThat(seen).containsExactly(5L, 4L);
    }

    @Test
    void demandThatComesDuringTheHandOverComesAfterIt() {
        late.request(2);
        late.arrive(source(() -> late.request(3)));
        assertThat(seen).containsExactly(2L, 3L);
    }

    @Test
    void endlessDemandStaysEndlessAlsoWhenSomeWasHandedOverBefore() {
        late.request(2);
        late.arrive(source(() -> late.request(Long.MAX_VALUE)));
        assertThat(seen).containsExactly(2L, Long.MAX_VALUE);
    }

    @Test
    void aCancelDuringTheHandOverReachesTheSourceOnce() {
        late.request(2);
        late.arrive(source(late::cancel));
        late.cancel();
        assertThat(seen).containsExactly(2L, "cancel");
    }

    @Test
    void aSourceThatComesAfterTheCancelOrAfterAnotherIsCancelled() {
        late.arrive(source(() -> {}));
        late.arrive(source(() -> {}));
        assertThat(seen).containsExactly("cancel");
        late.cancel();
        late.arrive(source(() -> {}));
        assertThat(seen).containsExactly("cancel", "cancel", "cancel");
    }
}
