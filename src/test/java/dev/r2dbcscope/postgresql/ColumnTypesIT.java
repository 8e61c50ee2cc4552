package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.Postgres;
import io.r2dbc.spi.Connection;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.Period;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Mono;

/** Each type of column, as the database tells it, takes what is written as that type and nothing else. */
class ColumnTypesIT {

    private static final List<String> TYPES = List.of(
            "smallint",
            "integer",
            "bigint",
            "real",
            "double precision",
            "numeric",
            "numeric(10, 2)",
            "text",
            "varchar",
            "varchar(9)",
            "char(9)",
            "name",
            "json",
            "xml",
            "boolean",
            "bytea",
            "uuid",
            "date",
            "time",
            "time(3)",
            "timestamp",
            "timestamptz",
            "interval",
            "jsonb");

    private static final Map<String, UnaryOperator<CopyRow>> METHODS = methods();

    private static Map<String, UnaryOperator<CopyRow>> methods() {
        Map<String, UnaryOperator<CopyRow>> methods = new LinkedHashMap<>();
        methods.put("smallint", row -> row.writeShort((short) 1));
        methods.put("integer", row -> row.writeInt(1));
        methods.put("bigint", row -> row.writeLong(1));
        methods.put("real", row -> row.writeFloat(1));
        methods.put("double precision", row -> row.writeDouble(1));
        methods.put("numeric", row -> row.writeNumeric(BigDecimal.ONE));
        methods.put("text", row -> row.writeText("1"));
        methods.put("json", row -> row.writeJson("1"));
        methods.put("boolean", row -> row.writeBoolean(true));
        methods.put("bytea", row -> row.writeBytes(new byte[] {1}));
        methods.put("uuid", row -> row.writeUuid(new UUID(1, 1)));
        methods.put("date", row -> row.writeDate(LocalDate.EPOCH));
        methods.put("time", row -> row.writeTime(LocalTime.NOON));
        methods.put("timestamp", row -> row.writeTimestamp(LocalDateTime.of(2024, 2, 29, 12, 0)));
        methods.put("timestamptz", row -> row.writeTimestampTz(Instant.EPOCH));
        methods.put("interval", row -> row.writeInterval(Period.ofDays(1)));
        methods.put("jsonb", row -> row.writeJsonb("1"));
        return methods;
    }

    private static String family(String type) {
        String bare = type.replaceAll("\\(.*\\)", "");
        return switch (bare) {
            case "varchar", "char", "name", "json", "xml" -> "text";
            default -> bare;
        };
    }

    @BeforeAll
    static void table() {
        StringBuilder columns = new StringBuilder("gone int, \"bare\" int");
        for (String type : TYPES) {
            columns.append(", \"").append(type).append("\" ").append(type);
            columns.append(", \"").append(type).append("[]\" ").append(type).append("[]");
        }
        Postgres.execute("drop table if exists column_types; create table column_types (" + columns
                + "); alter table column_types drop column gone");
    }

    private static ColumnTypes of(String table, String... columns) {
        return Mono.usingWhen(
                        Postgres.connectionFactory().create(),
                        connection -> ColumnTypes.of(connection, table, List.of(columns)),
                        Connection::close)
                .blockOptional(Duration.ofSeconds(60))
                .orElseThrow();
    }

    private static void assertTakes(boolean fits, ColumnTypes types, String column, UnaryOperator<CopyRow> method) {
        CopyRow row = new BinaryCopyRow("t", List.of(column), types);
        if (fits) {
            assertThatCode(() -> row.encode(1, (i, to) -> method.apply(to))).doesNotThrowAnyException();
        } else {
            assertThatThrownBy(() -> row.encode(1, (i, to) -> method.apply(to)))
                    .isInstanceOf(CopyException.class)
                    .hasMessageContaining("the column is of type");
        }
    }

    @Test
    void aColumnTakesItsFamily() {
        for (String type : TYPES) {
            ColumnTypes types = of("column_types", type);
            METHODS.forEach((written, method) ->
                    assertTakes(family(written).equals(family(type)), types, type + " <- " + written, method));
            assertTakes(false, types, type, row -> row.write(CopyType.BIGINT.array(), List.of(1L)));
            assertTakes(true, types, type, row -> row.writeText(null));
        }
    }

    @Test
    void anArrayTakesItsElements() {
        for (String type : TYPES) {
            ColumnTypes types = of("column_types", type + "[]");
            METHODS.forEach((written, method) -> assertTakes(false, types, type + "[] <- " + written, method));
            String bare = type.replaceAll("\\(.*\\)", "");
            assertTakes(bare.equals("uuid"), types, type, row -> row.write(CopyType.UUID.array(), List.of()));
            assertTakes(bare.equals("text"), types, type, row -> row.write(CopyType.TEXT.array(), List.of()));
            assertTakes(bare.equals("varchar"), types, type, row -> row.write(CopyType.VARCHAR.array(), List.of()));
            assertTakes(bare.equals("json"), types, type, row -> row.write(CopyType.JSON.array(), List.of()));
            assertTakes(true, types, type, CopyRow::writeNull);
        }
    }

    @Test
    void theOrderIsThatOfTheNames() {
        ColumnTypes types = of("column_types", "text", "nowhere", "gone", "ctid", "bigint");
        assertThat(types.fit(0, ColumnTypes.TEXT)).isTrue();
        assertThat(types.fit(0, ColumnTypes.BIGINT)).isFalse();
        assertThat(types.fit(1, ColumnTypes.BIGINT)).isTrue();
        assertThat(types.fit(2, ColumnTypes.BIGINT)).isTrue();
        assertThat(types.fit(3, ColumnTypes.BIGINT)).isTrue();
        assertThat(types.fit(4, ColumnTypes.TEXT)).isFalse();
        assertThat(types.fit(4, ColumnTypes.BIGINT)).isTrue();
    }

    @Test
    void aTableThatIsNotThereIsNotCheckedHere() {
        assertThat(of("\"no where\"", "a").fit(0, ColumnTypes.BIGINT)).isTrue();
        assertThat(of("\"no\".\"where\"", "a").fit(0, ColumnTypes.BIGINT)).isTrue();
    }

    /** It would leave half of a row. */
    @Test
    void anEncoderCannotKeepARefusalToItself() {
        CopyRow row = new BinaryCopyRow("t", List.of("bigint"), of("column_types", "bigint"));
        assertThatThrownBy(() -> row.encode(1, (i, to) -> {
                    try {
                        to.writeDouble(1);
                    } catch (CopyException e) {
                        assertThat(e.row()).isOne();
                    }
                }))
                .isInstanceOf(CopyException.class);
    }
}
