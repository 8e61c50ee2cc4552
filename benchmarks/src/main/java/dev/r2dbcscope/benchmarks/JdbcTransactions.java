package dev.r2dbcscope.benchmarks;

import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.concurrent.Executors;

/** Transactions of JDBC, without auto-commit. */
final class JdbcTransactions implements TransactionSide {

    private static final String INSERT = Entries.INSERT.replaceAll("\\$\\d", "?");

    private final HikariDataSource pool;

    JdbcTransactions(int port) {
        pool = Jdbc.pool(port, 1, false);
    }

    @Override
    public String name() {
        return "JDBC";
    }

    @Override
    public ClosedLoop transactions(int statements) {
        return new ThreadLoop(() -> transaction(statements), Executors::newCachedThreadPool);
    }

    private Long transaction(int statements) throws SQLException {
        long id = Entries.nextId();
        try (Connection connection = pool.getConnection()) {
            int inserted = 0;
            for (int line = 1; line <= statements; line++) {
                inserted += insert(connection, id, line);
            }
            Entries.require(statements, inserted);
            connection.commit();
            return id;
        }
    }

    private static int insert(Connection connection, long id, int line) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
            statement.setLong(1, id);
            statement.setInt(2, line);
            statement.setString(3, "line " + line);
            return statement.executeUpdate();
        }
    }

    @Override
    public void close() {
        pool.close();
    }
}
