package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.Cursors;
import io.r2dbc.spi.Connection;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/**
 * Cursors by {@code DECLARE} and {@code FETCH}.
 *
 * <p>{@code FETCH} is sent by the simple protocol, whose statements the driver pipelines: it need not wait for the page before
 * it. That protocol transfers text, except for a {@code BINARY} cursor; so the cursor is one if the connection transfers
 * binary values otherwise ({@link BinaryTransfer}).
 */
final class PostgresqlCursors implements Cursors {

    static final PostgresqlCursors INSTANCE = new PostgresqlCursors();

    private PostgresqlCursors() {}

    @Override
    public boolean canRead(String sql, boolean holdable) {
        return CursorQueries.canRead(sql, holdable);
    }

    @Override
    public @Nullable Publisher<Void> prepare(Connection connection) {
        return BinaryTransfer.isKnown(connection) ? null : BinaryTransfer.find(connection);
    }

    @Override
    public String open(Connection connection, String name, String sql, boolean holdable) {
        return "declare " + name + (BinaryTransfer.of(connection) ? " binary" : "") + " no scroll cursor"
                + (holdable ? " with hold" : "") + " for " + CursorQueries.withoutSemicolon(sql);
    }

    @Override
    public String fetch(String name, int rows) {
        return "fetch forward " + rows + " from " + name;
    }

    @Override
    public String close(String name) {
        return "close " + name;
    }

    @Override
    public String closeAll() {
        return "close all";
    }
}
