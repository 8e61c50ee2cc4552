package dev.r2dbcscope.postgresql;

import io.r2dbc.postgresql.codec.Json;
import java.net.InetAddress;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.temporal.Temporal;
import java.time.temporal.TemporalAmount;
import java.util.Map;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * Values in the form in which PostgreSQL's types read them as text, which does not depend on the settings of the session.
 *
 * <p>The longest and the slowest parts of {@code java.time}'s formatters are avoided, because a bulk load is bound by them.
 */
final class TextForm {

    private static final char[] HEX = "0123456789abcdef".toCharArray();

    /** What the driver makes of them when it reads them. */
    private static final Map<Object, String> INFINITIES = Map.of(
            LocalDate.MAX,
            "infinity",
            LocalDate.MIN,
            "-infinity",
            LocalDateTime.MAX,
            "infinity",
            LocalDateTime.MIN,
            "-infinity",
            OffsetDateTime.MAX,
            "infinity",
            OffsetDateTime.MIN,
            "-infinity",
            Instant.MAX,
            "infinity",
            Instant.MIN,
            "-infinity");

    private TextForm() {}

    /** Whether the text of such a value holds nothing that an array literal gives a meaning to. */
    static boolean isPlain(Object value) {
        return value instanceof Number
                || value instanceof Boolean
                || value instanceof UUID
                || value instanceof TemporalAmount
                || value instanceof LocalTime
                || value instanceof OffsetTime;
    }

    /** Appends a value; one of a class that is not known is an {@link IllegalArgumentException} without the value. */
    static void append(StringBuilder out, Object value) {
        if (value instanceof CharSequence text) {
            out.append(text);
        } else if (value instanceof Long number) {
            out.append(number.longValue());
        } else if (value instanceof Integer number) {
            out.append(number.intValue());
        } else if (value instanceof Boolean truth) {
            out.append(truth ? 't' : 'f');
        } else if (isInfinite(value)) {
            out.append(INFINITIES.get(value));
        } else if (value instanceof Instant instant) {
            appendDateTime(out, instant.atOffset(ZoneOffset.UTC).toLocalDateTime(), ZoneOffset.UTC);
        } else if (value instanceof OffsetDateTime moment) {
            appendDateTime(out, moment.toLocalDateTime(), moment.getOffset());
        } else if (value instanceof ZonedDateTime moment) {
            appendDateTime(out, moment.toLocalDateTime(), moment.getOffset());
        } else if (value instanceof LocalDateTime moment) {
            appendDateTime(out, moment, null);
        } else if (value instanceof LocalDate date) {
            appendDate(out, date);
            appendEra(out, date);
        } else if (value instanceof byte[] bytes) {
            appendHex(out, ByteBuffer.wrap(bytes));
        } else if (value instanceof ByteBuffer bytes) {
            appendHex(out, bytes.duplicate());
        } else if (value instanceof Enum<?> constant) {
            out.append(constant.name());
        } else if (value instanceof Json json) {
            out.append(json.asString());
        } else if (value instanceof InetAddress address) {
            out.append(address.getHostAddress());
        } else if (value instanceof Character || isPlain(value)) {
            out.append(value);
        } else {
            throw new IllegalArgumentException("a " + value.getClass().getName()
                    + " has no text form here; let the column's function return a String that the type can read");
        }
    }

    private static boolean isInfinite(Object value) {
        return value instanceof Temporal && INFINITIES.containsKey(value);
    }

    private static void appendDateTime(StringBuilder out, LocalDateTime moment, @Nullable ZoneOffset offset) {
        LocalDate date = moment.toLocalDate();
        appendDate(out, date);
        out.append('T');
        two(out, moment.getHour()).append(':');
        two(out, moment.getMinute()).append(':');
        two(out, moment.getSecond());
        int nanos = moment.getNano();
        if (nanos != 0) {
            out.append('.');
            for (int unit = 100_000_000; nanos != 0; unit /= 10) {
                out.append((char) ('0' + nanos / unit));
                nanos %= unit;
            }
        }
        if (offset != null) {
            out.append(offset.getId());
        }
        appendEra(out, date);
    }

    private static void appendDate(StringBuilder out, LocalDate date) {
        int year = date.getYear() > 0 ? date.getYear() : 1 - date.getYear();
        for (int least = 1_000; year < least && least > 1; least /= 10) {
            out.append('0');
        }
        out.append(year).append('-');
        two(out, date.getMonthValue()).append('-');
        two(out, date.getDayOfMonth());
    }

    /** The year 0 of {@code java.time} is the year 1 before Christ. */
    private static void appendEra(StringBuilder out, LocalDate date) {
        if (date.getYear() <= 0) {
            out.append(" BC");
        }
    }

    private static StringBuilder two(StringBuilder out, int number) {
        return out.append((char) ('0' + number / 10)).append((char) ('0' + number % 10));
    }

    private static void appendHex(StringBuilder out, ByteBuffer bytes) {
        out.append("\\x");
        while (bytes.hasRemaining()) {
            byte b = bytes.get();
            out.append(HEX[b >> 4 & 15]).append(HEX[b & 15]);
        }
    }
}
