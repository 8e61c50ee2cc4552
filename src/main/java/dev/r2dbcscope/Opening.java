package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.function.Supplier;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * Makes a connection ready for a scope: rolls back what somebody left open on it, checks that it may be shared, begins the transaction or sets the
 * savepoint, and makes the session settings.
 *
 * <p>Nothing else is sent meanwhile, so the driver's own idea of the transaction status, which r2dbc-postgresql consults
 * before it sends BEGIN, is true. Except where {@link PipelinedBegin} is: the session is open then when BEGIN was sent, and
 * ready when it was answered.
 */
final class Opening {

    private final Session session;
    private final Connection connection;
    private final ContextView context;

    Opening(Session session, Connection connection, ContextView context) {
        this.session = session;
        this.connection = connection;
        this.context = context;
    }

    /** Completes when the connection is ready; {@link Completion#NOW} if there was nothing to wait for. */
    Mono<Void> run() {
        return Steps.run(this::clean, this::check, this::askForPipelining, this::begin);
    }

    private Mono<Void> check() {
        return session.options().transactionPooling() && !session.isNested()
                ? session.root().statementCacheCheck().run(session, connection)
                : Completion.NOW;
    }

    /** Asks the database once whether it takes a statement behind BEGIN, as soon as that would be of use. */
    private Mono<Void> askForPipelining() {
        if (!session.isTransactional()) {
            return Completion.NOW;
        }
        PipelinedBegin mode = BeginExchange.mode(session, connection);
        RoundTrips roundTrips = session.root().roundTrips();
        return mode == null || roundTrips.arePipelined() != null
                ? Completion.NOW
                : Shield.lazily(() -> Flux.from(mode.isAvailable(connection)).doOnNext(roundTrips::arePipelined));
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
        BeginExchange pipelined = BeginExchange.of(session, connection, transaction, context);
        return pipelined == null
                ? timed(() -> session.settings().begin(connection, transaction))
                : begin(pipelined, transaction);
    }

    private Mono<Void> begin(BeginExchange pipelined, TransactionOptions transaction) {
        session.changes().begunAs(transaction.isolation());
        session.gate().enter(pipelined);
        if (!pipelined.isAnswered()) {
            session.entry().mayBeFollowed();
        }
        return pipelined.answer();
    }

    private Mono<Void> timed(Supplier<Mono<Void>> begin) {
        if (session.isNested() || session.dialect().pipelinedBegin(FactorySupply.physical(connection)) == null) {
            return begin.get();
        }
        return Mono.defer(() -> {
            long sentAt = System.nanoTime();
            return begin.get()
                    .doOnSuccess(answered -> session.root().roundTrips().note(System.nanoTime() - sentAt));
        });
    }
}
