package dev.r2dbcscope.postgresql;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.MathContext;
import java.math.RoundingMode;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.stream.Stream;

/**
 * A type whose values can be split into ranges, by way of numbers.
 *
 * <p>The least and the greatest key are only a hint where to split: the first and the last range are open. So nothing is lost or
 * read twice if the hint is wrong, rounded, or leaves out infinity and what is not a number.
 */
enum KeyType {
    SMALLINT("smallint", "", "", "%s::text", true, KeyType::whole),
    INTEGER("integer", "", "", "%s::text", true, KeyType::whole),
    BIGINT("bigint", "", "", "%s::text", true, KeyType::whole),
    NUMERIC("numeric", "-1e1000", "1e1000", "%s::text", false, BigDecimal::toString),
    REAL("real", "-Infinity", "Infinity", "%s::text", false, number -> Float.toString(number.floatValue())),
    DOUBLE(
            "double precision",
            "-Infinity",
            "Infinity",
            "%s::text",
            false,
            number -> Double.toString(number.doubleValue())),
    DATE("date", "-infinity", "infinity", "(%s - date '1970-01-01')::text", true, KeyType::date),
    TIMESTAMP(
            "timestamp without time zone",
            "-infinity",
            "infinity",
            "(extract(epoch from %s) * 1000000)::numeric::text",
            true,
            number -> timestamp(number, "")),
    TIMESTAMPTZ(
            "timestamp with time zone",
            "-infinity",
            "infinity",
            "(extract(epoch from %s) * 1000000)::numeric::text",
            true,
            number -> timestamp(number, "Z")),
    UUID("uuid", "", "", "%s::text", true, KeyType::uuid);

    private static final BigInteger TWO_TO_64 = BigInteger.ONE.shiftLeft(64);

    private final String sqlName;
    private final String least;
    private final String greatest;
    private final String number;
    private final boolean whole;
    private final Function<BigDecimal, String> text;

    KeyType(
            String sqlName,
            String least,
            String greatest,
            String number,
            boolean whole,
            Function<BigDecimal, String> text) {
        this.sqlName = sqlName;
        this.least = least;
        this.greatest = greatest;
        this.number = number;
        this.whole = whole;
        this.text = text;
    }

    /** The type that the server calls so. */
    static KeyType of(String sqlName) {
        return Stream.of(values())
                .filter(type -> type.sqlName.equals(sqlName))
                .findFirst()
                .orElseThrow(() -> new IllegalArgumentException("A key of type " + sqlName
                        + " cannot be split into ranges; use one that is a number, a date, a timestamp or a uuid"));
    }

    String sqlName() {
        return sqlName;
    }

    /** The condition that a key is neither NULL nor without a number. */
    String condition(String key) {
        String known = key + " is not null";
        return least.isEmpty()
                ? known
                : known + " and " + key + " > '" + least + "' and " + key + " < '" + greatest + "'";
    }

    /** The key as text that {@link #parse} reads. */
    String expression(String key) {
        return number.formatted(key);
    }

    BigDecimal parse(String text) {
        return this == UUID ? new BigDecimal(new BigInteger(text.replace("-", ""), 16)) : new BigDecimal(text);
    }

    /** Where to split the keys from the least to the greatest into so many ranges: greater than the least, and ascending. */
    List<String> split(BigDecimal min, BigDecimal max, int ranges) {
        BigDecimal width = max.subtract(min).add(whole ? BigDecimal.ONE : BigDecimal.ZERO);
        MathContext precision = new MathContext(Math.max(40, width.precision() + 20));
        List<String> splits = new ArrayList<>();
        String last = text.apply(min);
        for (int i = 1; i < ranges; i++) {
            BigDecimal step = width.multiply(BigDecimal.valueOf(i)).divide(BigDecimal.valueOf(ranges), precision);
            BigDecimal at = whole ? min.add(step).setScale(0, RoundingMode.FLOOR) : min.add(step);
            String split = text.apply(at);
            if (at.compareTo(min) > 0 && !split.equals(last)) {
                splits.add(split);
                last = split;
            }
        }
        return splits;
    }

    private static String whole(BigDecimal number) {
        return number.toBigInteger().toString();
    }

    private static String date(BigDecimal days) {
        StringBuilder out = new StringBuilder();
        TextForm.append(out, LocalDate.ofEpochDay(days.longValue()));
        return out.toString();
    }

    private static String timestamp(BigDecimal micros, String zone) {
        BigDecimal seconds = micros.scaleByPowerOfTen(-6).setScale(0, RoundingMode.FLOOR);
        int rest = micros.subtract(seconds.scaleByPowerOfTen(6)).intValue();
        LocalDateTime moment = LocalDateTime.ofEpochSecond(seconds.longValueExact(), rest * 1_000, ZoneOffset.UTC);
        StringBuilder out = new StringBuilder();
        TextForm.append(out, zone.isEmpty() ? moment : moment.atOffset(ZoneOffset.UTC));
        return out.toString();
    }

    private static String uuid(BigDecimal number) {
        BigInteger[] halves = number.toBigInteger().divideAndRemainder(TWO_TO_64);
        return new java.util.UUID(halves[0].longValue(), halves[1].longValue()).toString();
    }
}
