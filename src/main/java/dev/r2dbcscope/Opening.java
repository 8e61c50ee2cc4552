package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import reactor.core.publisher.Mono;

/**
 * Makes a connection ready for a scope: rolls back what somebody left open on it, checks that it may be shared, begins the transaction or sets the
 * savepoint, and makes the session settings.
 *
 * <p>Nothing else is sent meanwhile, so the driver's own idea of the transaction status, which r2dbc-postgresql consults
 * before it sends BEGIN, is true.
 */
final class Opening {

    private final Session session;
    private final Connection connection;

    Opening(Session session, Connection connection) {
        this.session = session;
        this.connection = connection;
    }

    /** Completes when the connection is ready; {@link Completion#NOW} if there was nothing to wait for. */
    Mono<Void> run() {
        return Steps.run(this::clean, this::check, this::begin);
    }

    private Mono<Void> check() {
        return session.options().transactionPooling() && !session.isNested()
                ? session.root().statementCacheCheck().run(session, connection)
                : Completion.NOW;
    }

    private Mono<Void> clean() {
        if (session.isInForeignTransaction(connection)) {
            return Mono.error(
                    () -> session.entry()
                            .acquisitionError(
                                    "Code inside the scope has begun a transaction on its connection by way of the R2DBC SPI, so no"
                                            + " other can begin on it; begin it with ConnectionScopes.inTransaction, which others join"));
        }
        if (session.isNested() || connection.isAutoCommit()) {
            return Mono.empty();
        }
        session.report().foundDirty();
        return Shield.lazily(connection::rollbackTransaction)
                .then(Mono.fromRunnable(() -> session.autoCommits(connection.isAutoCommit())));
    }

    private Mono<Void> begin() {
        if (session.isCondemned()) {
            return Mono.empty();
        }
        TransactionOptions transaction = session.transaction();
        if (transaction == null) {
            return session.settings().enter(connection);
        }
        if (session.isSavepoint()) {
            return Shield.lazily(() -> session.dialect().createSavepoint(connection, session.savepoint()))
                    .doOnSuccess(done -> session.begun());
        }
        if (transaction.isolation() != null) {
            session.changes().beginning(connection);
        }
        return session.settings().begin(connection, transaction);
    }
}
