package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Batch;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import org.reactivestreams.Publisher;

/** The driver's batch, but for its execution. */
final class ForwardingBatch implements Batch {

    private final Batch delegate;
    private final Execution execution;
    private final List<String> statements = new ArrayList<>();

    ForwardingBatch(Batch delegate, Execution execution) {
        this.delegate = delegate;
        this.execution = execution;
    }

    @Override
    public Batch add(String sql) {
        delegate.add(sql);
        statements.add(sql);
        return this;
    }

    @Override
    public Publisher<? extends Result> execute() {
        return execution.of(String.join(";\n", statements), delegate.execute());
    }
}
