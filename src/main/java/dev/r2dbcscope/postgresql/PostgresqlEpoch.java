package dev.r2dbcscope.postgresql;

import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;

/**
 * Dates and times as PostgreSQL counts them: days and microseconds since 2000-01-01, in the proleptic Gregorian calendar,
 * which is Java's, too.
 */
final class PostgresqlEpoch {

    static final long MICROS_PER_DAY = 86_400_000_000L;
    static final int EPOCH_DAY = 10_957;

    static final int INFINITE_DATE = Integer.MAX_VALUE;
    static final int MINUS_INFINITE_DATE = Integer.MIN_VALUE;
    static final long INFINITE_TIMESTAMP = Long.MAX_VALUE;
    static final long MINUS_INFINITE_TIMESTAMP = Long.MIN_VALUE;

    /** 4714-11-24 BC, the first day of both types. */
    private static final long FIRST_DAY = -2_451_545;

    /** The day after 5874897-12-31. */
    private static final long END_OF_DATES = 2_145_031_949;

    /** 294277-01-01. */
    private static final long END_OF_TIMESTAMPS = 9_223_371_331_200_000_000L;

    private static final Instant LATEST_OFFSET = OffsetDateTime.MAX.toInstant();
    private static final Instant EARLIEST_OFFSET = OffsetDateTime.MIN.toInstant();

    private PostgresqlEpoch() {}

    /** The value cannot be stored. */
    static final class OutOfRange extends RuntimeException {

        private static final long serialVersionUID = 1L;

        OutOfRange(String problem) {
            super(problem, null, false, false);
        }
    }

    static int days(LocalDate date) {
        if (date.equals(LocalDate.MAX)) {
            return INFINITE_DATE;
        }
        if (date.equals(LocalDate.MIN)) {
            return MINUS_INFINITE_DATE;
        }
        long days = date.toEpochDay() - EPOCH_DAY;
        if (days < FIRST_DAY || days >= END_OF_DATES) {
            throw new OutOfRange("the date is outside PostgreSQL's range of 4714-11-24 BC to 5874897-12-31");
        }
        return (int) days;
    }

    static long micros(LocalDateTime timestamp) {
        if (timestamp.equals(LocalDateTime.MAX)) {
            return INFINITE_TIMESTAMP;
        }
        if (timestamp.equals(LocalDateTime.MIN)) {
            return MINUS_INFINITE_TIMESTAMP;
        }
        return timestamp(
                timestamp.toLocalDate().toEpochDay(), timestamp.toLocalTime().toSecondOfDay(), timestamp.getNano());
    }

    static long micros(OffsetDateTime timestamp) {
        if (timestamp.equals(OffsetDateTime.MAX)) {
            return INFINITE_TIMESTAMP;
        }
        if (timestamp.equals(OffsetDateTime.MIN)) {
            return MINUS_INFINITE_TIMESTAMP;
        }
        return fromEpoch(timestamp.toEpochSecond(), timestamp.getNano());
    }

    static long micros(Instant instant) {
        if (instant.equals(Instant.MAX) || instant.equals(LATEST_OFFSET)) {
            return INFINITE_TIMESTAMP;
        }
        if (instant.equals(Instant.MIN) || instant.equals(EARLIEST_OFFSET)) {
            return MINUS_INFINITE_TIMESTAMP;
        }
        return fromEpoch(instant.getEpochSecond(), instant.getNano());
    }

    static long micros(LocalTime time) {
        return time.toSecondOfDay() * 1_000_000L + rounded(time.getNano());
    }

    private static long fromEpoch(long second, int nano) {
        return timestamp(Math.floorDiv(second, 86_400), Math.floorMod(second, 86_400), nano);
    }

    private static long timestamp(long epochDay, int secondOfDay, int nano) {
        long days = epochDay - EPOCH_DAY;
        if (days >= FIRST_DAY && days < END_OF_TIMESTAMPS / MICROS_PER_DAY) {
            long micros = days * MICROS_PER_DAY + secondOfDay * 1_000_000L + rounded(nano);
            if (micros < END_OF_TIMESTAMPS) {
                return micros;
            }
        }
        throw new OutOfRange("the timestamp is outside PostgreSQL's range of 4714-11-24 BC to 294276-12-31");
    }

    /** An amount of nanoseconds. */
    static long micros(long nanos) {
        return Math.floorDiv(nanos, 1_000_000_000L) * 1_000_000 + rounded((int) Math.floorMod(nanos, 1_000_000_000L));
    }

    /** As the server rounds what it reads as text, so that a value is the same however it was written. */
    static int rounded(int nano) {
        int micro = nano / 1000;
        return nano == micro * 1000 ? micro : (int) Math.rint(nano / 1e9 * 1e6);
    }
}
