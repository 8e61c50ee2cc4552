package dev.r2dbcscope.postgresql;

/**
 * Writes the columns of one row.
 *
 * <p>It is called once for each row, in order, never on two threads at once, on the thread that delivers the row or on the
 * connection's event loop, so it must not block. It may be used by several subscribers at once and must not keep the
 * {@link CopyRow}.
 *
 * @param <T> the type of the rows
 * @see CopyIn#columns(RowEncoder, String...)
 */
@FunctionalInterface
public interface RowEncoder<T> {

    /**
     * Writes every column of a row, in the order of the columns.
     *
     * @param row the row
     * @param columns takes the values
     */
    void encode(T row, CopyRow columns);
}
