package dev.r2dbcscope;

import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * What is done right before a statement and right after it, with nothing else in between: such as a savepoint, so that the
 * failure of the statement does not become that of its transaction.
 *
 * <p>A statement or batch of a scope's connection that is subscribed to with a guard in its Context waits until it is alone on
 * the connection. Its result is read as usual: by its subscriber's demand, or ahead of it once others wait.
 *
 * <pre>{@code
 * Flux.from(statement.execute()).contextWrite(context -> StatementGuard.write(context, guard))
 * }</pre>
 *
 * <p>A guard serves one subscription.
 */
public interface StatementGuard {

    /**
     * What comes before.
     *
     * @return subscribed to once, when the statement's turn has come, and never cancelled; if it fails, the statement fails
     *     with its error, and neither it nor what comes after is executed
     */
    Publisher<?> before();

    /**
     * What comes after.
     *
     * @param error the first error of the database in the statement's results, or {@code null}
     * @return subscribed to once, when the database has answered all of the statement, and never cancelled; if it fails, the
     *     connection is not used any more. Whoever reads the results may see their end before its end.
     */
    Publisher<?> after(@Nullable Throwable error);

    /**
     * Adds a guard to the Context with which a statement is subscribed to.
     *
     * @param context the Context
     * @param guard the guard
     * @return a Context with the guard
     */
    static Context write(Context context, StatementGuard guard) {
        return context.put(StatementGuard.class, guard);
    }

    /**
     * The guard in a Context.
     *
     * @param context the Context
     * @return the guard, or {@code null} if there is none
     */
    static @Nullable StatementGuard in(ContextView context) {
        return context.getOrDefault(StatementGuard.class, null);
    }
}
