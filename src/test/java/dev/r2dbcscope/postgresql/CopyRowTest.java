package dev.r2dbcscope.postgresql;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.UUID;
import org.junit.jupiter.api.Test;

/** Values are written as the documentation of PostgreSQL and its types' receive functions say, to the byte. */
class CopyRowTest {

    private static final UUID ID = UUID.fromString("00112233-4455-6677-8899-aabbccddeeff");

    private static byte[] bytes(CopyRow row) {
        return Arrays.copyOf(row.bytes, row.end);
    }

    /** Length and bytes in binary, in hexadecimal. */
    private static <V> String binary(CopyType<V> type, V value) {
        CopyRow row = new BinaryCopyRow("t", List.of("c"), ColumnTypes.unknown(1));
        row.encode(value, (v, to) -> to.write(type, v));
        String all = HexFormat.of().formatHex(bytes(row));
        assertThat(all).startsWith("0001");
        String length = all.substring(4, 12);
        String rest = all.substring(12);
        assertThat(length.equals("ffffffff") ? 0 : Integer.parseInt(length, 16)).isEqualTo(rest.length() / 2);
        return length.equals("ffffffff") ? "null" : rest;
    }

    private static <V> String text(CopyType<V> type, V value) {
        CopyRow row = new TextCopyRow("t", List.of("c"));
        row.encode(value, (v, to) -> to.write(type, v));
        String line = new String(bytes(row), UTF_8);
        assertThat(line).endsWith("\n");
        return line.substring(0, line.length() - 1);
    }

    private static <V> void assertWritten(CopyType<V> type, V value, String binary, String text) {
        assertThat(binary(type, value)).as("%s in binary", type).isEqualTo(binary);
        assertThat(text(type, value)).as("%s as text", type).isEqualTo(text);
    }

    @Test
    void wholeNumbers() {
        assertWritten(CopyType.SMALLINT, Short.MIN_VALUE, "8000", "-32768");
        assertWritten(CopyType.INTEGER, Integer.MAX_VALUE, "7fffffff", "2147483647");
        assertWritten(CopyType.INTEGER, 0, "00000000", "0");
        assertWritten(CopyType.BIGINT, Long.MIN_VALUE, "8000000000000000", "-9223372036854775808");
        assertWritten(CopyType.BIGINT, 1234567890123L, "0000011f71fb04cb", "1234567890123");
    }

    @Test
    void floatingPointNumbers() {
        assertWritten(CopyType.REAL, 1.5f, "3fc00000", "1.5");
        assertWritten(CopyType.DOUBLE_PRECISION, -0.0, "8000000000000000", "-0.0");
        assertWritten(CopyType.DOUBLE_PRECISION, Double.NaN, "7ff8000000000000", "NaN");
        assertWritten(CopyType.DOUBLE_PRECISION, Double.NEGATIVE_INFINITY, "fff0000000000000", "-Infinity");
    }

    @Test
    void numeric() {
        assertWritten(CopyType.NUMERIC, BigDecimal.ZERO, "0000000000000000", "0");
        assertWritten(CopyType.NUMERIC, new BigDecimal("0.00"), "0000000000000002", "0.00");
        assertWritten(CopyType.NUMERIC, new BigDecimal("0E+5"), "0000000000000000", "0");
        assertWritten(CopyType.NUMERIC, BigDecimal.ONE, "00010000000000000001", "1");
        assertWritten(CopyType.NUMERIC, new BigDecimal("10000"), "00010001000000000001", "10000");
        assertWritten(CopyType.NUMERIC, new BigDecimal("-12345.678"), "0003000140000003000109291a7c", "-12345.678");
        assertWritten(CopyType.NUMERIC, new BigDecimal("0.0001"), "0001ffff000000040001", "0.0001");
        assertWritten(CopyType.NUMERIC, new BigDecimal("0.00001"), "0001fffe0000000503e8", "0.00001");
        assertWritten(CopyType.NUMERIC, new BigDecimal("1E+5"), "0001000100000000000a", "1E+5");
        assertWritten(
                CopyType.NUMERIC,
                new BigDecimal("99999999999999999999.5"),
                "0006000400000001270f270f270f270f270f1388",
                "99999999999999999999.5");
    }

    @Test
    void textWithEveryKindOfCharacter() {
        assertWritten(CopyType.TEXT, "", "", "");
        assertWritten(CopyType.TEXT, "a\u00e9\u20ac\ud83d\ude00", "61c3a9e282acf09f9880", "a\u00e9\u20ac\ud83d\ude00");
        assertWritten(
                CopyType.TEXT,
                "\b\f\n\r\t\u000b\\\u0001\u007f\"",
                "080c0a0d090b5c017f22",
                "\\b\\f\\n\\r\\t\\v\\\\\u0001\u007f\"");
        assertWritten(CopyType.TEXT, "\\N", "5c4e", "\\\\N");
        assertWritten(CopyType.TEXT, "\\.", "5c2e", "\\\\.");
        assertWritten(CopyType.VARCHAR, "x", "78", "x");
    }

    @Test
    void nulls() {
        assertWritten(CopyType.TEXT, null, "null", "\\N");
        assertWritten(CopyType.TEXT.from((Integer i) -> null), 1, "null", "\\N");
        assertWritten(CopyType.BIGINT.array(), null, "null", "\\N");
    }

    @Test
    void otherScalars() {
        assertWritten(CopyType.BOOLEAN, true, "01", "t");
        assertWritten(CopyType.BOOLEAN, false, "00", "f");
        assertWritten(CopyType.BYTEA, new byte[] {0, -1, 0x5c}, "00ff5c", "\\\\x00ff5c");
        assertWritten(CopyType.UUID, ID, "00112233445566778899aabbccddeeff", ID.toString());
        assertWritten(CopyType.JSON, "{\"a\": 1}", "7b2261223a20317d", "{\"a\": 1}");
        assertWritten(CopyType.JSONB, "{\"a\": 1}", "017b2261223a20317d", "{\"a\": 1}");
    }

    @Test
    void dates() {
        assertWritten(CopyType.DATE, LocalDate.of(2000, 1, 1), "00000000", "2000-01-01");
        assertWritten(CopyType.DATE, LocalDate.of(1999, 12, 31), "ffffffff", "1999-12-31");
        assertWritten(CopyType.DATE, LocalDate.of(0, 12, 31), "fff4dbf8", "0001-12-31 BC");
        assertWritten(CopyType.DATE, LocalDate.of(-4713, 11, 24), "ffda97a7", "4714-11-24 BC");
        assertWritten(CopyType.DATE, LocalDate.of(5874897, 12, 31), "7fda970c", "5874897-12-31");
        assertWritten(CopyType.DATE, LocalDate.MAX, "7fffffff", "infinity");
        assertWritten(CopyType.DATE, LocalDate.MIN, "80000000", "-infinity");
    }

    @Test
    void timestamps() {
        assertWritten(
                CopyType.TIMESTAMP, LocalDateTime.of(2000, 1, 1, 0, 0), "0000000000000000", "2000-01-01 00:00:00");
        assertWritten(
                CopyType.TIMESTAMP,
                LocalDateTime.of(1999, 12, 31, 23, 59, 59, 999_999_000),
                "ffffffffffffffff",
                "1999-12-31 23:59:59.999999");
        assertWritten(
                CopyType.TIMESTAMPTZ,
                OffsetDateTime.of(2000, 1, 1, 2, 0, 0, 1000, ZoneOffset.ofHours(2)),
                "0000000000000001",
                "2000-01-01 00:00:00.000001+00");
        assertWritten(
                CopyType.INSTANT,
                LocalDateTime.of(-43, 3, 15, 12, 0).toInstant(ZoneOffset.UTC),
                "ff1af9e8fb46d000",
                "0044-03-15 12:00:00+00 BC");
        assertWritten(CopyType.TIMESTAMP, LocalDateTime.MAX, "7fffffffffffffff", "infinity");
        assertWritten(CopyType.TIMESTAMP, LocalDateTime.MIN, "8000000000000000", "-infinity");
        assertWritten(CopyType.TIMESTAMPTZ, OffsetDateTime.MAX, "7fffffffffffffff", "infinity");
        assertWritten(CopyType.INSTANT, Instant.MIN, "8000000000000000", "-infinity");
        assertWritten(CopyType.INSTANT, OffsetDateTime.MAX.toInstant(), "7fffffffffffffff", "infinity");
    }

    @Test
    void timesAndIntervals() {
        assertWritten(CopyType.TIME, LocalTime.of(1, 2, 3, 4000), "00000000dde878c4", "01:02:03.000004");
        assertWritten(CopyType.TIME, LocalTime.MAX, "000000141dd76000", "24:00:00");
        assertWritten(
                CopyType.INTERVAL,
                Duration.ofSeconds(-1, -500_000_000),
                "ffffffffffe91ca0" + "00000000" + "00000000",
                "+0 mons +0 days -00:00:01.500000");
        assertWritten(
                CopyType.INTERVAL,
                Period.of(1, 2, -3),
                "0000000000000000fffffffd0000000e",
                "+14 mons -3 days +00:00:00");
    }

    @Test
    void arrays() {
        assertWritten(
                CopyType.INTEGER.array(),
                Arrays.asList(1, null),
                "00000001" + "00000001" + "00000017" + "00000002" + "00000001" + "0000000400000001" + "ffffffff",
                "{1,NULL}");
        assertWritten(CopyType.BIGINT.array(), List.of(), "00000000" + "00000000" + "00000014", "{}");
        assertWritten(
                CopyType.TEXT.array(),
                Arrays.asList("a\"\\\n,{}", "", "NULL"),
                "00000001" + "00000000" + "00000019" + "00000003" + "00000001" + "00000007" + "61225c0a2c7b7d"
                        + "00000000" + "00000004" + "4e554c4c",
                "{\"a\\\\\"\\\\\\\\\\n,{}\",\"\",\"NULL\"}");
        assertWritten(
                CopyType.BYTEA.array(),
                List.of(new byte[] {1}),
                "00000001" + "00000000" + "00000011" + "00000001" + "00000001" + "00000001" + "01",
                "{\"\\\\\\\\x01\"}");
    }

    @Test
    void arraysHaveOneDimension() {
        assertThatThrownBy(() -> CopyType.INTEGER.array().array())
                .isInstanceOf(IllegalStateException.class)
                .hasMessageContaining("integer[]");
    }

    @Test
    void severalRowsWithHeaderAndTrailer() {
        CopyRow row = new BinaryCopyRow("t", List.of("a", "b"), ColumnTypes.unknown(2));
        row.header();
        row.encode(1, (v, to) -> to.writeInt(v).writeNull());
        row.encode(2, (v, to) -> to.writeInt(v).writeBoolean(true));
        row.trailer();
        assertThat(HexFormat.of().formatHex(bytes(row)))
                .isEqualTo("5047434f50590aff0d0a00" + "00000000" + "00000000"
                        + "0002" + "0000000400000001" + "ffffffff"
                        + "0002" + "0000000400000002" + "0000000101"
                        + "ffff");
        CopyRow text = new TextCopyRow("t", List.of("a", "b"));
        text.header();
        text.encode(1, (v, to) -> to.writeInt(v).writeNull());
        text.encode(2, (v, to) -> to.writeInt(v).writeText("x"));
        text.trailer();
        assertThat(new String(bytes(text), UTF_8)).isEqualTo("1\t\\N\n2\tx\n");
    }

    /** A million characters of every width, which do not fit into what is there at first. */
    @Test
    void aLongValueMakesRoom() {
        String value = "a\u00e9\u20ac\ud83d\ude00\\\n".repeat(150_000);
        assertThat(binary(CopyType.TEXT, value)).isEqualTo(HexFormat.of().formatHex(value.getBytes(UTF_8)));
        assertThat(text(CopyType.TEXT, value))
                .isEqualTo(value.replace("\\", "\\\\").replace("\n", "\\n"));
    }
}
