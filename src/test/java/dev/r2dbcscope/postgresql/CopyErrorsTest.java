package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.R2dbcBadGrammarException;
import io.r2dbc.spi.R2dbcException;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The server's context says which row it was, in many languages and with values in it. */
class CopyErrorsTest {

    private static final String TABLE = "t.7";

    private final CopyErrors errors =
            new CopyErrors("s." + TABLE, TABLE, List.of("id", "id_2", "column", "odd: name", "9"));

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            nullValues = "null",
            value = {
                "COPY t.7, line 3                                | 3  | null",
                "COPY t.7, line 3: \"5\t6, line 99, column id\"  | 3  | null",
                "COPY t.7, line 3, column id: \"abc\"            | 3  | id",
                "COPY t.7, line 3, column id_2: null input       | 3  | id_2",
                "COPY t.7, line 3, column id                     | 3  | id",
                "COPY t.7, line 3, column column: \"id\"         | 3  | column",
                "COPY t.7, line 3, column odd: name: \"id\"      | 3  | odd: name",
                "COPY t.7, line 3, column 9: \"8\"               | 3  | 9",
                "COPY t.7, line 3, column other: \"id: 4\"       | 3  | null",
                "COPY t.7, Zeile 3, Spalte id: \u00bbabc\u00ab   | 3  | id",
                "t.7\u306eCOPY\u3001\u884c\u756a\u53f7 3\u3001\u5217 id: \"abc\" | 3 | id",
                "COPY t.7, line 12345678901234567890             | 0  | null",
                "COPY other, line 3                              | 0  | null",
                "PL/pgSQL function t.7() line 1 at RAISE         | 0  | null"
            })
    void findsTheRowAndTheColumn(String context, long row, String column) {
        assertThat(errors.place(context)).isEqualTo(new CopyErrors.Place(row, column));
    }

    @Test
    void theEntryOfCopyComesAfterThoseOfTriggers() {
        assertThat(errors.place(
                        "PL/pgSQL function COPY_t.7() line 1 at RAISE\nCOPY t.7, line 42: \"x\nCOPY t.7, line 5\""))
                .isEqualTo(new CopyErrors.Place(42, null));
    }

    @Test
    void nothingIsMadeUp() {
        assertThat(errors.place("")).isEqualTo(new CopyErrors.Place(0, null));
    }

    @Test
    void errorsOfOthersPassUntouched() {
        R2dbcException other = new R2dbcBadGrammarException("other", "42601");
        assertThat(errors.told(other)).isSameAs(other);
    }
}
