package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** Who passes the ending on when it meets a delivery. */
class TurnsTest {

    private final Turns turns = new Turns();

    @Test
    void theEndingGoesFirstWhenNothingIsBeingDelivered() {
        assertThat(turns.begin()).isTrue();
        assertThat(turns.end()).isFalse();

        assertThat(turns.close()).isTrue();
        assertThat(turns.begin()).isFalse();
    }

    @Test
    void theOutermostDeliveryPassesTheEndingOn() {
        turns.begin();
        turns.begin();

        assertThat(turns.close()).isFalse();
        assertThat(turns.begin()).as("after the end").isFalse();
        assertThat(turns.end()).as("the inner one").isFalse();
        assertThat(turns.end()).as("the outer one").isTrue();
    }
}
