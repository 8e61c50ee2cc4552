package dev.r2dbcscope.benchmarks;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.concurrent.atomic.AtomicLong;

/** The table into which transactions insert their lines, with a connection of its own on which they are counted. */
final class Entries implements AutoCloseable {

    static final String INSERT = "insert into entries (transaction, line, note) values ($1, $2, $3)";

    private static final AtomicLong LAST_ID = new AtomicLong();

    private final Connection connection;

    private Entries(Connection connection) {
        this.connection = connection;
    }

    static Entries create(Server server) throws SQLException {
        Entries entries = new Entries(DriverManager.getConnection(server.jdbcUrl()));
        entries.execute(
                "create table entries (transaction bigint, line int, note text," + " primary key (transaction, line))");
        return entries;
    }

    /** The key of a transaction that was not yet made. */
    static long nextId() {
        return LAST_ID.incrementAndGet();
    }

    /** How many lines were inserted, if it is as many as there should be. */
    static Long require(long expected, long actual) {
        if (actual != expected) {
            throw new IllegalStateException(actual + " rows instead of " + expected);
        }
        return actual;
    }

    void clear() throws SQLException {
        execute("truncate entries");
    }

    private void execute(String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    /** Throws if the rows in the table are not as many. */
    void requireCount(long expected) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet count = statement.executeQuery("select count(*) from entries")) {
            count.next();
            require(expected, count.getLong(1));
        }
    }

    @Override
    public void close() throws SQLException {
        connection.close();
    }
}
