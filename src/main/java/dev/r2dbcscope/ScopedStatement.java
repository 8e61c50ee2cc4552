package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import org.reactivestreams.Publisher;

/** A statement whose executions pass the scope's gate. */
final class ScopedStatement implements Statement {

    private final Scope scope;
    private final Statement delegate;
    private final String sql;
    private boolean hasManyBindings;

    ScopedStatement(Scope scope, Statement delegate, String sql) {
        this.scope = scope;
        this.delegate = delegate;
        this.sql = sql;
    }

    @Override
    public Statement add() {
        delegate.add();
        hasManyBindings = true;
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
    public Publisher<? extends Result> execute() {
        scope.requireOpen();
        return new ExecuteFlux(scope, sql, hasManyBindings, delegate.execute());
    }

    @Override
    public String toString() {
        return "ScopedStatement[" + sql + "]";
    }
}
