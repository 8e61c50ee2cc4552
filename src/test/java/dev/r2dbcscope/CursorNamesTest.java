package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** Few names are used, and whether a cursor may outlive its transaction is known. */
class CursorNamesTest {

    private final CursorNames names = new CursorNames();

    @Test
    void areNumberedAndUsedAgain() {
        assertThat(names.take()).isEqualTo("r2dbc_scope_1");
        assertThat(names.take()).isEqualTo("r2dbc_scope_2");
        assertThat(names.take()).isEqualTo("r2dbc_scope_3");

        names.free("r2dbc_scope_2");

        assertThat(names.take()).isEqualTo("r2dbc_scope_2");
        assertThat(names.take()).isEqualTo("r2dbc_scope_4");
    }

    @Test
    void areClosedAtTheEndByOneWhoIsToldOnce() {
        assertThat(names.mayHold()).isFalse();
        assertThat(names.opensHoldable()).isTrue();
        assertThat(names.opensHoldable()).isFalse();
        assertThat(names.mayHold()).isTrue();

        names.closedHoldable();
        assertThat(names.mayHold()).isTrue();
        names.closedHoldable();

        assertThat(names.mayHold()).isFalse();
        assertThat(names.opensHoldable()).as("is told already").isFalse();
    }
}
