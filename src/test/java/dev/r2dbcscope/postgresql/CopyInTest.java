package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.ConnectionFactories;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;

/** A writer is configured by copies, and says at once what cannot work. */
class CopyInTest {

    private final CopyIn<Integer> rows = CopyIn.<Integer>into("shop", "orders")
            .column("id", CopyType.INTEGER, i -> i)
            .column("note", CopyType.TEXT, i -> "n");

    @Test
    void everyMethodReturnsACopyWithTheRestAsItWas() {
        CopyIn<Integer> text = rows.withFormat(CopyFormat.TEXT);
        CopyIn<Integer> other = text.withTable("staging").withPrefetch(7);
        assertThat(rows)
                .hasToString(
                        "CopyIn[COPY \"shop\".\"orders\" (\"id\", \"note\") FROM STDIN (FORMAT binary, ENCODING 'UTF8')]");
        assertThat(other)
                .hasToString("CopyIn[COPY \"staging\" (\"id\", \"note\") FROM STDIN (FORMAT text, ENCODING 'UTF8')]");
        assertThat(rows.withTable("a\"b", "c").table()).isEqualTo("\"a\"\"b\".\"c\"");
        assertThat(rows.column("paid", CopyType.BOOLEAN, i -> true).columns()).containsExactly("id", "note", "paid");
        assertThat(rows.columns((i, row) -> row.writeInt(i), "n").columns()).containsExactly("n");
        assertThat(rows.columns()).containsExactly("id", "note");
    }

    @Test
    void whatCannotWorkIsToldAtOnce() {
        assertThatThrownBy(() -> CopyIn.into("")).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> CopyIn.into("", "t")).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> CopyIn.into("a\0b")).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> rows.column("id", CopyType.INTEGER, i -> i))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> rows.column("", CopyType.INTEGER, i -> i))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> rows.columns((i, row) -> {}, "a", "a")).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> rows.columns((i, row) -> {})).isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> rows.columns((i, row) -> {}, "a").column("b", CopyType.INTEGER, i -> i))
                .isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> rows.withPrefetch(0)).isInstanceOf(IllegalArgumentException.class);
        ConnectionScopes scopes = ConnectionScopes.of(ConnectionFactories.get("r2dbc:h2:mem:///none"));
        assertThatThrownBy(() -> CopyIn.<Integer>into("t").write(scopes, Flux.just(1)))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("has no columns");
    }
}
