package dev.r2dbcscope.benchmarks;

import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/** Reads a row by its key with JDBC. */
final class JdbcSelect implements AutoCloseable {

    private final HikariDataSource pool;

    JdbcSelect(int port, int size) {
        pool = Jdbc.pool(port, size, true);
    }

    String select() throws SQLException {
        int id = Notes.anyId();
        try (Connection connection = pool.getConnection();
                PreparedStatement statement = connection.prepareStatement(Notes.SELECT.replace("$1", "?"))) {
            statement.setInt(1, id);
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? Notes.require(id, rows.getString(1)) : null;
            }
        }
    }

    @Override
    public void close() {
        pool.close();
    }
}
