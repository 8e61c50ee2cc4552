package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Names of savepoints become SQL text: nothing but a name gets through. */
class SavepointNamesTest {

    @ParameterizedTest
    @ValueSource(strings = {"a", "step_1", "été", "a$b", "\"two words\"", "\"say \"\"hi\"\"\"", "`two words`"})
    void aNameIsOne(String name) {
        assertThatCode(() -> SavepointNames.require(name)).doesNotThrowAnyException();
    }

    @ParameterizedTest
    @ValueSource(strings = {"", " ", "two words", "$a", "a;drop table t", "\"a\";drop table t--\"", "\"a", "a-b", "``"})
    void anythingElseIsRefused(String text) {
        assertThatThrownBy(() -> SavepointNames.require(text))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("\"" + text + "\"");
    }
}
