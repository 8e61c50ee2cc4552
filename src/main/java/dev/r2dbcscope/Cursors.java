package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/**
 * How a database reads a query through a server-side cursor, page by page: part of a {@link Dialect}.
 *
 * <p>The names of cursors are made up by the scope: letters, digits and underscores, in lower case, unique among those that
 * are open on a connection, and used again.
 */
public interface Cursors {

    /**
     * Whether a statement can be read through a cursor. A wrong {@code true} makes the statement fail, and its transaction
     * with it; a wrong {@code false} has it run as the driver runs it.
     *
     * @param sql the statement, with parameters in the driver's notation
     * @param holdable whether the cursor is to be used outside a transaction
     * @return {@code true} if it is one query, which changes nothing by itself
     */
    boolean canRead(String sql, boolean holdable);

    /**
     * Finds out what {@link #open} must know of a connection, which is idle meanwhile.
     *
     * @param connection the connection as the factory delivered it
     * @return completes when it is known, or {@code null} if it is already
     */
    default @Nullable Publisher<Void> prepare(Connection connection) {
        return null;
    }

    /**
     * The statement that opens a cursor. Parameters of the query are bound to it as to the query itself.
     *
     * @param connection the connection as the factory delivered it
     * @param name the cursor's name
     * @param sql a query that {@linkplain #canRead can be read}
     * @param holdable whether the cursor is to be used outside a transaction
     * @return a statement without rows
     */
    String open(Connection connection, String name, String sql, boolean holdable);

    /**
     * The statement that reads the next rows.
     *
     * @param name the cursor's name
     * @param rows how many, positive
     * @return a statement with that many rows, or fewer at the end and none after it
     */
    String fetch(String name, int rows);

    /**
     * The statement that closes a cursor.
     *
     * @param name the cursor's name
     * @return a statement without rows
     */
    String close(String name);

    /**
     * The statement that closes all cursors of a connection, and does nothing if there are none.
     *
     * @return a statement without rows
     */
    String closeAll();
}
