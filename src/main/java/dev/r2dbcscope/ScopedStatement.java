package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/** A statement whose executions pass the scope's gate. */
final class ScopedStatement implements Statement {

    private final Scope scope;
    private final Statement delegate;
    private final String sql;
    private final @Nullable Bindings bindings;
    private boolean hasManyBindings;
    private boolean returnsGeneratedValues;
    private int fetchSize;

    ScopedStatement(Scope scope, Statement delegate, String sql) {
        this.scope = scope;
        this.delegate = delegate;
        this.sql = sql;
        this.bindings = scope.dialect().cursors() == null ? null : new Bindings();
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
        if (bindings != null) {
            bindings.add(index, value);
        }
        return this;
    }

    @Override
    public Statement bind(String name, Object value) {
        delegate.bind(name, value);
        if (bindings != null) {
            bindings.add(name, value);
        }
        return this;
    }

    @Override
    public Statement bindNull(int index, Class<?> type) {
        delegate.bindNull(index, type);
        if (bindings != null) {
            bindings.addNull(index, type);
        }
        return this;
    }

    @Override
    public Statement bindNull(String name, Class<?> type) {
        delegate.bindNull(name, type);
        if (bindings != null) {
            bindings.addNull(name, type);
        }
        return this;
    }

    @Override
    public Statement returnGeneratedValues(String... columns) {
        delegate.returnGeneratedValues(columns);
        returnsGeneratedValues = true;
        return this;
    }

    @Override
    public Statement fetchSize(int rows) {
        delegate.fetchSize(rows);
        fetchSize = rows;
        return this;
    }

    @Override
    public Publisher<? extends Result> execute() {
        scope.requireOpenFor(sql);
        Publisher<? extends Result> driver = delegate.execute();
        Cursors cursors = scope.dialect().cursors();
        boolean pages = fetchSize > 0 && !hasManyBindings && !returnsGeneratedValues;
        return pages && cursors != null && bindings != null
                ? new PagedQuery(scope, cursors, sql, bindings.copy(), fetchSize, driver)
                : new ExecuteFlux(scope, sql, hasManyBindings, driver, true);
    }

    @Override
    public String toString() {
        return "ScopedStatement[" + sql + "]";
    }
}
