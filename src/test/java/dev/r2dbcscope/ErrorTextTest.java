package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.NullSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What logs and events show of an error, and what they keep to themselves. */
class ErrorTextTest {

    private static final String QUOTING = "Key (card)=(4242) already exists";

    private final R2dbcException duplicate = new R2dbcDataIntegrityViolationException(QUOTING, "23505");

    @Test
    void isTheTypeAndTheSqlStateOfWhatTheDatabaseSays() {
        assertThat(ErrorText.of(duplicate)).isEqualTo(duplicate.getClass().getName() + " [23505]");
        assertThat(ErrorText.of(new IllegalStateException(QUOTING))).isEqualTo("java.lang.IllegalStateException");
        assertThat(ErrorText.of(null)).isEqualTo("null");
    }

    @Test
    void isTheWholeTextOfAnErrorOfThisLibrary() {
        ScopeException own = new ScopeClosedException("The scope has ended", ScopeLabel.here("orders"));
        assertThat(ErrorText.of(own)).isEqualTo(own.toString()).contains("orders");
    }

    @Test
    void aLogGetsAnErrorThatQuotesNothing() {
        IllegalStateException harmless = new IllegalStateException("own", new IllegalArgumentException("cause"));
        harmless.addSuppressed(new ScopeClosedException("The scope has ended", ScopeLabel.here("orders")));
        assertThat(ErrorText.forLog(harmless)).isSameAs(harmless);
    }

    @ParameterizedTest
    @NullSource
    @ValueSource(strings = {"", "08006", "25P02", "40001", "53300", "55P03", "57014", "58030"})
    void aLogGetsAnErrorOfTheDatabaseThatIsAboutNoValues(String sqlState) {
        R2dbcException about = new R2dbcNonTransientResourceException("text", sqlState);
        assertThat(ErrorText.forLog(about)).isSameAs(about);
    }

    @Test
    void aLogGetsNoErrorThatMayQuoteValues() {
        assertThat(ErrorText.forLog(duplicate)).isNull();
        assertThat(ErrorText.forLog(new IllegalStateException(new RuntimeException(duplicate))))
                .as("as a cause")
                .isNull();
        IllegalStateException around = new IllegalStateException("own");
        around.addSuppressed(new RuntimeException(duplicate));
        assertThat(ErrorText.forLog(around)).as("suppressed").isNull();
    }

    @Test
    void aCycleOfCausesHasAnEnd() {
        IllegalStateException outer = new IllegalStateException("outer");
        IllegalStateException inner = new IllegalStateException("inner", outer);
        outer.initCause(inner);
        assertThat(ErrorText.forLog(outer)).isSameAs(outer);
    }
}
