package dev.r2dbcscope.postgresql;

import java.math.BigDecimal;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.temporal.TemporalAmount;
import java.util.List;
import java.util.Objects;
import java.util.UUID;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * A type of PostgreSQL, and how values of a Java type are written as it.
 *
 * <p>In {@link CopyFormat#BINARY} a column must have this very type, or a domain over it, and an array elements of this very
 * type; {@link #TEXT} and {@link #VARCHAR} are good for all types that are text to the server: {@code char(n)}, enums,
 * {@code citext}, {@code xml}. In {@link CopyFormat#TEXT} a column may have any type that
 * can be read from what is written. The methods of {@link CopyRow} say which values each type can store.
 *
 * <p>Immutable and thread-safe.
 *
 * @param <V> the Java type of the values
 */
public final class CopyType<V> {

    /** {@code smallint}. */
    public static final CopyType<Short> SMALLINT =
            new CopyType<>("smallint", ColumnTypes.SMALLINT, CopyRow::writeShort);

    /** {@code integer}. */
    public static final CopyType<Integer> INTEGER = new CopyType<>("integer", ColumnTypes.INTEGER, CopyRow::writeInt);

    /** {@code bigint}. */
    public static final CopyType<Long> BIGINT = new CopyType<>("bigint", ColumnTypes.BIGINT, CopyRow::writeLong);

    /** {@code real}. */
    public static final CopyType<Float> REAL = new CopyType<>("real", ColumnTypes.REAL, CopyRow::writeFloat);

    /** {@code double precision}. */
    public static final CopyType<Double> DOUBLE_PRECISION =
            new CopyType<>("double precision", ColumnTypes.DOUBLE_PRECISION, CopyRow::writeDouble);

    /** {@code numeric}. */
    public static final CopyType<BigDecimal> NUMERIC =
            new CopyType<>("numeric", ColumnTypes.NUMERIC, CopyRow::writeNumeric);

    /** {@code text}. */
    public static final CopyType<String> TEXT = new CopyType<>("text", ColumnTypes.TEXT, CopyRow::writeText);

    /** {@code varchar}, with or without a length; differs from {@link #TEXT} in arrays only. */
    public static final CopyType<String> VARCHAR = new CopyType<>("varchar", ColumnTypes.VARCHAR, CopyRow::writeText);

    /** {@code boolean}. */
    public static final CopyType<Boolean> BOOLEAN =
            new CopyType<>("boolean", ColumnTypes.BOOLEAN, CopyRow::writeBoolean);

    /** {@code bytea}. */
    public static final CopyType<byte[]> BYTEA = new CopyType<>("bytea", ColumnTypes.BYTEA, CopyRow::writeBytes);

    /** {@code uuid}. */
    public static final CopyType<UUID> UUID = new CopyType<>("uuid", ColumnTypes.UUID, CopyRow::writeUuid);

    /** {@code date}. */
    public static final CopyType<LocalDate> DATE = new CopyType<>("date", ColumnTypes.DATE, CopyRow::writeDate);

    /** {@code time} without time zone. */
    public static final CopyType<LocalTime> TIME = new CopyType<>("time", ColumnTypes.TIME, CopyRow::writeTime);

    /** {@code timestamp} without time zone. */
    public static final CopyType<LocalDateTime> TIMESTAMP =
            new CopyType<>("timestamp", ColumnTypes.TIMESTAMP, CopyRow::writeTimestamp);

    /** {@code timestamp with time zone}, from a time with an offset. */
    public static final CopyType<OffsetDateTime> TIMESTAMPTZ =
            new CopyType<>("timestamptz", ColumnTypes.TIMESTAMPTZ, (row, value) -> row.writeTimestampTz(value));

    /** {@code timestamp with time zone}, from an instant. */
    public static final CopyType<Instant> INSTANT =
            new CopyType<>("timestamptz", ColumnTypes.TIMESTAMPTZ, (row, value) -> row.writeTimestampTz(value));

    /** {@code interval}. */
    public static final CopyType<TemporalAmount> INTERVAL =
            new CopyType<>("interval", ColumnTypes.INTERVAL, CopyRow::writeInterval);

    /** {@code json}. */
    public static final CopyType<String> JSON = new CopyType<>("json", ColumnTypes.JSON, CopyRow::writeJson);

    /** {@code jsonb}. */
    public static final CopyType<String> JSONB = new CopyType<>("jsonb", ColumnTypes.JSONB, CopyRow::writeJsonb);

    private static final List<CopyType<?>> ALL = List.of(
            SMALLINT,
            INTEGER,
            BIGINT,
            REAL,
            DOUBLE_PRECISION,
            NUMERIC,
            TEXT,
            VARCHAR,
            BOOLEAN,
            BYTEA,
            UUID,
            DATE,
            TIME,
            TIMESTAMP,
            TIMESTAMPTZ,
            INTERVAL,
            JSON,
            JSONB);

    private static final int NO_OID = 0;

    private final String name;
    private final int oid;
    private final Writer<? super V> writer;

    private interface Writer<V> {
        void write(CopyRow row, V value);
    }

    private CopyType(String name, int oid, Writer<? super V> writer) {
        this.name = name;
        this.oid = oid;
        this.writer = writer;
    }

    /**
     * Returns the type of arrays of this one, with one dimension. Elements may be {@code null}; {@code Arrays.asList} makes a
     * list of a Java array.
     *
     * @return the type of the arrays
     * @throws IllegalStateException if this is the type of arrays itself
     */
    public CopyType<List<? extends @Nullable V>> array() {
        if (oid == NO_OID) {
            throw new IllegalStateException("Arrays with more than one dimension are not supported: " + name + "[]");
        }
        return new CopyType<>(name + "[]", NO_OID, (row, elements) -> row.writeArray(this, elements));
    }

    /**
     * Returns this type for values of another Java type: {@code CopyType.TEXT.from(Status::name)}.
     *
     * @param conversion makes a value of this type from another; not called for {@code null}
     * @param <U> the other type
     * @return the type for these values
     */
    public <U> CopyType<U> from(Function<? super U, ? extends @Nullable V> conversion) {
        Objects.requireNonNull(conversion, "conversion");
        return new CopyType<>(name, oid, (row, value) -> row.write(this, conversion.apply(value)));
    }

    /**
     * Returns the name of the type in SQL.
     *
     * @return the name
     */
    public String sqlName() {
        return name;
    }

    int oid() {
        return oid;
    }

    /** The type of that OID, if it is one of these. */
    static @Nullable CopyType<?> ofOid(long oid) {
        return ALL.stream().filter(type -> type.oid == oid).findFirst().orElse(null);
    }

    void write(CopyRow row, V value) {
        writer.write(row, value);
    }

    @Override
    public String toString() {
        return "CopyType[" + name + "]";
    }
}
