package dev.r2dbcscope;

import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.Duration;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.Period;
import java.time.ZoneOffset;
import java.time.temporal.TemporalAmount;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.UUID;
import java.util.function.Supplier;

/** A row with a column of every type that COPY can write, made of a seed and its number alone. */
record RandomRow(
        int id,
        Short small,
        Integer integer,
        Long big,
        Float real,
        Double precise,
        BigDecimal exact,
        String text,
        Boolean flag,
        UUID uuid,
        LocalDate date,
        LocalTime time,
        LocalDateTime timestamp,
        OffsetDateTime zoned,
        TemporalAmount interval,
        byte[] bytes,
        String json,
        String jsonb,
        List<Integer> integers,
        List<String> texts,
        List<BigDecimal> numbers,
        List<byte[]> blobs,
        List<OffsetDateTime> instants) {

    private static final String MEANINGFUL = "\\\"{},.N\t\n\r\b\f\u000b'$:;/ \u007f\u0085\u00a0\u2028\ufeff\uffff";

    static final String TABLE = "id int primary key, small smallint, integer int, big bigint, \"real\" real,"
            + " precise double precision, exact numeric, text text, flag boolean, uuid uuid, date date, time time,"
            + " timestamp timestamp, zoned timestamptz, \"interval\" interval, bytes bytea, json json, jsonb jsonb,"
            + " integers int[], texts text[], numbers numeric[], blobs bytea[], instants timestamptz[]";

    static CopyIn<RandomRow> into(String table) {
        return CopyIn.<RandomRow>into(table)
                .column("id", CopyType.INTEGER, RandomRow::id)
                .column("small", CopyType.SMALLINT, RandomRow::small)
                .column("integer", CopyType.INTEGER, RandomRow::integer)
                .column("big", CopyType.BIGINT, RandomRow::big)
                .column("real", CopyType.REAL, RandomRow::real)
                .column("precise", CopyType.DOUBLE_PRECISION, RandomRow::precise)
                .column("exact", CopyType.NUMERIC, RandomRow::exact)
                .column("text", CopyType.TEXT, RandomRow::text)
                .column("flag", CopyType.BOOLEAN, RandomRow::flag)
                .column("uuid", CopyType.UUID, RandomRow::uuid)
                .column("date", CopyType.DATE, RandomRow::date)
                .column("time", CopyType.TIME, RandomRow::time)
                .column("timestamp", CopyType.TIMESTAMP, RandomRow::timestamp)
                .column("zoned", CopyType.TIMESTAMPTZ, RandomRow::zoned)
                .column("interval", CopyType.INTERVAL, RandomRow::interval)
                .column("bytes", CopyType.BYTEA, RandomRow::bytes)
                .column("json", CopyType.JSON, RandomRow::json)
                .column("jsonb", CopyType.JSONB, RandomRow::jsonb)
                .column("integers", CopyType.INTEGER.array(), RandomRow::integers)
                .column("texts", CopyType.TEXT.array(), RandomRow::texts)
                .column("numbers", CopyType.NUMERIC.array(), RandomRow::numbers)
                .column("blobs", CopyType.BYTEA.array(), RandomRow::blobs)
                .column(
                        "instants",
                        CopyType.INSTANT
                                .<OffsetDateTime>from(OffsetDateTime::toInstant)
                                .array(),
                        RandomRow::instants);
    }

    static RandomRow of(long seed, int id) {
        Random random = new Random(seed * 31 + id);
        random.nextInt();
        Source from = new Source(random);
        String inJson = from.text();
        return new RandomRow(
                id,
                from.orNull(() -> (short) from.number(Short.SIZE)),
                from.orNull(() -> (int) from.number(Integer.SIZE)),
                from.orNull(() -> from.number(Long.SIZE)),
                from.orNull(() -> Float.intBitsToFloat((int) from.bits(Integer.SIZE))),
                from.orNull(() -> Double.longBitsToDouble(from.bits(Long.SIZE))),
                from.orNull(from::numeric),
                from.orNull(from::text),
                from.orNull(random::nextBoolean),
                from.orNull(() -> new UUID(random.nextLong(), random.nextLong())),
                from.orNull(from::date),
                from.orNull(from::time),
                from.orNull(from::timestamp),
                from.orNull(() -> from.zoned()),
                from.orNull(from::interval),
                from.orNull(from::bytes),
                from.orNull(() -> "{ \"k\": [" + random.nextInt() + ", " + quoted(inJson) + "] }"),
                from.orNull(() -> "{\"k\": " + quoted(inJson) + "}"),
                from.orNull(() -> from.list(() -> (int) from.number(Integer.SIZE))),
                from.orNull(() -> from.list(from::text)),
                from.orNull(() -> from.list(from::numeric)),
                from.orNull(() -> from.list(from::bytes)),
                from.orNull(() -> from.list(from::finiteZoned)));
    }

    private static String quoted(String text) {
        StringBuilder json = new StringBuilder("\"");
        text.chars().forEach(c -> {
            if (c < 0x20 || c == '"' || c == '\\') {
                json.append(String.format("\\u%04x", c));
            } else {
                json.append((char) c);
            }
        });
        return json.append('"').toString();
    }

    private record Source(Random random) {

        private static final long FIRST_SECOND = -210_866_803_200L;
        private static final long LAST_SECOND = 9_224_318_015_999L - 86_400;

        <V> V orNull(Supplier<V> value) {
            return random.nextInt(8) == 0 ? null : value.get();
        }

        boolean rarely(int in) {
            return random.nextInt(in) == 0;
        }

        /** Every length of number, and the extremes. */
        long number(int size) {
            return switch (random.nextInt(8)) {
                case 0 -> -1L << size - 1;
                case 1 -> (1L << size - 1) - 1;
                case 2 -> random.nextInt(3) - 1;
                default -> bits(size) >> random.nextInt(size);
            };
        }

        long bits(int size) {
            return rarely(16) ? 0 : random.nextLong() >> Long.SIZE - size;
        }

        String text() {
            int length = rarely(5000) ? random.nextInt(100_000) : random.nextInt(1 + random.nextInt(40));
            StringBuilder text = new StringBuilder();
            for (int i = 0; i < length; i++) {
                switch (random.nextInt(6)) {
                    case 0 -> text.appendCodePoint(scalar());
                    case 1 -> text.append(MEANINGFUL.charAt(random.nextInt(MEANINGFUL.length())));
                    case 2 -> text.append((char) (1 + random.nextInt(0x7f)));
                    case 3 ->
                        text.append(List.of("\\N", "\\.", "NULL", "\\x", "\"\"", "\\\\")
                                .get(random.nextInt(6)));
                    default -> text.append((char) ('a' + random.nextInt(26)));
                }
            }
            return text.toString();
        }

        private int scalar() {
            int scalar = 1 + random.nextInt(Character.MAX_CODE_POINT);
            return scalar >= Character.MIN_SURROGATE && scalar <= Character.MAX_SURROGATE
                    ? scalar & 0x7fff | 1
                    : scalar;
        }

        BigDecimal numeric() {
            if (rarely(1000)) {
                return new BigDecimal(new BigInteger(random.nextInt(6000), random), random.nextInt(4000) - 2000);
            }
            BigInteger unscaled = new BigInteger(random.nextInt(200), random);
            return new BigDecimal(random.nextBoolean() ? unscaled : unscaled.negate(), random.nextInt(120) - 50);
        }

        LocalDate date() {
            return switch (random.nextInt(12)) {
                case 0 -> LocalDate.MAX;
                case 1 -> LocalDate.MIN;
                case 2 -> LocalDate.of(-4713, 11, 24);
                case 3 -> LocalDate.of(5874897, 12, 31);
                case 4 -> LocalDate.of(random.nextInt(5) - 2, 1 + random.nextInt(12), 1 + random.nextInt(28));
                case 5, 6, 7 -> LocalDate.ofEpochDay(random.nextInt(80_000) - 40_000);
                default -> LocalDate.ofEpochDay(random.nextLong(-2_440_588, 2_145_042_905L));
            };
        }

        LocalTime time() {
            return rarely(10)
                    ? LocalTime.MAX
                    : LocalTime.of(random.nextInt(24), random.nextInt(60), random.nextInt(60), nano());
        }

        int nano() {
            return switch (random.nextInt(4)) {
                case 0 -> 0;
                case 1 -> random.nextInt(1_000_000) * 1000;
                case 2 -> random.nextInt(2_000_000) * 500;
                default -> random.nextInt(1_000_000_000);
            };
        }

        private long second() {
            return switch (random.nextInt(8)) {
                case 0 -> FIRST_SECOND;
                case 1 -> LAST_SECOND;
                case 2, 3, 4 -> random.nextLong(-4_000_000_000L, 4_000_000_000L);
                default -> random.nextLong(FIRST_SECOND, LAST_SECOND);
            };
        }

        LocalDateTime timestamp() {
            return switch (random.nextInt(12)) {
                case 0 -> LocalDateTime.MAX;
                case 1 -> LocalDateTime.MIN;
                default -> LocalDateTime.ofEpochSecond(second(), nano(), ZoneOffset.UTC);
            };
        }

        OffsetDateTime zoned() {
            return switch (random.nextInt(12)) {
                case 0 -> OffsetDateTime.MAX;
                case 1 -> OffsetDateTime.MIN;
                default -> finiteZoned();
            };
        }

        OffsetDateTime finiteZoned() {
            ZoneOffset offset = ZoneOffset.ofTotalSeconds(random.nextInt(2 * 64_800) - 64_800);
            return LocalDateTime.ofEpochSecond(second(), nano(), ZoneOffset.UTC)
                    .atOffset(ZoneOffset.UTC)
                    .withOffsetSameInstant(offset);
        }

        TemporalAmount interval() {
            return random.nextBoolean()
                    ? Period.of(random.nextInt() / 16, random.nextInt(100) - 50, random.nextInt())
                    : Duration.ofSeconds(random.nextLong() / 2_000_000 >> random.nextInt(40), nano());
        }

        byte[] bytes() {
            byte[] bytes = new byte[rarely(5000) ? random.nextInt(100_000) : random.nextInt(20)];
            random.nextBytes(bytes);
            return bytes;
        }

        <V> List<V> list(Supplier<V> element) {
            List<V> list = new ArrayList<>();
            for (int i = random.nextInt(5); i > 0; i--) {
                list.add(orNull(element));
            }
            return list;
        }
    }
}
