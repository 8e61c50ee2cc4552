package dev.r2dbcscope.postgresql;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** The key of a row, as far as it is equal to that of another one by PostgreSQL's rules; those of collations are not known here. */
final class ConflictKey {

    private ConflictKey() {}

    /** The key, or {@code null} if it cannot be equal to another one, because NULL is not. */
    static @Nullable Object of(@Nullable Object[] values, int[] columns) {
        if (columns.length == 1) {
            Object value = values[columns[0]];
            return value == null ? null : canonical(value);
        }
        List<Object> key = new ArrayList<>(columns.length);
        for (int column : columns) {
            Object value = values[column];
            if (value == null) {
                return null;
            }
            key.add(canonical(value));
        }
        return key;
    }

    private static Object canonical(Object value) {
        if (value instanceof Long || value instanceof String) {
            return value;
        }
        if (value instanceof Integer || value instanceof Short || value instanceof Byte) {
            return ((Number) value).longValue();
        }
        if (value instanceof BigDecimal number) {
            return number.signum() == 0 ? BigDecimal.ZERO : number.stripTrailingZeros();
        }
        if (value instanceof BigInteger number) {
            return new BigDecimal(number).stripTrailingZeros();
        }
        if (value instanceof Double number) {
            return number + 0.0;
        }
        if (value instanceof Float number) {
            return number + 0.0f;
        }
        if (value instanceof byte[] bytes) {
            return ByteBuffer.wrap(bytes);
        }
        if (value instanceof OffsetDateTime moment) {
            return rounded(moment.toInstant());
        }
        if (value instanceof ZonedDateTime moment) {
            return rounded(moment.toInstant());
        }
        if (value instanceof Instant moment) {
            return rounded(moment);
        }
        if (value instanceof LocalDateTime moment) {
            return moment.getNano() % 1_000 == 0 ? moment : rounded(moment.toInstant(ZoneOffset.UTC));
        }
        return value;
    }

    /** PostgreSQL keeps microseconds. */
    private static Instant rounded(Instant moment) {
        int excess = moment.getNano() % 1_000;
        return excess == 0 ? moment : moment.plusNanos(excess < 500 ? -excess : 1_000 - excess);
    }
}
