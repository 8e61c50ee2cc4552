package dev.r2dbcscope.benchmarks;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.time.OffsetDateTime;

/** Reads by pgjdbc. Without a fetch size it keeps all rows before it gives out the first one. */
record PgjdbcReader(Connection connection, int fetchSize) implements RowReader {

    /** Asks for binary values from the first execution on. */
    static final String BINARY = "&prepareThreshold=-1";

    @Override
    public void read(int rows, RowTally tally) throws Exception {
        connection.setAutoCommit(fetchSize == 0);
        try (PreparedStatement select = connection.prepareStatement(OrderTable.SELECT.replace("$1", "?"))) {
            select.setLong(1, rows);
            select.setFetchSize(fetchSize);
            try (ResultSet result = select.executeQuery()) {
                while (result.next()) {
                    tally.row(
                            result.getLong(1),
                            result.getInt(2),
                            result.getString(3),
                            result.getObject(4, OffsetDateTime.class).toInstant(),
                            result.getDouble(5));
                }
            }
        } finally {
            connection.setAutoCommit(true);
        }
    }
}
