package dev.r2dbcscope.testkit;

import io.r2dbc.spi.Result;
import org.reactivestreams.Publisher;

/** What a connection makes of the execution of a statement that it has handed out. */
@FunctionalInterface
interface Execution {

    /**
     * Called whenever the statement is executed.
     *
     * @param sql its SQL text
     * @param driver what the driver's own statement returned
     * @return what the caller gets instead
     */
    Publisher<? extends Result> of(String sql, Publisher<? extends Result> driver);
}
