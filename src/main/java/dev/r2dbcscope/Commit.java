package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.ValidationDepth;
import java.time.Duration;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;

/**
 * A COMMIT that is about to be sent, and what its failure means.
 *
 * <p>An error that the database itself answered is a refusal: the transaction was rolled back, and the error is passed on
 * as it is. An error by which the connection was lost says nothing of the transaction, which the database may have
 * committed before: its outcome is unknown.
 */
final class Commit {

    /** "Statement completion unknown", by the SQL standard. */
    static final String COMPLETION_UNKNOWN = "40003";

    private final Session session;
    private final Connection connection;

    Commit(Session session, Connection connection) {
        this.session = session;
        this.connection = connection;
    }

    /** Completes when the transaction was committed; fails with the refusal, or {@link CommitOutcomeUnknownException}. */
    Mono<Void> run() {
        Duration bound = session.options().releaseTimeout();
        return Shield.bounded(
                        connection::commitTransaction,
                        bound,
                        () -> unknown("COMMIT was not answered within the release timeout of " + bound, null))
                .onErrorResume(this::failed);
    }

    private Mono<Void> failed(Throwable error) {
        if (error instanceof CommitOutcomeUnknownException || isRefusal(error)) {
            return Mono.error(error);
        }
        Throwable lost = unknown("The connection was lost during COMMIT", error);
        return isOfALostConnection(error)
                ? Mono.error(lost)
                : requireAlive(lost).onErrorMap(e -> lost).then(Mono.error(error));
    }

    /** That a COMMIT was answered with ROLLBACK is found out by the driver, so it has no SQLSTATE. */
    private boolean isRefusal(Throwable error) {
        return error instanceof R2dbcException known && known.getSqlState() != null
                ? !isOfALostConnection(known)
                : error instanceof R2dbcRollbackException;
    }

    private boolean isOfALostConnection(Throwable error) {
        return error instanceof R2dbcException known
                && (COMPLETION_UNKNOWN.equals(known.getSqlState())
                        || session.dialect().endsConnection(known));
    }

    /** Asked on this side only; a connection that cannot say is not. */
    private Mono<Void> requireAlive(Throwable lost) {
        return Shield.bounded(
                () -> Mono.from(connection.validate(ValidationDepth.LOCAL))
                        .flatMap(alive -> alive ? Mono.empty() : Mono.error(lost)),
                session.options().releaseTimeout(),
                () -> lost);
    }

    private CommitOutcomeUnknownException unknown(String problem, @Nullable Throwable cause) {
        return new CommitOutcomeUnknownException(problem, session.label(), cause);
    }
}
