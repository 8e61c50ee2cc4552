package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import org.reactivestreams.Publisher;

/** A batch whose executions are counted. */
final class WatchedBatch implements Batch {

    private final Batch delegate;
    private final WatchedConnection connection;
    private final List<String> statements = new ArrayList<>();

    WatchedBatch(Batch delegate, WatchedConnection connection) {
        this.delegate = delegate;
        this.connection = connection;
    }

    @Override
    public Batch add(String sql) {
        delegate.add(sql);
        statements.add(sql);
        return this;
    }

    @Override
    public Publisher<? extends Result> execute() {
        return connection.executed(String.join("; ", statements), delegate.execute());
    }
}
