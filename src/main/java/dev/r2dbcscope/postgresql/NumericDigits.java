package dev.r2dbcscope.postgresql;

import java.math.BigDecimal;
import java.math.BigInteger;

/**
 * A number as {@code numeric} is sent: digits to the base 10,000, of which the first has a weight, and the number of decimal
 * digits after the point.
 */
final class NumericDigits {

    private static final int BASE = 10_000;
    private static final int DECIMALS = 4;
    private static final int[] POWERS = {1, 10, 100, 1000};
    private static final short[] NONE = {};

    /** Longer numbers may not fit into a long once they are aligned to the base. */
    private static final int SHORT_PRECISION = 15;

    private final boolean negative;
    private final int scale;
    private final int weight;
    private final int count;
    private final short[] digits;

    private NumericDigits(boolean negative, int scale, int weight, int count, short[] digits) {
        this.negative = negative;
        this.scale = scale;
        this.weight = weight;
        this.count = count;
        this.digits = digits;
    }

    /** The digits of a number that is within PostgreSQL's range. */
    static NumericDigits of(BigDecimal value) {
        int scale = Math.max(value.scale(), 0);
        boolean negative = value.signum() < 0;
        if (value.signum() == 0) {
            return new NumericDigits(false, scale, 0, 0, NONE);
        }
        int aligned = (scale + DECIMALS - 1) / DECIMALS;
        int shift = aligned * DECIMALS - value.scale();
        short[] digits = value.precision() <= SHORT_PRECISION && shift < DECIMALS
                ? fromLong(Math.abs(value.unscaledValue().longValue()) * POWERS[shift])
                : fromText(value.unscaledValue().abs(), shift);
        int count = digits.length;
        while (digits[count - 1] == 0) {
            count--;
        }
        return new NumericDigits(negative, scale, digits.length - 1 - aligned, count, digits);
    }

    private static short[] fromLong(long magnitude) {
        int count = 0;
        for (long rest = magnitude; rest > 0; rest /= BASE) {
            count++;
        }
        short[] digits = new short[count];
        long rest = magnitude;
        for (int i = count - 1; i >= 0; i--) {
            digits[i] = (short) (rest % BASE);
            rest /= BASE;
        }
        return digits;
    }

    private static short[] fromText(BigInteger magnitude, int zeros) {
        String text = magnitude + "0".repeat(zeros);
        int count = (text.length() + DECIMALS - 1) / DECIMALS;
        short[] digits = new short[count];
        int first = text.length() - (count - 1) * DECIMALS;
        int from = 0;
        for (int i = 0; i < count; i++) {
            int to = first + i * DECIMALS;
            digits[i] = (short) Integer.parseInt(text, from, to, 10);
            from = to;
        }
        return digits;
    }

    boolean isNegative() {
        return negative;
    }

    /** The number of decimal digits after the point. */
    int scale() {
        return scale;
    }

    /** The power of the base that the first digit counts. */
    int weight() {
        return weight;
    }

    int count() {
        return count;
    }

    int digit(int index) {
        return digits[index];
    }
}
