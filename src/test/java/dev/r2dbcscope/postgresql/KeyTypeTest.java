package dev.r2dbcscope.postgresql;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Where keys are split: ascending, above the least, evenly, and never more often than asked for. */
class KeyTypeTest {

    private static final long SEED = System.nanoTime();

    private static List<String> split(KeyType type, String min, String max, int ranges) {
        return type.split(new BigDecimal(min), new BigDecimal(max), ranges);
    }

    @Test
    void longsAreSplitEvenlyUpToTheirEnds() {
        assertThat(split(KeyType.BIGINT, "1", "100", 4)).containsExactly("26", "51", "76");
        assertThat(split(KeyType.BIGINT, "-3", "3", 2)).containsExactly("0");
        assertThat(split(KeyType.BIGINT, Long.MIN_VALUE + "", Long.MAX_VALUE + "", 4))
                .containsExactly(Long.MIN_VALUE / 2 + "", "0", Long.MAX_VALUE / 2 + 1 + "");
    }

    @Test
    void thereAreNoMoreRangesThanKeys() {
        assertThat(split(KeyType.BIGINT, "7", "7", 10)).isEmpty();
        assertThat(split(KeyType.BIGINT, "-1", "1", 10)).containsExactly("0", "1");
        assertThat(split(KeyType.SMALLINT, "1", "2", 1)).isEmpty();
        assertThat(split(KeyType.DOUBLE, "0", "4.9E-324", 10)).containsExactly("4.9E-324");
        assertThat(split(KeyType.NUMERIC, "5", "5", 3)).isEmpty();
    }

    @Test
    void othersAreSplitInTheirOwnForm() {
        assertThat(split(KeyType.NUMERIC, "0", "1", 4)).containsExactly("0.25", "0.5", "0.75");
        assertThat(split(KeyType.REAL, "-1", "1", 2)).containsExactly("0.0");
        assertThat(split(KeyType.DATE, "-1", "2", 2)).containsExactly("1970-01-02");
        assertThat(split(KeyType.TIMESTAMP, "0", "1", 2)).containsExactly("1970-01-01T00:00:00.000001");
        assertThat(split(KeyType.TIMESTAMPTZ, "-1000000", "999999", 2)).containsExactly("1970-01-01T00:00:00Z");
        assertThat(split(KeyType.TIMESTAMPTZ, "-210866803200000000.000000", "9224318015999999999.000000", 2))
                .containsExactly("144782-06-14T00:00:00Z");
        BigDecimal all = new BigDecimal(BigInteger.ONE.shiftLeft(128).subtract(BigInteger.ONE));
        assertThat(KeyType.UUID.split(BigDecimal.ZERO, all, 4))
                .containsExactly(
                        "40000000-0000-0000-0000-000000000000",
                        "80000000-0000-0000-0000-000000000000",
                        "c0000000-0000-0000-0000-000000000000");
        assertThat(KeyType.UUID.parse("ffffffff-ffff-ffff-ffff-ffffffffffff")).isEqualTo(all);
    }

    /** The numbers of ends that each type can have. */
    private static BigDecimal random(KeyType type, Random random) {
        return switch (type) {
            case SMALLINT -> BigDecimal.valueOf((short) random.nextInt());
            case INTEGER -> BigDecimal.valueOf(random.nextInt());
            case BIGINT -> BigDecimal.valueOf(random.nextLong() >> random.nextInt(64));
            case NUMERIC -> new BigDecimal(new BigInteger(random.nextInt(200), random), random.nextInt(80) - 40);
            case REAL -> new BigDecimal(Float.toString(finite(random).floatValue()));
            case DOUBLE -> new BigDecimal(Double.toString(finite(random)));
            case DATE -> BigDecimal.valueOf(random.nextInt(5_000_000) - 2_440_588);
            case TIMESTAMP, TIMESTAMPTZ -> BigDecimal.valueOf(random.nextLong() >> 6 + random.nextInt(50));
            case UUID -> new BigDecimal(new BigInteger(random.nextInt(129), random));
        };
    }

    private static Double finite(Random random) {
        double number = Float.intBitsToFloat(random.nextInt());
        return Double.isFinite(number) ? number : 1.0;
    }

    /** The number that a split's text stands for. */
    private static BigDecimal number(KeyType type, String split) {
        return switch (type) {
            case DATE, TIMESTAMP, TIMESTAMPTZ -> throw new IllegalArgumentException();
            default -> type.parse(split);
        };
    }

    @ParameterizedTest
    @EnumSource
    void splitsAscendFromTheLeastAndAreNeverTooMany(KeyType type) {
        Random random = new Random(SEED);
        boolean comparable = type != KeyType.DATE && type != KeyType.TIMESTAMP && type != KeyType.TIMESTAMPTZ;
        for (int i = 0; i < 2_000; i++) {
            BigDecimal a = random(type, random);
            BigDecimal b = random(type, random);
            int ranges = 1 + random.nextInt(40);
            List<String> splits = type.split(a.min(b), a.max(b), ranges);
            String shown = "seed " + SEED + ": " + type + " from " + a.min(b) + " to " + a.max(b) + " in " + ranges;
            assertThat(splits).as(shown).hasSizeLessThan(ranges).doesNotHaveDuplicates();
            if (comparable) {
                List<BigDecimal> numbers = new ArrayList<>(List.of(a.min(b)));
                splits.forEach(split -> numbers.add(number(type, split)));
                assertThat(IntStream.range(1, numbers.size())
                                .allMatch(n -> numbers.get(n - 1).compareTo(numbers.get(n)) < 0))
                        .as(shown)
                        .isTrue();
            }
        }
    }

    @Test
    void otherTypesAreRefused() {
        assertThatIllegalArgumentException()
                .isThrownBy(() -> KeyType.of("text"))
                .withMessageContaining("text");
    }
}
