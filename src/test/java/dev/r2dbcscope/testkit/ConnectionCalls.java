package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import java.time.Duration;
import java.util.List;
import java.util.function.Function;
import org.reactivestreams.Publisher;

/** The calls of a connection that lead to the database. */
final class ConnectionCalls {

    static final List<Function<Connection, Publisher<?>>> ALL = List.of(
            connection -> connection.createStatement("select 1").execute(),
            connection -> connection.createBatch().add("select 1").execute(),
            Connection::beginTransaction,
            connection -> connection.beginTransaction(IsolationLevel.SERIALIZABLE),
            Connection::commitTransaction,
            Connection::rollbackTransaction,
            connection -> connection.createSavepoint("s"),
            connection -> connection.releaseSavepoint("s"),
            connection -> connection.rollbackTransactionToSavepoint("s"),
            connection -> connection.setAutoCommit(false),
            connection -> connection.setTransactionIsolationLevel(IsolationLevel.SERIALIZABLE),
            connection -> connection.setLockWaitTimeout(Duration.ofSeconds(1)),
            connection -> connection.setStatementTimeout(Duration.ofSeconds(1)));

    private ConnectionCalls() {}
}
