package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import reactor.core.publisher.Flux;

/** A batch of a logical connection. */
final class LogicalBatch implements Batch {

    private final LogicalConnection connection;
    private final Batch delegate;
    private final List<String> statements = new ArrayList<>();

    LogicalBatch(LogicalConnection connection, Batch delegate) {
        this.connection = connection;
        this.delegate = delegate;
    }

    @Override
    public Batch add(String sql) {
        delegate.add(sql);
        statements.add(sql);
        return this;
    }

    @Override
    public Flux<Result> execute() {
        return connection.execute(String.join(";\n", statements), delegate.execute());
    }
}
