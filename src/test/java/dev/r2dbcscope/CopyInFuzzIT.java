package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.postgresql.CopyFormat;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;

/**
 * Random rows come back as they were written. They are read by pgjdbc, which has nothing in common with what has written them.
 *
 * <p>{@code -Dcopy.rows=1000000} for more of them, {@code -Dcopy.seed=} for the same ones again.
 */
class CopyInFuzzIT {

    private static final Duration LONG = Duration.ofMinutes(30);
    private static final int ROWS = Integer.getInteger("copy.rows", 10_000);
    private static final long SEED = Long.getLong("copy.seed", System.nanoTime());

    /** As numbers, because pgjdbc cannot read a leap day before Christ or the end of a day. */
    private static final String SELECT = "select id, small, integer, big, \"real\", precise, exact, text, flag, uuid,"
            + " case when date is null then null when isfinite(date) then date - date '2000-01-01'"
            + " when date > '2000-01-01' then 2147483647 else -2147483648 end as date,"
            + " (extract(epoch from time) * 1000000)::bigint as time,"
            + micros("timestamp", "timestamp '2000-01-01'") + " as timestamp,"
            + micros("zoned", "timestamptz '2000-01-01 UTC'") + " as zoned,"
            + " (extract(year from \"interval\") * 12 + extract(month from \"interval\"))::bigint as months,"
            + " extract(day from \"interval\")::bigint as days,"
            + " (extract(hour from \"interval\") * 3600000000 + extract(minute from \"interval\") * 60000000"
            + " + extract(microseconds from \"interval\"))::bigint as micros,"
            + " bytes, json, jsonb ->> 'k' as jsonb, integers, texts, numbers, blobs,"
            + " case when instants is not null then array(select " + micros("at", "timestamptz '2000-01-01 UTC'")
            + " from unnest(instants) with ordinality each(at, n) order by n) end as instants"
            + " from ";

    private static String micros(String value, String zero) {
        String since = value + " - " + zero;
        return " case when " + value + " is null then null when isfinite(" + value + ") then (extract(day from " + since
                + ") * 86400000000 + extract(hour from " + since + ") * 3600000000 + extract(minute from " + since
                + ") * 60000000 + extract(microseconds from " + since + "))::bigint when " + value + " > " + zero
                + " then 9223372036854775807 else -9223372036854775808 end";
    }

    private final WatchedPool pool = WatchedPool.of(1);

    @AfterEach
    void poolIsWhole() {
        assertThat(pool.destroyed()).isZero();
        pool.assertWhole();
        pool.close();
    }

    @ParameterizedTest
    @EnumSource(CopyFormat.class)
    void randomRowsComeBackEqual(CopyFormat format) throws SQLException {
        String table = "copy_fuzz_" + format.name().toLowerCase(java.util.Locale.ROOT);
        System.out.println("copy.seed=" + SEED + " copy.rows=" + ROWS + " " + format);
        Postgres.execute("drop table if exists " + table);
        Postgres.execute("create table " + table + " (" + RandomRow.TABLE + ")");

        long start = System.nanoTime();
        Long written = RandomRow.into(table)
                .withFormat(format)
                .write(pool.scopes, Flux.range(0, ROWS).map(i -> RandomRow.of(SEED, i)))
                .block(LONG);
        System.out.println(written + " rows in " + (System.nanoTime() - start) / 1_000_000 + " ms");
        assertThat(written).isEqualTo(ROWS);
        assertEqual(table);
        Postgres.execute("drop table " + table);
    }

    private static void assertEqual(String table) throws SQLException {
        try (Connection connection = DriverManager.getConnection(
                        "jdbc:postgresql://localhost:" + Postgres.port() + "/postgres", "postgres", "postgres");
                Statement statement = connection.createStatement()) {
            statement.execute("set time zone 'UTC'");
            connection.setAutoCommit(false);
            statement.setFetchSize(500);
            int id = 0;
            try (ResultSet result = statement.executeQuery(SELECT + table + " order by id")) {
                while (result.next()) {
                    RandomRow row = RandomRow.of(SEED, id);
                    assertThat(different(row, result))
                            .as("seed %s, row %s", SEED, id)
                            .isEmpty();
                    id++;
                }
            }
            assertThat(id).isEqualTo(ROWS);
        }
    }

    /** The names of the columns that are not as they were written. */
    private static List<String> different(RandomRow row, ResultSet result) throws SQLException {
        List<String> different = new java.util.ArrayList<>();
        check(different, "id", row.id(), result.getObject("id", Integer.class));
        check(
                different,
                "small",
                row.small() == null ? null : row.small().intValue(),
                result.getObject("small", Integer.class));
        check(different, "integer", row.integer(), result.getObject("integer", Integer.class));
        check(different, "big", row.big(), result.getObject("big", Long.class));
        check(different, "real", row.real(), result.getObject("real", Float.class));
        check(different, "precise", row.precise(), result.getObject("precise", Double.class));
        check(different, "exact", plain(row.exact()), result.getBigDecimal("exact"));
        check(different, "text", row.text(), result.getString("text"));
        check(different, "flag", row.flag(), result.getObject("flag", Boolean.class));
        check(different, "uuid", row.uuid(), result.getObject("uuid", UUID.class));
        check(different, "date", days(row.date()), result.getObject("date", Integer.class));
        check(different, "time", micros(row.time()), result.getObject("time", Long.class));
        check(different, "timestamp", micros(row.timestamp()), result.getObject("timestamp", Long.class));
        check(different, "zoned", micros(row.zoned()), result.getObject("zoned", Long.class));
        check(different, "interval", parts(row), parts(result));
        check(different, "bytes", text(row.bytes()), text(result.getBytes("bytes")));
        check(different, "json", row.json(), result.getString("json"));
        check(different, "jsonb", unquoted(row.jsonb()), result.getString("jsonb"));
        check(different, "integers", row.integers(), list(result, "integers"));
        check(different, "texts", row.texts(), list(result, "texts"));
        check(
                different,
                "numbers",
                row.numbers() == null
                        ? null
                        : row.numbers().stream().map(CopyInFuzzIT::plain).toList(),
                list(result, "numbers"));
        check(
                different,
                "blobs",
                row.blobs() == null
                        ? null
                        : row.blobs().stream().map(CopyInFuzzIT::text).toList(),
                texts(list(result, "blobs")));
        check(
                different,
                "instants",
                row.instants() == null
                        ? null
                        : row.instants().stream().map(CopyInFuzzIT::micros).toList(),
                list(result, "instants"));
        return different;
    }

    private static void check(List<String> different, String column, Object expected, Object actual) {
        if (!Objects.equals(expected, actual)) {
            different.add(column + ": " + expected + " came back as " + actual);
        }
    }

    private static BigDecimal plain(BigDecimal value) {
        return value == null || value.scale() >= 0 ? value : value.setScale(0);
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Arrays.toString(bytes);
    }

    private static List<String> texts(List<?> blobs) {
        return blobs == null
                ? null
                : blobs.stream().map(blob -> text((byte[]) blob)).toList();
    }

    private static List<?> list(ResultSet result, String column) throws SQLException {
        java.sql.Array array = result.getArray(column);
        return array == null ? null : Arrays.asList((Object[]) array.getArray());
    }

    private static String unquoted(String json) {
        if (json == null) {
            return null;
        }
        StringBuilder text = new StringBuilder();
        String inner = json.substring("{\"k\": \"".length(), json.length() - "\"}".length());
        for (int i = 0; i < inner.length(); i++) {
            if (inner.charAt(i) == '\\') {
                text.append((char) Integer.parseInt(inner, i + 2, i + 6, 16));
                i += 5;
            } else {
                text.append(inner.charAt(i));
            }
        }
        return text.toString();
    }

    /** The nanoseconds that are lost, as the server reads and rounds a fraction. */
    private static long lost(int nano) {
        return (long) Math.rint(Double.parseDouble(String.format("0.%09d", nano)) * 1e6) * 1000 - nano;
    }

    private static Long micros(LocalTime time) {
        return time == null ? null : (time.toNanoOfDay() + lost(time.getNano())) / 1000;
    }

    private static Integer days(LocalDate date) {
        if (date == null) {
            return null;
        }
        if (date.equals(LocalDate.MAX) || date.equals(LocalDate.MIN)) {
            return date.equals(LocalDate.MAX) ? Integer.MAX_VALUE : Integer.MIN_VALUE;
        }
        return (int) (date.toEpochDay() - LocalDate.of(2000, 1, 1).toEpochDay());
    }

    private static Long micros(LocalDateTime timestamp) {
        if (timestamp == null) {
            return null;
        }
        return timestamp.equals(LocalDateTime.MAX) || timestamp.equals(LocalDateTime.MIN)
                ? (Long) (timestamp.equals(LocalDateTime.MAX) ? Long.MAX_VALUE : Long.MIN_VALUE)
                : (Long) micros(timestamp.toInstant(ZoneOffset.UTC));
    }

    private static Long micros(OffsetDateTime timestamp) {
        if (timestamp == null) {
            return null;
        }
        return timestamp.equals(OffsetDateTime.MAX) || timestamp.equals(OffsetDateTime.MIN)
                ? (Long) (timestamp.equals(OffsetDateTime.MAX) ? Long.MAX_VALUE : Long.MIN_VALUE)
                : (Long) micros(timestamp.toInstant());
    }

    private static long micros(Instant instant) {
        return (instant.getEpochSecond() - 946_684_800) * 1_000_000
                + (instant.getNano() + lost(instant.getNano())) / 1000;
    }

    private static List<Long> parts(RandomRow row) {
        if (row.interval() instanceof Period period) {
            return List.of(period.toTotalMonths(), (long) period.getDays(), 0L);
        }
        if (row.interval() instanceof Duration duration) {
            int nano = duration.getNano();
            return List.of(0L, 0L, duration.getSeconds() * 1_000_000 + (nano + lost(nano)) / 1000);
        }
        return null;
    }

    private static List<Long> parts(ResultSet result) throws SQLException {
        Long months = result.getObject("months", Long.class);
        return months == null
                ? null
                : List.of(months, result.getObject("days", Long.class), result.getObject("micros", Long.class));
    }
}
