package dev.r2dbcscope.benchmarks;

import io.r2dbc.spi.ColumnMetadata;
import io.r2dbc.spi.R2dbcType;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Type;
import java.util.List;

/** A row of one column, {@code id}, which is 1. */
final class NoopRow implements Row, RowMetadata, ColumnMetadata {

    static final NoopRow ONLY = new NoopRow();

    private static final Integer ONE = 1;

    private NoopRow() {}

    @Override
    public RowMetadata getMetadata() {
        return this;
    }

    @Override
    public <T> T get(int index, Class<T> type) {
        return type.cast(type == Long.class ? (Object) 1L : ONE);
    }

    @Override
    public <T> T get(String name, Class<T> type) {
        return get(0, type);
    }

    @Override
    public ColumnMetadata getColumnMetadata(int index) {
        return this;
    }

    @Override
    public ColumnMetadata getColumnMetadata(String name) {
        return this;
    }

    @Override
    public List<? extends ColumnMetadata> getColumnMetadatas() {
        return List.of(this);
    }

    @Override
    public boolean contains(String columnName) {
        return columnName.equals(getName());
    }

    @Override
    public String getName() {
        return "id";
    }

    @Override
    public Type getType() {
        return R2dbcType.INTEGER;
    }
}
