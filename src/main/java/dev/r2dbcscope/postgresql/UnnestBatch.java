package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Statement;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The rows of one statement, already encoded, one array for each column.
 *
 * @param <T> a row
 */
final class UnnestBatch<T> {

    /** Far below what one message may hold, and large enough that the round trip does not count. */
    private static final long MAX_CHARACTERS = 4 << 20;

    /** How many times as many rows are asked for as are known, so that a few short ones do not lead to many long ones. */
    private static final int GROWTH = 16;

    private final UnnestWriter.Plan<T> plan;
    private final long firstRow;
    private final @Nullable Object[] values;
    private final ArrayLiteral[] columns;
    private final @Nullable Map<Object, Integer> keys;

    /** Where each element of each column begins, kept only where an element may have to be left out again. */
    private final int @Nullable [][] starts;

    private boolean @Nullable [] replaced;
    private int kept;
    private int rows;

    UnnestBatch(UnnestWriter.Plan<T> plan, long firstRow) {
        this.plan = plan;
        this.firstRow = firstRow;
        int width = plan.columns().size();
        this.values = new Object[width];
        this.columns = new ArrayLiteral[width];
        Arrays.setAll(columns, i -> new ArrayLiteral());
        this.keys = plan.keyColumns().length == 0 ? null : new HashMap<>();
        this.starts = keys != null && plan.duplicates() == Duplicates.KEEP_LAST ? new int[width][GROWTH] : null;
    }

    long firstRow() {
        return firstRow;
    }

    long lastRow() {
        return firstRow + rows - 1;
    }

    boolean isEmpty() {
        return rows == 0;
    }

    /** How many more rows there is room for, as far as that is known; 0 if it is full. */
    int room() {
        int left = plan.batchSize() - rows;
        if (rows == 0) {
            return 1;
        }
        long length = length();
        if (length >= MAX_CHARACTERS) {
            return 0;
        }
        long each = Math.max(1, length / rows);
        long fitting = Math.max(1, (MAX_CHARACTERS - length) / each);
        return (int) Math.min(left, Math.min(fitting, (long) GROWTH * rows));
    }

    private long length() {
        long length = 0;
        for (ArrayLiteral column : columns) {
            length += column.length();
        }
        return length;
    }

    /** Adds a row, or leaves it or an earlier one with the same key out. */
    void add(T row) {
        rows++;
        List<UnnestWriter.Column<T>> described = plan.columns();
        for (int i = 0; i < values.length; i++) {
            values[i] = described.get(i).value().apply(row);
        }
        if (keys != null && isReplacedByEarlier(keys)) {
            return;
        }
        for (int i = 0; i < values.length; i++) {
            if (starts != null) {
                note(starts, i);
            }
            encode(i);
        }
        kept++;
    }

    private void encode(int i) {
        try {
            columns[i].add(values[i]);
        } catch (IllegalArgumentException e) {
            throw BulkWriteException.ofRow(
                    plan.table(), lastRow(), plan.columns().get(i).name(), String.valueOf(e.getMessage()), null);
        }
    }

    private static void grow(int[][] starts, int i, int length) {
        if (length == starts[i].length) {
            starts[i] = Arrays.copyOf(starts[i], 2 * length);
        }
    }

    private void note(int[][] starts, int i) {
        grow(starts, i, kept);
        starts[i][kept] = columns[i].position();
    }

    private boolean isReplacedByEarlier(Map<Object, Integer> keys) {
        Object key = ConflictKey.of(values, plan.keyColumns());
        if (key == null) {
            return false;
        }
        return switch (plan.duplicates()) {
            case KEEP_FIRST -> keys.putIfAbsent(key, rows) != null;
            case KEEP_LAST -> {
                Integer earlier = keys.put(key, kept);
                if (earlier != null) {
                    replaced = replaced == null ? new boolean[plan.batchSize()] : replaced;
                    replaced[earlier] = true;
                }
                yield false;
            }
            case FAIL -> {
                Integer earlier = keys.putIfAbsent(key, rows);
                if (earlier != null) {
                    throw BulkWriteException.duplicate(plan.table(), firstRow + earlier - 1, lastRow());
                }
                yield false;
            }
        };
    }

    Statement bindTo(Statement statement) {
        for (int i = 0; i < columns.length; i++) {
            statement.bind(
                    i, starts == null || replaced == null ? columns[i].text() : columns[i].text(starts[i], replaced));
        }
        return statement;
    }
}
