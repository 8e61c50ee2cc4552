package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

/** What speaks against a COMMIT, and until when. */
class RollbackOnlyTest {

    private final RollbackOnly mark = new RollbackOnly();
    private final ScopeRolledBackException doom = doom();

    private static ScopeRolledBackException doom() {
        return new ScopeRolledBackException("doomed", ScopeLabel.here("inner"), null);
    }

    @Test
    void whatComesBeforeTheCommitIsSettledKeepsItFromBeing() {
        assertThat(mark.doom(doom)).isTrue();
        assertThat(mark.doom(doom())).as("doomed already").isTrue();
        assertThat(mark.error()).isSameAs(doom);
        assertThat(mark.settle()).isFalse();
        assertThat(mark.isMarked()).isTrue();
    }

    @Test
    void whatComesAfterItIsRefused() {
        assertThat(mark.settle()).isTrue();
        assertThat(mark.doom(doom)).isFalse();
        assertThat(mark.request()).isFalse();
        assertThat(mark.isMarked()).isFalse();
        assertThat(mark.error()).isNull();
    }

    @Test
    void aRollbackThatWasAskedForIsNoErrorWhateverElseFails() {
        assertThat(mark.doom(doom)).isTrue();
        assertThat(mark.request()).isTrue();
        assertThat(mark.doom(doom())).isTrue();
        assertThat(mark.isRequested()).isTrue();
        assertThat(mark.error()).isNull();
        assertThat(mark.settle()).isFalse();
    }
}
