package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Which statements are read through a cursor. */
class CursorQueriesTest {

    @ParameterizedTest
    @ValueSource(
            strings = {
                "select 1",
                "  SELECT * FROM t WHERE a = $1 AND b = $2 ;  ",
                "select 1; -- the end",
                "-- a comment\nselect 1",
                "/* a /* nested */ comment; insert */ select 1",
                "values (1), (2)",
                "table t",
                "with x as (select 1) select * from x",
                "with recursive x(n) as (select 1 union all select n + 1 from x where n < 5) select n from x",
                "(select 1) union (select 2)",
                "((select 1))",
                "select 'a; delete from t' as \"b;c\", e'it\\'s; x', $$ ; insert into t $$, $tag$ $$ ; $tag$",
                "select ';' || ''';' || e'\\\\' ",
                "select * from t for update",
                "select * from t for no key update skip locked",
                "select \"into\" from t",
                "select deleted, inserted from updates",
                "select a$1 from t",
                "select $1::text, $2",
                "select U&'d\\0061t\\+000061; x'",
                "with x as (select 1) select * from t for update",
                "with x as (select 1) select * from t for no key update",
                "with x as (select t.update from t) select x.update from x",
                "with recursive x(a) as (select 1) search depth first by a set o select * from x order by o",
                "select 1 where 'x' like 'a%' -- ; drop"
            })
    void queries(String sql) {
        assertThat(CursorQueries.canRead(sql, false)).isTrue();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                " ",
                "-- select 1",
                "/* select 1 */",
                "insert into t values (1) returning a",
                "update t set a = 1 returning a",
                "delete from t returning a",
                "merge into t using s on true when matched then delete",
                "with x as (insert into t values (1) returning a) select * from x",
                "with x as materialized (update t set a = 1 returning a) select * from x",
                "with x as (select 1) insert into t select * from x returning a",
                "with x as (select 1) update t set a = 1 returning a",
                "with recursive x(a) as (select 1) search depth first by a set o update t set b = 1 returning b",
                "with recursive x(a) as (select 1) cycle a set c using p delete from t returning a",
                "select 1; select 2",
                "select 1; delete from t",
                "select 1 into t",
                "SELECT 1 INTO TEMPORARY t",
                "explain select 1",
                "show all",
                "fetch 1 from c",
                "execute p",
                "call p()",
                "copy t to stdout",
                "begin",
                ";select 1",
                "selects 1"
            })
    void noQueries(String sql) {
        assertThat(CursorQueries.canRead(sql, false)).isFalse();
        assertThat(CursorQueries.canRead(sql, true)).isFalse();
    }

    @Test
    void aHoldableCursorLocksNoRows() {
        assertThat(CursorQueries.canRead("select * from t for update", true)).isFalse();
        assertThat(CursorQueries.canRead("select * from t FOR SHARE", true)).isFalse();
        assertThat(CursorQueries.canRead("select * from t for no key update", true))
                .isFalse();
        assertThat(CursorQueries.canRead("select * from t for key share", true)).isFalse();
        assertThat(CursorQueries.canRead("select substring('a' from 1 for 2)", true))
                .isTrue();
    }

    @Test
    void theSemicolonAtTheEndIsLeftOut() {
        assertThat(CursorQueries.withoutSemicolon("select ';' ; -- end")).isEqualTo("select ';' ");
        assertThat(CursorQueries.withoutSemicolon("select 1 -- end;")).isEqualTo("select 1 -- end;");
        assertThat(CursorQueries.withoutSemicolon("select 1")).isEqualTo("select 1");
    }
}
