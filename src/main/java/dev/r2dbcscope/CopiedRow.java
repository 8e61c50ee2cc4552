package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import java.util.NoSuchElementException;
import org.jspecify.annotations.Nullable;

/**
 * The values of a row in the driver's default types, for drivers whose rows are valid only while they are delivered.
 *
 * <p>It can give a value as its default type, one of its supertypes, or as a string.
 */
final class CopiedRow implements Row, Result.RowSegment {

    private final RowMetadata metadata;
    private final @Nullable Object[] values;

    private CopiedRow(Row row) {
        this.metadata = row.getMetadata();
        this.values = new @Nullable Object[metadata.getColumnMetadatas().size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = row.get(i);
        }
    }

    /** Copies a row; other segments are values and stay as they are. */
    static Result.Segment copy(Result.Segment segment) {
        return segment instanceof Result.RowSegment rowSegment ? new CopiedRow(rowSegment.row()) : segment;
    }

    @Override
    public Row row() {
        return this;
    }

    @Override
    public RowMetadata getMetadata() {
        return metadata;
    }

    @Override
    public <T> @Nullable T get(int index, Class<T> type) {
        Object value = values[index];
        if (value == null) {
            return null;
        }
        if (type.isInstance(value)) {
            return type.cast(value);
        }
        if (type == String.class) {
            return type.cast(value.toString());
        }
        throw new IllegalArgumentException("Column " + index + " was read ahead as "
                + value.getClass().getName() + " and cannot be given as " + type.getName()
                + "; subscribe to the Result when it is emitted");
    }

    @Override
    public <T> @Nullable T get(String name, Class<T> type) {
        for (int i = 0; i < values.length; i++) {
            if (metadata.getColumnMetadata(i).getName().equalsIgnoreCase(name)) {
                return get(i, type);
            }
        }
        throw new NoSuchElementException("There is no column named '" + name + "'");
    }
}
