package dev.r2dbcscope.postgresql;

import java.math.BigDecimal;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.Period;
import java.time.temporal.ChronoUnit;
import java.time.temporal.TemporalAmount;
import java.time.temporal.TemporalUnit;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.UUID;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Takes the columns of one row after the other for {@code COPY}: each call writes the next column.
 *
 * <p>In {@link CopyFormat#BINARY}, each method's type must be its column's, as named below;
 * in {@link CopyFormat#TEXT} the server converts. {@code null} is written as NULL, whatever the column. What is of another type
 * than its column, and what PostgreSQL cannot store, fails with {@link CopyException} before it is sent. Columns whose type
 * {@link CopyType} does not know are left to the server, which may take bytes that mean something else.
 *
 * <p>Given to a {@link RowEncoder}, valid only during its call. Not thread-safe.
 */
public abstract sealed class CopyRow permits BinaryCopyRow, TextCopyRow {

    private static final byte[] NOTHING = {};

    /** A message of the protocol is shorter than a gigabyte. */
    private static final int LONGEST = 0x3fffffff - 16;

    byte[] bytes = NOTHING;
    int end;

    private final String table;
    private final List<String> columns;
    private final ColumnTypes types;
    private long row;
    private int column;
    private boolean inArray;
    private @Nullable CopyException refusal;
    private @Nullable Consumer<CopyException> leftOut;

    CopyRow(String table, List<String> columns, ColumnTypes types) {
        this.table = table;
        this.columns = columns;
        this.types = types;
    }

    // what the columns are -------------------------------------------------------------------------------------------

    /**
     * Writes NULL.
     *
     * @return this
     */
    public final CopyRow writeNull() {
        begin(ColumnTypes.ANY);
        putNull();
        return this;
    }

    /**
     * Writes a {@code boolean}.
     *
     * @param value the value
     * @return this
     */
    public final CopyRow writeBoolean(boolean value) {
        begin(ColumnTypes.BOOLEAN);
        putBoolean(value);
        return this;
    }

    /**
     * Writes a {@code smallint}.
     *
     * @param value the value
     * @return this
     */
    public final CopyRow writeShort(short value) {
        begin(ColumnTypes.SMALLINT);
        putShort(value);
        return this;
    }

    /**
     * Writes an {@code integer}.
     *
     * @param value the value
     * @return this
     */
    public final CopyRow writeInt(int value) {
        begin(ColumnTypes.INTEGER);
        putInt(value);
        return this;
    }

    /**
     * Writes a {@code bigint}.
     *
     * @param value the value
     * @return this
     */
    public final CopyRow writeLong(long value) {
        begin(ColumnTypes.BIGINT);
        putLong(value);
        return this;
    }

    /**
     * Writes a {@code real}.
     *
     * @param value the value, which may be infinite or not a number
     * @return this
     */
    public final CopyRow writeFloat(float value) {
        begin(ColumnTypes.REAL);
        putFloat(value);
        return this;
    }

    /**
     * Writes a {@code double precision}.
     *
     * @param value the value, which may be infinite or not a number
     * @return this
     */
    public final CopyRow writeDouble(double value) {
        begin(ColumnTypes.DOUBLE_PRECISION);
        putDouble(value);
        return this;
    }

    /**
     * Writes a {@code numeric}, exactly, with the scale of the value unless its column has another.
     *
     * @param value the value, with at most 131,072 digits before and 16,383 digits after the decimal point
     * @return this
     */
    public final CopyRow writeNumeric(@Nullable BigDecimal value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.NUMERIC);
        if (value.signum() != 0 && (long) value.precision() - value.scale() > 131_072) {
            throw refused("the number has more than the 131072 digits before the decimal point that PostgreSQL stores");
        }
        if (value.scale() > 16_383) {
            throw refused("the number has more than the 16383 digits after the decimal point that PostgreSQL stores");
        }
        putNumeric(value);
        return this;
    }

    /**
     * Writes {@code text}, {@code varchar}, {@code char(n)}, an enum's label, {@code citext} or {@code xml}.
     *
     * @param value any Unicode text without the character NUL, which PostgreSQL cannot store, and without half of a surrogate
     *     pair, which is no character
     * @return this
     */
    public final CopyRow writeText(@Nullable CharSequence value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.TEXT);
        putText(value);
        return this;
    }

    /**
     * Writes a {@code bytea}.
     *
     * @param value the bytes
     * @return this
     */
    public final CopyRow writeBytes(byte @Nullable [] value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.BYTEA);
        putBytes(value);
        return this;
    }

    /**
     * Writes a {@code uuid}.
     *
     * @param value the value
     * @return this
     */
    public final CopyRow writeUuid(@Nullable UUID value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.UUID);
        putUuid(value.getMostSignificantBits(), value.getLeastSignificantBits());
        return this;
    }

    /**
     * Writes a {@code date}.
     *
     * @param value a date from 4714-11-24 BC to 5874897-12-31; {@link LocalDate#MAX} stands for {@code infinity}, {@link
     *     LocalDate#MIN} for {@code -infinity}
     * @return this
     */
    public final CopyRow writeDate(@Nullable LocalDate value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.DATE);
        int days;
        try {
            days = PostgresqlEpoch.days(value);
        } catch (PostgresqlEpoch.OutOfRange e) {
            throw refused(e);
        }
        putDate(days);
        return this;
    }

    /**
     * Writes a {@code time} without time zone.
     *
     * @param value the time, which is rounded to microseconds as the server rounds
     * @return this
     */
    public final CopyRow writeTime(@Nullable LocalTime value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.TIME);
        putTime(PostgresqlEpoch.micros(value));
        return this;
    }

    /**
     * Writes a {@code timestamp} without time zone.
     *
     * @param value a time from 4714-11-24 BC to 294276-12-31, which is rounded to microseconds as the server rounds; {@link
     *     LocalDateTime#MAX} stands for {@code infinity}, {@link LocalDateTime#MIN} for {@code -infinity}
     * @return this
     */
    public final CopyRow writeTimestamp(@Nullable LocalDateTime value) {
        return timestamp(value, PostgresqlEpoch::micros, false);
    }

    /**
     * Writes a {@code timestamptz}.
     *
     * @param value a time from 4714-11-24 BC to 294276-12-31 in UTC, which is rounded to microseconds as the server rounds;
     *     {@link OffsetDateTime#MAX} stands for {@code infinity}, {@link OffsetDateTime#MIN} for {@code -infinity}
     * @return this
     */
    public final CopyRow writeTimestampTz(@Nullable OffsetDateTime value) {
        return timestamp(value, PostgresqlEpoch::micros, true);
    }

    /**
     * Writes a {@code timestamptz}.
     *
     * @param value a time from 4714-11-24 BC to 294276-12-31 in UTC, which is rounded to microseconds as the server rounds;
     *     {@link Instant#MAX} stands for {@code infinity}, {@link Instant#MIN} for {@code -infinity}
     * @return this
     */
    public final CopyRow writeTimestampTz(@Nullable Instant value) {
        return timestamp(value, PostgresqlEpoch::micros, true);
    }

    private interface Micros<V> {
        long of(V value);
    }

    private <V> CopyRow timestamp(@Nullable V value, Micros<V> conversion, boolean zoned) {
        if (value == null) {
            return writeNull();
        }
        begin(zoned ? ColumnTypes.TIMESTAMPTZ : ColumnTypes.TIMESTAMP);
        long micros;
        try {
            micros = conversion.of(value);
        } catch (PostgresqlEpoch.OutOfRange e) {
            throw refused(e);
        }
        putTimestamp(micros, zoned);
        return this;
    }

    /**
     * Writes an {@code interval}.
     *
     * @param value an amount of years, months, weeks, days, and of hours down to nanoseconds, such as a {@link Period} or a
     *     {@link java.time.Duration}. PostgreSQL keeps months, days and microseconds apart; a {@code Duration} is all
     *     microseconds, to which it is rounded as the server rounds.
     * @return this
     */
    public final CopyRow writeInterval(@Nullable TemporalAmount value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.INTERVAL);
        long months = 0;
        long days = 0;
        long micros = 0;
        try {
            for (TemporalUnit unit : value.getUnits()) {
                long amount = value.get(unit);
                if (unit == ChronoUnit.NANOS) {
                    micros = Math.addExact(micros, PostgresqlEpoch.micros(amount));
                } else if (unit.isTimeBased()) {
                    long each = unit.getDuration().toNanos() / 1000;
                    micros = Math.addExact(micros, Math.multiplyExact(amount, each));
                } else if (unit == ChronoUnit.DAYS || unit == ChronoUnit.WEEKS) {
                    days = Math.addExact(days, Math.multiplyExact(amount, unit == ChronoUnit.WEEKS ? 7L : 1L));
                } else if (unit == ChronoUnit.MONTHS || unit == ChronoUnit.YEARS) {
                    months = Math.addExact(months, Math.multiplyExact(amount, unit == ChronoUnit.YEARS ? 12L : 1L));
                } else {
                    throw refused("an interval cannot be given in " + unit);
                }
            }
            putInterval(Math.toIntExact(months), Math.toIntExact(days), micros);
        } catch (ArithmeticException e) {
            throw refused("the interval is outside PostgreSQL's range");
        }
        return this;
    }

    /**
     * Writes a {@code json}.
     *
     * @param value the JSON text, which the server checks
     * @return this
     */
    public final CopyRow writeJson(@Nullable CharSequence value) {
        return writeText(value);
    }

    /**
     * Writes a {@code jsonb}.
     *
     * @param value the JSON text, which the server parses
     * @return this
     */
    public final CopyRow writeJsonb(@Nullable CharSequence value) {
        if (value == null) {
            return writeNull();
        }
        begin(ColumnTypes.JSONB);
        putJsonb(value);
        return this;
    }

    /**
     * Writes a value of a given type, an array for example.
     *
     * @param type the column's type
     * @param value the value
     * @param <V> the Java type of the value
     * @return this
     */
    public final <V> CopyRow write(CopyType<V> type, @Nullable V value) {
        if (value == null) {
            return writeNull();
        }
        type.write(this, value);
        return this;
    }

    /** Writes an array of one dimension. */
    final <V> void writeArray(CopyType<V> type, Collection<? extends @Nullable V> elements) {
        begin(-type.oid());
        inArray = true;
        try {
            openArray(type.oid(), elements);
            for (V element : elements) {
                write(type, element);
            }
        } finally {
            inArray = false;
        }
        closeArray();
    }

    // how the formats differ -----------------------------------------------------------------------------------------

    abstract void header();

    abstract void trailer();

    abstract void openRow(int columns);

    abstract void closeRow();

    /** Called before the value of each column, and before each element of an array. */
    abstract void separate(boolean first);

    abstract void putNull();

    abstract void putBoolean(boolean value);

    abstract void putShort(short value);

    abstract void putInt(int value);

    abstract void putLong(long value);

    abstract void putFloat(float value);

    abstract void putDouble(double value);

    abstract void putNumeric(BigDecimal value);

    abstract void putText(CharSequence value);

    abstract void putBytes(byte[] value);

    abstract void putUuid(long high, long low);

    abstract void putDate(int days);

    abstract void putTime(long micros);

    abstract void putTimestamp(long micros, boolean zoned);

    abstract void putInterval(int months, int days, long micros);

    abstract void putJsonb(CharSequence value);

    abstract void openArray(int oid, Collection<?> elements);

    abstract void closeArray();

    // rows -----------------------------------------------------------------------------------------------------------

    /** Leaves out rows that cannot be sent, which are counted all the same, instead of failing. */
    final void leaveOut(@Nullable Consumer<CopyException> rows) {
        leftOut = rows;
    }

    /** Encodes a row behind what is there already. */
    final <T> void encode(T value, RowEncoder<? super T> encoder) {
        int before = end;
        row++;
        column = 0;
        openRow(columns.size());
        try {
            encoder.encode(value, this);
        } catch (CopyException e) {
            if (leftOut == null || e != refusal) {
                throw e;
            }
        }
        if (refusal != null) { // an encoder that keeps it to itself leaves half of a row behind
            if (leftOut == null) {
                throw refusal;
            }
            leftOut.accept(refusal);
            refusal = null;
            inArray = false;
            end = before;
            return;
        }
        if (column != columns.size()) {
            throw new IllegalStateException("The encoder of COPY " + table + " wrote " + column + " of "
                    + columns.size() + " columns of row " + row);
        }
        closeRow();
    }

    /** How many rows were encoded. */
    final long rows() {
        return row;
    }

    final boolean inArray() {
        return inArray;
    }

    /**
     * Begins a column, or an element of an array, whose type the array tells.
     *
     * @param form the {@linkplain ColumnTypes form} of what is written
     */
    private void begin(int form) {
        if (inArray) {
            separate(false);
            return;
        }
        if (column == columns.size()) {
            throw new IllegalStateException(
                    "The encoder of COPY " + table + " wrote more than " + columns.size() + " columns of row " + row);
        }
        separate(column++ == 0);
        if (!types.fit(column - 1, form)) {
            throw refused(types.problem(column - 1, form));
        }
    }

    /** Makes room for more bytes. */
    final void ensure(int more) {
        if (bytes.length - end < more) {
            grow(more);
        }
    }

    private void grow(int more) {
        long needed = (long) end + more;
        if (needed > LONGEST) {
            throw refused("the row is longer than the gigabyte that PostgreSQL accepts");
        }
        bytes = Arrays.copyOf(bytes, (int) Math.min(LONGEST, Math.max(needed, bytes.length * 2L)));
    }

    /** A value that PostgreSQL cannot store. */
    final CopyException refused(String problem) {
        CopyException error = CopyException.unsent(problem, table, row, column == 0 ? null : columns.get(column - 1));
        refusal = error;
        return error;
    }

    private CopyException refused(PostgresqlEpoch.OutOfRange e) {
        return refused(String.valueOf(e.getMessage()));
    }

    /**
     * Writes text as UTF-8.
     *
     * @param escapes for each ASCII character: 0 to write it as it is, a letter to write a backslash and that letter,
     *     anything below 0 to {@link #putSpecial} it
     */
    final void putUtf8(CharSequence text, byte[] escapes) {
        int length = text.length();
        int i = 0;
        while (i < length) {
            int stop = Math.min(length, i + 1024);
            ensure((stop - i) * 4 + 4);
            byte[] to = bytes;
            int at = end;
            while (i < stop) {
                char c = text.charAt(i++);
                if (c < 0x80) {
                    byte escape = escapes[c];
                    if (escape == 0) {
                        to[at++] = (byte) c;
                    } else if (escape > 0) {
                        to[at++] = '\\';
                        to[at++] = escape;
                    } else {
                        at = putSpecial(c, to, at);
                    }
                } else if (c < 0x800) {
                    to[at++] = (byte) (0xc0 | c >> 6);
                    to[at++] = (byte) (0x80 | c & 0x3f);
                } else if (!Character.isSurrogate(c)) {
                    to[at++] = (byte) (0xe0 | c >> 12);
                    to[at++] = (byte) (0x80 | c >> 6 & 0x3f);
                    to[at++] = (byte) (0x80 | c & 0x3f);
                } else {
                    if (i == length || !Character.isSurrogatePair(c, text.charAt(i))) {
                        throw refused("the text has half of a surrogate pair, which is no character");
                    }
                    int point = Character.toCodePoint(c, text.charAt(i++));
                    to[at++] = (byte) (0xf0 | point >> 18);
                    to[at++] = (byte) (0x80 | point >> 12 & 0x3f);
                    to[at++] = (byte) (0x80 | point >> 6 & 0x3f);
                    to[at++] = (byte) (0x80 | point & 0x3f);
                }
            }
            end = at;
        }
    }

    /** Puts an ASCII character that is neither plain nor has an escape, in at most four bytes; returns where the next goes. */
    int putSpecial(char c, byte[] to, int at) {
        throw refused("the text has the character NUL, which PostgreSQL cannot store");
    }
}
