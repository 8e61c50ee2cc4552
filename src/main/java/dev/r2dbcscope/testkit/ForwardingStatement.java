package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import org.reactivestreams.Publisher;

/** The driver's statement, but for its execution. */
final class ForwardingStatement implements Statement {

    private final Statement delegate;
    private final String sql;
    private final Execution execution;

    ForwardingStatement(Statement delegate, String sql, Execution execution) {
        this.delegate = delegate;
        this.sql = sql;
        this.execution = execution;
    }

    @Override
    public Publisher<? extends Result> execute() {
        return execution.of(sql, delegate.execute());
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
    public String toString() {
        return "Statement[" + sql + "]";
    }
}
