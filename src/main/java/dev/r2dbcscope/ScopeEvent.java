package dev.r2dbcscope;

import java.time.Duration;
import org.jspecify.annotations.Nullable;

/**
 * Something that happened to a scope, as told to a {@link ScopeListener}.
 *
 * <p>The text of an event, {@code toString()}, holds SQL text and no values: of an error that is not this library's own it has
 * the type and the SQLSTATE only, because the database may quote values in the message. The message is in the error itself.
 */
public sealed interface ScopeEvent {

    /**
     * The scope as it was when the event happened.
     *
     * @return a snapshot
     */
    LiveScope scope();

    /**
     * The scope asked for a connection.
     *
     * @param scope the scope
     */
    record Waiting(LiveScope scope) implements ScopeEvent {}

    /**
     * The scope got its connection and, if it is a transaction, has begun it.
     *
     * @param scope the scope; {@link LiveScope#waited()} is the time that the acquisition took
     */
    record Opened(LiveScope scope) implements ScopeEvent {}

    /**
     * The scope got no connection, could not begin its transaction on it, or was left before it had one. Nothing is held
     * by it; a connection that comes too late is given back.
     *
     * @param scope the scope
     * @param error why
     */
    record OpenFailed(LiveScope scope, Throwable error) implements ScopeEvent {

        @Override
        public String toString() {
            return "OpenFailed[scope=" + scope + ", error=" + ErrorText.of(error) + "]";
        }
    }

    /**
     * The scope waited for a connection that could never have come, because scopes that wait themselves hold them all.
     * Its wait was ended; {@link OpenFailed} follows.
     *
     * @param scope the scope that gave way
     * @param error what it fails with, which lists the others
     */
    record DeadlockAverted(LiveScope scope, NestedAcquireDeadlockException error) implements ScopeEvent {}

    /**
     * A statement, or a batch, ended: its last row was read from the database.
     *
     * @param scope the scope
     * @param sql its SQL text
     * @param took from its admission to the driver until its end
     * @param rows the rows that were mapped
     * @param error why it failed, or {@code null} if it did not
     */
    record StatementEnded(
            LiveScope scope,
            String sql,
            Duration took,
            long rows,
            @Nullable Throwable error) implements ScopeEvent {

        @Override
        public String toString() {
            return "StatementEnded[scope=" + scope + ", sql=" + sql + ", took=" + took + ", rows=" + rows + ", error="
                    + ErrorText.of(error) + "]";
        }
    }

    /**
     * The database was asked to cancel a statement that nobody waits for any more, see {@link
     * ScopeOptions#withCancelGrace}. The {@link StatementEnded} of the statement comes before or after it, with the error by
     * which the database ended it, or without one if the statement had come to its end meanwhile.
     *
     * @param scope the scope
     * @param sql the statement's SQL text; the oldest one's if several were in flight
     * @param ran how long the statement had run when the request was made
     * @param took how long the request took
     * @param error why the request failed, or {@code null} if the database took notice of it. If it is not certain that
     *     the request never came to the database, the connection is destroyed.
     */
    record CancelRequested(
            LiveScope scope,
            String sql,
            Duration ran,
            Duration took,
            @Nullable Throwable error) implements ScopeEvent {

        @Override
        public String toString() {
            return "CancelRequested[scope=" + scope + ", sql=" + sql + ", ran=" + ran + ", took=" + took + ", error="
                    + ErrorText.of(error) + "]";
        }
    }

    /**
     * The pipeline ended and the scope begins its exit.
     *
     * @param scope the scope
     * @param outcome how the pipeline ended
     */
    record Exiting(LiveScope scope, ScopeOutcome outcome) implements ScopeEvent {}

    /**
     * The subscriber cancelled, and the pipeline goes on without it, as {@link OnCancel#COMPLETE} asks for.
     *
     * @param scope the scope
     */
    record Detached(LiveScope scope) implements ScopeEvent {}

    /**
     * The scope gave its connection back, or destroyed it: the last event of every scope that was {@link Opened},
     * except for what its hooks do, for a {@link Retrying}, and for every {@link UsedAfterEnd}.
     *
     * @param scope the scope
     * @param outcome how the pipeline ended
     * @param transaction what became of the transaction
     * @param error the pipeline's error, or that of the COMMIT; {@code null} if there was none
     * @param destroyed whether the physical connection was closed instead of returned
     */
    record Released(
            LiveScope scope,
            ScopeOutcome outcome,
            TransactionOutcome transaction,
            @Nullable Throwable error,
            boolean destroyed)
            implements ScopeEvent {

        @Override
        public String toString() {
            return "Released[scope=" + scope + ", outcome=" + outcome + ", transaction=" + transaction + ", error="
                    + ErrorText.of(error) + ", destroyed=" + destroyed + "]";
        }
    }

    /**
     * A hook that code inside the scope had registered failed or exceeded the hook timeout. It comes after {@link
     * Released}, and changes nothing.
     *
     * @param scope the scope
     * @param error what failed
     */
    record HookFailed(LiveScope scope, Throwable error) implements ScopeEvent {

        @Override
        public String toString() {
            return "HookFailed[scope=" + scope + ", error=" + ErrorText.of(error) + "]";
        }
    }

    /**
     * Code asked for something of the database by a handle of the scope after its end: it created a statement or a batch, or
     * subscribed to an execution, or to a request to the connection. It got the error, whatever it made of it, and nothing
     * was sent. Told once for each such use, at any time after the {@link Exiting}, on the thread that did it, while the
     * code that did it is on the stack.
     *
     * <p>A pipeline that was cut off, by an error or a cancel, may be just about to take its next step, which is no mistake
     * of its code. So this is not told of subscriptions that have the scope in their Reactor Context, and of what is created
     * after a scope only if it completed.
     *
     * @param scope the scope, or the one whose connection it had joined
     * @param call the SQL text, or in words what was asked of the connection
     * @param error what the code got; it names the scope and says how and when it ended
     */
    record UsedAfterEnd(LiveScope scope, String call, ScopeClosedException error) implements ScopeEvent {}

    /**
     * A transaction failed and will be tried again, as its {@link RetryPolicy} says. Comes after the {@link Released} or
     * {@link OpenFailed} of the failed attempt; the next attempt is a scope of its own with the same name and origin, or
     * there is none if the subscriber cancels during the wait.
     *
     * @param scope the scope of the failed attempt
     * @param attempt the number of the failed attempt, counted from 1
     * @param backoff the wait before the next one
     * @param error why the attempt failed
     */
    record Retrying(LiveScope scope, int attempt, Duration backoff, Throwable error) implements ScopeEvent {

        @Override
        public String toString() {
            return "Retrying[scope=" + scope + ", attempt=" + attempt + ", backoff=" + backoff + ", error="
                    + ErrorText.of(error) + "]";
        }
    }

    /**
     * A step of the exit failed or exceeded the release timeout. The physical connection is destroyed.
     *
     * @param scope the scope
     * @param error what failed
     */
    record ReleaseFailed(LiveScope scope, Throwable error) implements ScopeEvent {

        @Override
        public String toString() {
            return "ReleaseFailed[scope=" + scope + ", error=" + ErrorText.of(error) + "]";
        }
    }

    /**
     * The scope has held its connection for longer than the leak threshold.
     *
     * @param scope the scope
     * @param threshold the threshold, see {@link ScopeOptions#withLeakThreshold(Duration)}
     */
    record LeakSuspected(LiveScope scope, Duration threshold) implements ScopeEvent {}

    /**
     * A scope that was suspected of a leak gave its connection back after all.
     *
     * @param scope the scope
     */
    record LeakResolved(LiveScope scope) implements ScopeEvent {}
}
