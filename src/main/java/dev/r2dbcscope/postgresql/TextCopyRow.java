package dev.r2dbcscope.postgresql;

import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.time.LocalDate;
import java.util.Collection;
import java.util.List;

/**
 * The text format of {@code COPY}: values as the type's input function reads them, between tabulators, with a backslash before
 * what has a meaning, one row on a line.
 *
 * <p>The elements of an array are quoted, which takes a backslash of its own before quotes and backslashes.
 *
 * @see <a href="https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2">The documentation of COPY</a>
 */
final class TextCopyRow extends CopyRow {

    private static final byte[] ESCAPES = new byte[0x80];
    private static final byte[] ELEMENT_ESCAPES;
    private static final byte[] HEX = "0123456789abcdef".getBytes(StandardCharsets.US_ASCII);

    /** The longest is -9223372036854775808. */
    private static final int LONGEST_NUMBER = 20;

    static {
        ESCAPES[0] = -1;
        ESCAPES['\b'] = 'b';
        ESCAPES['\f'] = 'f';
        ESCAPES['\n'] = 'n';
        ESCAPES['\r'] = 'r';
        ESCAPES['\t'] = 't';
        ESCAPES[0x0b] = 'v';
        ESCAPES['\\'] = '\\';
        ELEMENT_ESCAPES = ESCAPES.clone();
        ELEMENT_ESCAPES['"'] = -1;
        ELEMENT_ESCAPES['\\'] = -1;
    }

    private boolean firstElement;

    TextCopyRow(String table, List<String> columns) {
        super(table, columns, ColumnTypes.unknown(columns.size()));
    }

    @Override
    void header() {
        // there is none
    }

    @Override
    void trailer() {
        // the end of the data is the end
    }

    @Override
    void openRow(int columns) {
        // a row begins behind the end of another
    }

    @Override
    void closeRow() {
        put('\n');
    }

    @Override
    void separate(boolean first) {
        if (!inArray()) {
            if (!first) {
                put('\t');
            }
        } else if (firstElement) {
            firstElement = false;
        } else {
            put(',');
        }
    }

    @Override
    void putNull() {
        if (inArray()) {
            putAscii("NULL");
        } else {
            put('\\');
            put('N');
        }
    }

    @Override
    void putBoolean(boolean value) {
        put(value ? 't' : 'f');
    }

    @Override
    void putShort(short value) {
        putLong(value);
    }

    @Override
    void putInt(int value) {
        putLong(value);
    }

    @Override
    void putLong(long value) {
        ensure(LONGEST_NUMBER);
        if (value < 0) {
            bytes[end++] = '-';
        }
        long rest = value < 0 ? value : -value; // the least long has no positive counterpart
        int length = 1;
        for (long more = rest / 10; more != 0; more /= 10) {
            length++;
        }
        for (int at = end + length - 1; at >= end; at--) {
            bytes[at] = (byte) ('0' - rest % 10);
            rest /= 10;
        }
        end += length;
    }

    @Override
    void putFloat(float value) {
        putAscii(Float.toString(value));
    }

    @Override
    void putDouble(double value) {
        putAscii(Double.toString(value));
    }

    @Override
    void putNumeric(BigDecimal value) {
        putAscii(value.signum() == 0 && value.scale() < 0 ? "0" : value.toString());
    }

    @Override
    void putText(CharSequence value) {
        quote();
        putUtf8(value, inArray() ? ELEMENT_ESCAPES : ESCAPES);
        quote();
    }

    /** A quote or a backslash in an element: its own backslash, and one before that and before another one. */
    @Override
    int putSpecial(char c, byte[] to, int at) {
        if (c == 0) {
            return super.putSpecial(c, to, at);
        }
        int next = at;
        to[next++] = '\\';
        to[next++] = '\\';
        if (c == '\\') {
            to[next++] = '\\';
        }
        to[next++] = (byte) c;
        return next;
    }

    @Override
    void putBytes(byte[] value) {
        quote();
        putUtf8("\\x", inArray() ? ELEMENT_ESCAPES : ESCAPES);
        ensure(Math.multiplyExact(value.length, 2));
        for (byte b : value) {
            putHex(b);
        }
        quote();
    }

    @Override
    void putUuid(long high, long low) {
        ensure(36);
        for (int i = 0; i < Long.BYTES; i++) {
            if (i == 4 || i == 6) {
                bytes[end++] = '-';
            }
            putHex((int) (high >> (56 - 8 * i)));
        }
        for (int i = 0; i < Long.BYTES; i++) {
            if (i == 0 || i == 2) {
                bytes[end++] = '-';
            }
            putHex((int) (low >> (56 - 8 * i)));
        }
    }

    private void putHex(int value) {
        bytes[end++] = HEX[value >> 4 & 0xf];
        bytes[end++] = HEX[value & 0xf];
    }

    @Override
    void putDate(int days) {
        if (days == PostgresqlEpoch.INFINITE_DATE) {
            putAscii("infinity");
        } else if (days == PostgresqlEpoch.MINUS_INFINITE_DATE) {
            putAscii("-infinity");
        } else {
            quote();
            putEra(putDay(days));
            quote();
        }
    }

    @Override
    void putTime(long micros) {
        putTwo(micros / 3_600_000_000L);
        putMinutes(micros % 3_600_000_000L);
    }

    @Override
    void putTimestamp(long micros, boolean zoned) {
        if (micros == PostgresqlEpoch.INFINITE_TIMESTAMP) {
            putAscii("infinity");
        } else if (micros == PostgresqlEpoch.MINUS_INFINITE_TIMESTAMP) {
            putAscii("-infinity");
        } else {
            quote();
            boolean beforeChrist = putDay(Math.floorDiv(micros, PostgresqlEpoch.MICROS_PER_DAY));
            put(' ');
            putTime(Math.floorMod(micros, PostgresqlEpoch.MICROS_PER_DAY));
            if (zoned) {
                putAscii("+00");
            }
            putEra(beforeChrist);
            quote();
        }
    }

    /** With a sign before each part, because what a part without one means depends on the server's IntervalStyle. */
    @Override
    void putInterval(int months, int days, long micros) {
        quote();
        putSigned(months);
        putAscii(" mons ");
        putSigned(days);
        putAscii(" days ");
        put(micros < 0 ? '-' : '+');
        long hours = Math.abs(micros / 3_600_000_000L);
        if (hours < 10) {
            put('0');
        }
        putLong(hours);
        putMinutes(Math.abs(micros % 3_600_000_000L));
        quote();
    }

    private void putSigned(int value) {
        if (value >= 0) {
            put('+');
        }
        putLong(value);
    }

    @Override
    void putJsonb(CharSequence value) {
        putText(value);
    }

    @Override
    void openArray(int oid, Collection<?> elements) {
        firstElement = true;
        put('{');
    }

    @Override
    void closeArray() {
        put('}');
    }

    /** Around what may have spaces or special characters, if it is an element. */
    private void quote() {
        if (inArray()) {
            put('"');
        }
    }

    /** Writes year, month and day; says whether it was before the year 1. */
    private boolean putDay(long days) {
        LocalDate date = LocalDate.ofEpochDay(days + PostgresqlEpoch.EPOCH_DAY);
        int year = date.getYear() > 0 ? date.getYear() : 1 - date.getYear();
        if (year < 100) {
            put('0');
            put('0');
            putTwo(year);
        } else if (year < 10_000) {
            putTwo(year / 100);
            putTwo(year % 100);
        } else {
            putLong(year);
        }
        put('-');
        putTwo(date.getMonthValue());
        put('-');
        putTwo(date.getDayOfMonth());
        return date.getYear() <= 0;
    }

    private void putEra(boolean beforeChrist) {
        if (beforeChrist) {
            putAscii(" BC");
        }
    }

    /** Minutes, seconds, and a fraction if there is one. */
    private void putMinutes(long micros) {
        put(':');
        putTwo(micros / 60_000_000);
        put(':');
        putTwo(micros / 1_000_000 % 60);
        int fraction = (int) (micros % 1_000_000);
        if (fraction != 0) {
            put('.');
            putTwo(fraction / 10_000);
            putTwo(fraction / 100 % 100);
            putTwo(fraction % 100);
        }
    }

    private void putTwo(long value) {
        ensure(2);
        bytes[end++] = (byte) ('0' + value / 10);
        bytes[end++] = (byte) ('0' + value % 10);
    }

    private void put(char c) {
        ensure(1);
        bytes[end++] = (byte) c;
    }

    /** Text that needs no escape. */
    @SuppressWarnings("deprecation") // it is what copies ASCII without a detour
    private void putAscii(String text) {
        int length = text.length();
        ensure(length);
        text.getBytes(0, length, bytes, end);
        end += length;
    }
}
