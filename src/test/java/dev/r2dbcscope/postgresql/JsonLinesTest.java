package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatNullPointerException;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class JsonLinesTest {

    @ParameterizedTest
    @ValueSource(
            strings = {
                "insert into t values (1) returning id",
                "with gone as (delete from t returning id) select id from gone",
                "select 1; select 2",
                "select 1 into t",
                "update t set id = 1",
                "call p()",
                "begin",
                "-- nothing",
                ""
            })
    void whatIsNotOneQueryIsRefused(String sql) {
        assertThatIllegalArgumentException()
                .isThrownBy(() -> JsonLines.ofQuery(sql))
                .withMessageContaining(sql);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "select id from t order by id",
                "select id from t limit 10",
                "select id from t OFFSET 10",
                "select id from t fetch first 10 rows only",
                "select id from (select id from t) t union select 1 id order by 1 -- end"
            })
    void aKeyAndAnOrderOfItsOwnAreRefused(String sql) {
        assertThatIllegalArgumentException()
                .isThrownBy(() -> JsonLines.ofQuery(sql).byKey("id"))
                .withMessageContaining("leave ORDER BY");
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "select id from (select id from t order by id limit 10) t",
                "select id, (select max(x) from u limit 1) from t",
                "select id, row_number() over (order by id) from t",
                "select id, t.limit, 1 as offset from t",
                "select id, \"order\", 'limit' from t -- order by"
            })
    void anOrderOfAPartIsNotOneOfTheQuery(String sql) {
        assertThatCode(() -> JsonLines.ofQuery(sql).byKey("id")).doesNotThrowAnyException();
    }

    @Test
    void wrongArgumentsAreRefused() {
        JsonLines lines = JsonLines.ofQuery("select 1");

        assertThatNullPointerException().isThrownBy(() -> JsonLines.ofQuery(null));
        assertThatNullPointerException().isThrownBy(() -> JsonLines.ofQuery("select $1", (Object) null));
        assertThatIllegalArgumentException().isThrownBy(() -> lines.withRows(0)).withMessageContaining("0");
        assertThatIllegalArgumentException().isThrownBy(() -> lines.byKey(""));
    }

    @Test
    void textShowsTheQueryAndNotItsValues() {
        assertThat(JsonLines.ofQuery("select $1::text as id;", "secret")
                        .byKey("id")
                        .withRows(7))
                .hasToString("JsonLines[select $1::text as id by \"id\", 7 rows a piece]");
    }
}
