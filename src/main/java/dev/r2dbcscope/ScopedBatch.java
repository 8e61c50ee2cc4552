package dev.r2dbcscope;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Result;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;

/** A batch whose executions pass the scope's gate. */
final class ScopedBatch implements Batch {

    private final Scope scope;
    private final Batch delegate;
    private @Nullable String first;
    private int size;

    ScopedBatch(Scope scope, Batch delegate) {
        this.scope = scope;
        this.delegate = delegate;
    }

    @Override
    public Batch add(String sql) {
        delegate.add(sql);
        if (first == null) {
            first = sql;
        }
        size++;
        return this;
    }

    @Override
    public Publisher<? extends Result> execute() {
        String words = size > 1 ? first + "; and " + (size - 1) + " more" : String.valueOf(first);
        scope.requireOpenFor(words);
        return new ExecuteFlux(scope, words, false, delegate.execute(), true);
    }
}
