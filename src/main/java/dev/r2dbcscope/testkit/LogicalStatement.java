package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import reactor.core.publisher.Flux;

/** A statement of a logical connection. */
final class LogicalStatement implements Statement {

    private final LogicalConnection connection;
    private final Statement delegate;
    private final String sql;

    LogicalStatement(LogicalConnection connection, Statement delegate, String sql) {
        this.connection = connection;
        this.delegate = delegate;
        this.sql = sql;
    }

    @Override
    public Statement add() {
        delegate.add();
        return this;
    }

    @Override
    public Statement bind(int index, Object value) {
        delegate.bind(index, value);
        return this;
    }

    @Override
    public Statement bind(String name, Object value) {
        delegate.bind(name, value);
        return this;
    }

    @Override
    public Statement bindNull(int index, Class<?> type) {
        delegate.bindNull(index, type);
        return this;
    }

    @Override
    public Statement bindNull(String name, Class<?> type) {
        delegate.bindNull(name, type);
        return this;
    }

    @Override
    public Statement returnGeneratedValues(String... columns) {
        delegate.returnGeneratedValues(columns);
        return this;
    }

    @Override
    public Statement fetchSize(int rows) {
        delegate.fetchSize(rows);
        return this;
    }

    @Override
    public Flux<Result> execute() {
        return connection.execute(sql, delegate.execute());
    }

    @Override
    public String toString() {
        return "LogicalStatement[" + sql + "]";
    }
}
