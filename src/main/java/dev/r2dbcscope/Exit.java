package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * The ordered exit of a session: no more statements, then COMMIT or ROLLBACK, then the connection goes back.
 *
 * <p>COMMIT and ROLLBACK are sent only when nothing is in flight, because r2dbc-postgresql decides from a client-side
 * status whether to send them at all, and that status is stale until then. Each step is bounded by the release timeout.
 * When a step fails, or the connection is still in a transaction after it, the physical connection is destroyed instead
 * of returned.
 *
 * <table>
 *   <caption>What becomes of the transaction</caption>
 *   <tr><th>outcome</th><th>sent</th><th>the subscriber gets</th></tr>
 *   <tr><td>completed</td><td>COMMIT</td><td>the completion, or the COMMIT's error, see {@link Commit}</td></tr>
 *   <tr><td>completed, but a joined scope failed</td><td>ROLLBACK</td><td>ScopeRolledBackException</td></tr>
 *   <tr><td>completed, but the scope itself asked for a rollback</td><td>ROLLBACK</td><td>the completion</td></tr>
 *   <tr><td>failed</td><td>ROLLBACK</td><td>the original error, the exit's failure suppressed under it</td></tr>
 *   <tr><td>cancelled, and between statements under {@link OnCancel#COMMIT}</td><td>COMMIT</td><td>nothing; the
 *       listeners hear of a failure</td></tr>
 *   <tr><td>cancelled</td><td>ROLLBACK</td><td>nothing; the listeners hear of a failure</td></tr>
 * </table>
 *
 * <p>For a savepoint, read RELEASE SAVEPOINT for COMMIT, ROLLBACK TO SAVEPOINT for ROLLBACK, and the return of the
 * connection to the transaction around it for its release.
 */
final class Exit {

    private final Session session;
    private final Connection connection;
    private final ScopeOutcome outcome;
    private final boolean commits;
    private final @Nullable Throwable error;
    private final ContextView context;

    private boolean committed;
    private boolean unknown;
    private @Nullable Throwable commitError;
    private @Nullable Throwable failure;

    Exit(Session session, ScopeOutcome outcome, boolean commits, @Nullable Throwable error, ContextView context) {
        this.session = session;
        this.connection = session.connection();
        this.outcome = outcome;
        this.commits = commits;
        this.error = error;
        this.context = context;
    }

    /** Begins. Completes when the connection was given back; fails only if a COMMIT failed. */
    Mono<Void> run() {
        session.report().exiting(outcome);
        return Steps.run(this::leaveClean, this::giveBack, this::conclude);
    }

    private Mono<Void> leaveClean() {
        Mono<Void> steps = Steps.run(
                this::quiesce,
                this::endTransaction,
                this::restoreAutoCommit,
                this::runEndSteps,
                this::undoSettings,
                this::requireAlive);
        return steps == Completion.NOW ? steps : steps.onErrorResume(this::stepFailed);
    }

    /** Nothing new is admitted; on success what was admitted may end, otherwise its rows are thrown away. */
    private Mono<Void> quiesce() {
        Gate gate = session.gate();
        if (session.isLost()) {
            gate.closeAbruptly();
            return condemned();
        }
        Mono<Void> idle = commits ? gate.closeGracefully() : gate.closeAbruptly();
        return Steps.run(
                () -> bounded(
                        () -> idle,
                        () -> "A statement was still running at the end of the scope: " + gate.runningSql()),
                this::quiet);
    }

    /** What was waited for may have been a transaction inside that could not be ended. */
    private Mono<Void> quiet() {
        session.quiet();
        return session.isLost() ? condemned() : Mono.empty();
    }

    private Mono<Void> condemned() {
        return Mono.error(new ScopeReleaseException(
                "The connection is not in a known state and was destroyed", session.label(), null));
    }

    private Mono<Void> endTransaction() {
        if (!session.hasBegun()) {
            return Mono.empty();
        }
        if (commits && session.rollbackMark().settle()) {
            return session.isSavepoint() ? releaseSavepoint() : commit();
        }
        if (outcome == ScopeOutcome.COMPLETED) {
            commitError = session.rollbackMark().error();
        }
        return session.isSavepoint() ? rollbackToSavepoint() : rollback();
    }

    private Mono<Void> commit() {
        return new Commit(session, connection)
                .run()
                .doOnSuccess(ignored -> committed = true)
                .onErrorResume(this::commitFailed);
    }

    private Mono<Void> commitFailed(Throwable e) {
        commitError = e;
        unknown = e instanceof CommitOutcomeUnknownException;
        Throwable reason = session.abortReason().behind(e);
        if (reason != null) {
            suppress(e, reason);
        }
        return unknown ? Mono.error(e) : Mono.empty();
    }

    private Mono<Void> rollback() {
        return bounded(connection::rollbackTransaction, () -> "ROLLBACK was not answered");
    }

    /**
     * The database refuses it when a statement failed after the savepoint, whose error the pipeline kept to itself. A
     * connection that is lost meanwhile says nothing of the statements, and takes the transaction with it.
     */
    private Mono<Void> releaseSavepoint() {
        return dropSavepoint().doOnSuccess(ignored -> committed = true).onErrorResume(e -> {
            commitError = e instanceof ScopeReleaseException || isOfALostConnection(e)
                    ? e
                    : new ScopeRolledBackException(
                            "The savepoint was rolled back to, because a statement after it had failed",
                            session.label(),
                            e);
            return e == commitError ? Mono.error(e) : rollbackToSavepoint();
        });
    }

    private boolean isOfALostConnection(Throwable e) {
        return e instanceof R2dbcException known && session.dialect().endsConnection(known);
    }

    /** What was done since the savepoint is undone; the transaction around it goes on. */
    private Mono<Void> rollbackToSavepoint() {
        return Steps.run(
                () -> bounded(
                        () -> connection.rollbackTransactionToSavepoint(session.savepoint()),
                        () -> "ROLLBACK TO SAVEPOINT was not answered"),
                this::dropSavepoint);
    }

    private Mono<Void> dropSavepoint() {
        return bounded(
                () -> session.dialect().releaseSavepoint(connection, session.savepoint()),
                () -> "RELEASE SAVEPOINT was not answered");
    }

    /** Whoever used the connection may have left a transaction of his own open, or a failed COMMIT has. */
    private Mono<Void> restoreAutoCommit() {
        if (session.isLost()) {
            return condemned();
        }
        boolean foreign = session.isNested() && (session.isSavepoint() || !session.hasBegun());
        if (foreign || !session.autoCommits() || connection.isAutoCommit()) {
            return Mono.empty();
        }
        if (commitError == null) {
            session.report().leftDirty();
        }
        return rollback().then(Mono.defer(() -> {
            if (connection.isAutoCommit()) {
                return Mono.empty();
            }
            return bounded(() -> connection.setAutoCommit(true), () -> "Auto-commit could not be restored")
                    .then(Mono.defer(() -> connection.isAutoCommit() ? Mono.empty() : condemned()));
        }));
    }

    private Mono<Void> runEndSteps() {
        return session.endSteps().isEmpty()
                ? Mono.empty()
                : session.endSteps()
                        .run(connection, (what, action) -> bounded(() -> action, () -> what + " was not answered"));
    }

    private Mono<Void> undoSettings() {
        return session.changes().isEmpty() && session.settings().areLocal()
                ? Mono.empty()
                : bounded(
                        () -> session.changes()
                                .undo(connection, session.dialect(), condemned())
                                .then(session.settings().restore(connection)),
                        () -> "The connection's settings could not be restored");
    }

    /** A connection whose socket broke is not worth returning; asked on this side only, without a round trip. */
    private Mono<Void> requireAlive() {
        if (session.isDying()) {
            return condemned();
        }
        if (outcome == ScopeOutcome.COMPLETED && commitError == null) {
            return Mono.empty();
        }
        return bounded(
                () -> Mono.from(connection.validate(ValidationDepth.LOCAL))
                        .flatMap(alive -> alive ? Mono.empty() : condemned()),
                () -> "The connection could not be validated");
    }

    private Mono<Void> stepFailed(Throwable step) {
        failure = step;
        session.lost();
        session.gate().giveUp();
        session.quiet();
        boolean unexpected = !session.rollbackMark().isRequested();
        if (outcome == ScopeOutcome.COMPLETED
                && session.hasBegun()
                && !committed
                && commitError == null
                && unexpected) {
            commitError = step;
        }
        return Mono.empty();
    }

    /** Calls the release exactly once, before or after the destruction. */
    private Mono<Void> giveBack() {
        session.decided(transactionOutcome());
        if (failure == null && !session.isSpent()) {
            Mono<Void> release = release();
            return release == Completion.NOW ? release : release.onErrorResume(this::releaseFailed);
        }
        return destroy().then(Mono.defer(this::release)).onErrorResume(this::alsoFailed);
    }

    private Mono<Void> release() {
        return bounded(() -> session.supply().release(connection), () -> "The connection was not taken back");
    }

    private Mono<Void> releaseFailed(Throwable e) {
        failure = e;
        return destroy();
    }

    private Mono<Void> destroy() {
        return bounded(() -> session.supply().destroy(connection), () -> "The connection could not be closed")
                .onErrorResume(this::alsoFailed);
    }

    private Mono<Void> alsoFailed(Throwable e) {
        if (failure == null) {
            failure = e;
        }
        suppress(failure, e);
        return Mono.empty();
    }

    private Mono<Void> conclude() {
        if (failure != null) {
            session.report().releaseFailed(failure);
            suppress(error != null ? error : commitError, failure);
        }
        session.closed(outcome, transactionOutcome(), error, commitError, failure != null || session.isSpent());
        return commitError == null ? Mono.empty() : Mono.error(commitError);
    }

    private TransactionOutcome transactionOutcome() {
        if (!session.isTransactional()) {
            return TransactionOutcome.NONE;
        }
        if (committed) {
            return TransactionOutcome.COMMITTED;
        }
        return unknown ? TransactionOutcome.UNKNOWN : TransactionOutcome.ROLLED_BACK;
    }

    private static void suppress(@Nullable Throwable primary, Throwable secondary) {
        if (primary != null && primary != secondary) {
            primary.addSuppressed(secondary);
        }
    }

    /** Begins the step now. */
    private Mono<Void> bounded(Supplier<? extends Publisher<?>> step, Problem problem) {
        Duration bound = session.options().releaseTimeout();
        return Shield.startBounded(
                step,
                bound,
                () -> new ScopeReleaseException(
                        problem.describe() + "; the release timeout of " + bound
                                + " expired and the connection was destroyed",
                        session.label(),
                        null),
                context);
    }

    /** What to say of a step that did not end in time. */
    private interface Problem {
        String describe();
    }
}
