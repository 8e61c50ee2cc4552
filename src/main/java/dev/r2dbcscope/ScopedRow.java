package dev.r2dbcscope;

import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import org.jspecify.annotations.Nullable;

/** A row that fails once the scope it came from has ended, instead of reading memory that belongs to somebody else. */
final class ScopedRow implements Row {

    private final Row row;
    private final Scope scope;

    ScopedRow(Row row, Scope scope) {
        this.row = row;
        this.scope = scope;
    }

    @Override
    public RowMetadata getMetadata() {
        return row.getMetadata();
    }

    @Override
    public @Nullable Object get(int index) {
        scope.requireReadable();
        return row.get(index);
    }

    @Override
    public <T> @Nullable T get(int index, Class<T> type) {
        scope.requireReadable();
        return row.get(index, type);
    }

    @Override
    public @Nullable Object get(String name) {
        scope.requireReadable();
        return row.get(name);
    }

    @Override
    public <T> @Nullable T get(String name, Class<T> type) {
        scope.requireReadable();
        return row.get(name, type);
    }
}
