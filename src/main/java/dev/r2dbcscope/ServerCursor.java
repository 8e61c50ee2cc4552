package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * A cursor on the server, which a query is read through. Each of its statements passes the scope's gate as any other does,
 * so others run between two pages.
 *
 * <p>The statements are made when their turn has come: nothing else that ends the cursor can be in flight then, so it is known
 * whether it is still there. A statement that names a cursor which is not there would abort the transaction.
 */
final class ServerCursor {

    private final PagedQuery query;
    private final Session session;
    private final Connection connection;
    private final Cursors cursors;
    private final CursorNames names;
    private final boolean holdable;

    private volatile @Nullable String name;
    private volatile boolean refused;
    private volatile int transaction;
    private final AtomicBoolean closing = new AtomicBoolean();
    private volatile boolean closed;

    ServerCursor(PagedQuery query, Session session, boolean holdable) {
        this.query = query;
        this.session = session;
        this.connection = session.connection();
        this.cursors = query.cursors();
        this.names = session.cursorNames();
        this.holdable = holdable;
    }

    /** What is to be found out before it is opened; {@code null} if that is nothing. */
    @Nullable
    Mono<Void> preparation() {
        Publisher<Void> unknown = cursors.prepare(connection);
        return unknown == null ? null : ControlExchange.through(query.scope(), "preparing a cursor", () -> unknown);
    }

    /** Opens it; completes when it is open. */
    Mono<Void> open() {
        return new Acknowledgement(new ExecuteFlux(
                query.scope(), query.sql(), false, Flux.defer(() -> Flux.<Result>from(declare())), true));
    }

    private Publisher<? extends Result> declare() {
        String taken = names.take();
        Statement statement = statement(cursors.open(connection, taken, query.sql(), holdable));
        Publisher<? extends Result> declared =
                query.bindings().bindTo(statement).execute();
        if (holdable && names.opensHoldable()) {
            session.endSteps().add("Closing the cursors that outlive their transactions", this::closeAll);
        }
        transaction = session.transactions();
        name = taken;
        return declared;
    }

    /** With an error of the database there is no cursor; after any other one, such as the end of the scope, who knows. */
    void failedToOpen(Throwable error) {
        refused = true;
        if (isOfTheDatabase(error)) {
            gone();
        }
    }

    /** Reads the next rows, as one result; there is none if it could not be opened. */
    Flux<Result> fetch(boolean first) {
        return new ExecuteFlux(query.scope(), query.sql(), false, Flux.defer(() -> Flux.<Result>from(next())), first);
    }

    private Publisher<? extends Result> next() {
        String open = name;
        if (open == null || refused || closed) {
            return Flux.empty();
        }
        return isThere()
                ? statement(cursors.fetch(open, query.fetchSize())).execute()
                : Flux.error(new IllegalStateException("The transaction in which \"" + query.sql()
                        + "\" was executed has ended before all its rows were read"));
    }

    /**
     * Closes it, if it was opened and is still there; nobody waits for that. Idempotent. It is done for an ended scope, too,
     * whose connection goes on to serve the scopes around.
     */
    void close(@Nullable Throwable error, ContextView context) {
        boolean transactionFailed = !holdable && error != null && isOfTheDatabase(error);
        if (name != null && !refused && !transactionFailed && closing.compareAndSet(false, true)) {
            Shield.start(() -> closing(session).doOnComplete(this::gone).onErrorComplete(), context);
        }
    }

    /** A savepoint that is over leaves it to the transaction around, where a cursor lives on if the savepoint was released. */
    private Flux<Result> closing(Session at) {
        Session around = at.aroundSavepoint();
        Flux<Result> here = pastTheEnd(at);
        return around == null ? here : here.onErrorResume(ScopeClosedException.class, over -> closing(around));
    }

    private Flux<Result> pastTheEnd(Session at) {
        return new Flux<>() {
            @Override
            public void subscribe(CoreSubscriber<? super Result> actual) {
                ResultExchange exchange = new ResultExchange(
                        query.scope(),
                        at.gate(),
                        "closing a cursor of " + query.sql(),
                        false,
                        Flux.defer(() -> closeFrom(at)),
                        actual);
                actual.onSubscribe(exchange);
                at.gate().enter(exchange);
            }
        };
    }

    /** Has no result that would have to be read past the end of its scope. */
    private Flux<Result> closeFrom(Session at) {
        closed = true;
        return isThere() && wasKeptUpTo(at)
                ? new Acknowledgement(Flux.from(statement(cursors.close(Objects.requireNonNull(name)))
                                .execute()))
                        .thenMany(Flux.empty())
                : Flux.empty();
    }

    private boolean wasKeptUpTo(Session at) {
        for (Session over = session; over != null && over != at; over = over.aroundSavepoint()) {
            if (!over.isKept()) {
                return false;
            }
        }
        return true;
    }

    /** It ends with its transaction, unless it is holdable. */
    private boolean isThere() {
        return holdable || transaction == session.transactions();
    }

    private static boolean isOfTheDatabase(Throwable error) {
        return error instanceof R2dbcException
                && (!(error instanceof ScopeException) || error instanceof ScopeTimeoutException);
    }

    private void gone() {
        String taken = name;
        if (taken != null) {
            names.free(taken);
            if (holdable) {
                names.closedHoldable();
            }
        }
    }

    private Publisher<?> closeAll(Connection idle) {
        return names.mayHold()
                ? Flux.from(idle.createStatement(cursors.closeAll()).execute()).flatMap(Result::getRowsUpdated)
                : Mono.empty();
    }

    /** As the server sends it by itself, without a fetch size that the driver may have for all statements. */
    private Statement statement(String sql) {
        return connection.createStatement(sql).fetchSize(0);
    }
}
