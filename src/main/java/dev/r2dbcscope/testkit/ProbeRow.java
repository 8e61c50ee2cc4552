package dev.r2dbcscope.testkit;

import io.r2dbc.spi.ColumnMetadata;
import io.r2dbc.spi.R2dbcType;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Type;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import org.jspecify.annotations.Nullable;

/** A row: values by column, in order. A single value is a row with the one column {@code value}. */
record ProbeRow(List<Column> columns) implements Row, RowMetadata {

    /** A column and its value in this row. */
    record Column(String name, @Nullable Object value) implements ColumnMetadata {

        @Override
        public String getName() {
            return name;
        }

        @Override
        public Type getType() {
            for (R2dbcType type : R2dbcType.values()) {
                if (value != null && type.getJavaType() == value.getClass()) {
                    return type;
                }
            }
            return R2dbcType.VARCHAR;
        }
    }

    static ProbeRow of(Object value) {
        if (value instanceof Map<?, ?> row) {
            List<Column> columns = new ArrayList<>();
            row.forEach((name, content) -> columns.add(new Column(String.valueOf(name), content)));
            return new ProbeRow(columns);
        }
        return new ProbeRow(List.of(new Column("value", value)));
    }

    @Override
    public RowMetadata getMetadata() {
        return this;
    }

    @Override
    public <T> @Nullable T get(int index, Class<T> type) {
        return convert(getColumnMetadata(index), type);
    }

    @Override
    public <T> @Nullable T get(String name, Class<T> type) {
        return convert(getColumnMetadata(name), type);
    }

    private static <T> @Nullable T convert(Column column, Class<T> type) {
        Object value = column.value;
        if (value == null) {
            return null;
        }
        if (type.isInstance(value)) {
            return type.cast(value);
        }
        if (value instanceof Number number) {
            if (type == Long.class) {
                return type.cast(number.longValue());
            }
            if (type == Integer.class) {
                return type.cast(Math.toIntExact(number.longValue()));
            }
        }
        if (type == String.class) {
            return type.cast(value.toString());
        }
        throw new IllegalArgumentException("Column " + column.name + " is a "
                + value.getClass().getSimpleName() + " and cannot be read as " + type.getSimpleName());
    }

    @Override
    public Column getColumnMetadata(int index) {
        return columns.get(index);
    }

    @Override
    public Column getColumnMetadata(String name) {
        for (Column column : columns) {
            if (column.name.equalsIgnoreCase(name)) {
                return column;
            }
        }
        throw new NoSuchElementException("There is no column " + name);
    }

    @Override
    public List<Column> getColumnMetadatas() {
        return columns;
    }

    @Override
    public boolean contains(String name) {
        return columns.stream().anyMatch(column -> column.name.equalsIgnoreCase(name));
    }
}
