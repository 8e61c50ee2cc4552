package dev.r2dbcscope.postgresql;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.math.BigDecimal;
import java.nio.ByteOrder;
import java.util.Collection;
import java.util.List;
import java.util.Objects;

/**
 * The binary format of {@code COPY}: each value as its length and its bytes, as the type's receive function reads them.
 *
 * @see <a href="https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4">The documentation of COPY</a>
 */
final class BinaryCopyRow extends CopyRow {

    private static final VarHandle SHORTS = MethodHandles.byteArrayViewVarHandle(short[].class, ByteOrder.BIG_ENDIAN);
    private static final VarHandle INTS = MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.BIG_ENDIAN);
    private static final VarHandle LONGS = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.BIG_ENDIAN);

    private static final byte[] SIGNATURE = {'P', 'G', 'C', 'O', 'P', 'Y', '\n', (byte) 0xff, '\r', '\n', 0};
    private static final byte[] ESCAPES = new byte[0x80];
    private static final byte JSONB_VERSION = 1;

    static {
        ESCAPES[0] = -1;
    }

    private int arrayAt;

    BinaryCopyRow(String table, List<String> columns, ColumnTypes types) {
        super(table, columns, types);
    }

    /** The signature, no flags, and no header extension. */
    @Override
    void header() {
        ensure(SIGNATURE.length + 8);
        System.arraycopy(SIGNATURE, 0, bytes, end, SIGNATURE.length);
        end += SIGNATURE.length;
        putRawLong(0);
    }

    @Override
    void trailer() {
        ensure(2);
        putRawShort(-1);
    }

    @Override
    void openRow(int columns) {
        ensure(2);
        putRawShort(columns);
    }

    @Override
    void closeRow() {
        // the number of columns says where it ends
    }

    @Override
    void separate(boolean first) {
        // the lengths say where each value ends
    }

    @Override
    void putNull() {
        ensure(4);
        putRawInt(-1);
    }

    @Override
    void putBoolean(boolean value) {
        ensure(5);
        putRawInt(1);
        bytes[end++] = (byte) (value ? 1 : 0);
    }

    @Override
    void putShort(short value) {
        ensure(6);
        putRawInt(2);
        putRawShort(value);
    }

    @Override
    void putInt(int value) {
        ensure(8);
        putRawInt(4);
        putRawInt(value);
    }

    @Override
    void putLong(long value) {
        ensure(12);
        putRawInt(8);
        putRawLong(value);
    }

    @Override
    void putFloat(float value) {
        putInt(Float.floatToIntBits(value));
    }

    @Override
    void putDouble(double value) {
        putLong(Double.doubleToLongBits(value));
    }

    @Override
    void putNumeric(BigDecimal value) {
        int at = openValue();
        NumericDigits digits = NumericDigits.of(value);
        ensure(8 + 2 * digits.count());
        putRawShort(digits.count());
        putRawShort(digits.weight());
        putRawShort(digits.isNegative() ? 0x4000 : 0);
        putRawShort(digits.scale());
        for (int i = 0; i < digits.count(); i++) {
            putRawShort(digits.digit(i));
        }
        closeValue(at);
    }

    @Override
    void putText(CharSequence value) {
        int at = openValue();
        putUtf8(value, ESCAPES);
        closeValue(at);
    }

    @Override
    void putBytes(byte[] value) {
        ensure(4 + value.length);
        putRawInt(value.length);
        System.arraycopy(value, 0, bytes, end, value.length);
        end += value.length;
    }

    @Override
    void putUuid(long high, long low) {
        ensure(20);
        putRawInt(16);
        putRawLong(high);
        putRawLong(low);
    }

    @Override
    void putDate(int days) {
        putInt(days);
    }

    @Override
    void putTime(long micros) {
        putLong(micros);
    }

    @Override
    void putTimestamp(long micros, boolean zoned) {
        putLong(micros);
    }

    @Override
    void putInterval(int months, int days, long micros) {
        ensure(20);
        putRawInt(16);
        putRawLong(micros);
        putRawInt(days);
        putRawInt(months);
    }

    @Override
    void putJsonb(CharSequence value) {
        int at = openValue();
        ensure(1);
        bytes[end++] = JSONB_VERSION;
        putUtf8(value, ESCAPES);
        closeValue(at);
    }

    /** The number of dimensions, whether there are nulls, the type, and for the one dimension its length and lower bound. */
    @Override
    void openArray(int oid, Collection<?> elements) {
        arrayAt = openValue();
        ensure(20);
        putRawInt(elements.isEmpty() ? 0 : 1);
        putRawInt(elements.stream().anyMatch(Objects::isNull) ? 1 : 0);
        putRawInt(oid);
        if (!elements.isEmpty()) {
            putRawInt(elements.size());
            putRawInt(1);
        }
    }

    @Override
    void closeArray() {
        closeValue(arrayAt);
    }

    /** Leaves room for the length. */
    private int openValue() {
        ensure(4);
        int at = end;
        end += 4;
        return at;
    }

    private void closeValue(int at) {
        INTS.set(bytes, at, end - at - 4);
    }

    private void putRawShort(int value) {
        SHORTS.set(bytes, end, (short) value);
        end += 2;
    }

    private void putRawInt(int value) {
        INTS.set(bytes, end, value);
        end += 4;
    }

    private void putRawLong(long value) {
        LONGS.set(bytes, end, value);
        end += 8;
    }
}
