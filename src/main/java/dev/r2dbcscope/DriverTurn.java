package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import java.util.Objects;
import java.util.function.Function;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.Context;

/**
 * A turn with the driver's own connection: for what a driver can do beyond the R2DBC SPI, such as COPY, without losing
 * what the scope guarantees.
 *
 * <p>{@link #take} waits for its turn like a statement does, and nothing else is in flight during it. What the work returns is
 * subscribed to once, with unbounded demand, and <em>never cancelled</em>: it tells by its end that the connection is
 * ready for the next statement. When nobody waits for its answer any more, because its subscriber cancelled or the scope is
 * being ended, {@link #left} completes; the work is then to come to its end as fast as the driver allows it safely. The scope
 * waits for that for as long as its release timeout, and destroys the connection after it.
 *
 * <p>Methods may be called on any thread, but only until the work has ended, except {@link #atEnd}, {@link #condemn} and {@link #destroyAtEnd}, which
 * may be called until the scope has ended.
 */
public final class DriverTurn {

    private final Session session;
    private final Gate gate;
    private final Connection connection;
    private final @Nullable SharedConnection shared;
    private final String what;
    private final Sinks.Empty<Void> left = Sinks.empty();
    private volatile @Nullable LongSupplier progress;
    private volatile boolean condemned;
    private volatile boolean ended;
    private volatile boolean cancellable;
    private volatile boolean isLeft;

    private DriverTurn(Session session, String what) {
        this.session = session;
        this.what = what;
        this.gate = session.gate();
        this.connection = session.connection();
        this.shared = SharedConnection.in(connection);
    }

    /**
     * Takes a turn with the driver's connection when subscribed to.
     *
     * @param connection a connection that a scope has handed out, or one that wraps such a connection
     * @param what what is done, for errors, listeners and the live view, without values: {@code "COPY orders"}
     * @param work what to do; called when the turn has come
     * @param <T> what it answers
     * @return emits the first answer of the work, or its error, or completes empty with it. Fails with {@link
     *     ScopeClosedException} if the scope has ended, and with {@link IllegalArgumentException} if the connection does not
     *     belong to a scope.
     */
    public static <T> Mono<T> take(
            Connection connection, String what, Function<? super DriverTurn, ? extends Publisher<? extends T>> work) {
        Objects.requireNonNull(work, "work");
        Objects.requireNonNull(what, "what");
        Scope scope = scoped(connection).scope();
        return ControlExchange.<T>inTurn(
                scope, what, session -> new DriverTurn(session, what), turn -> turn.alone(work));
    }

    /** Whoever shares the driver's connection with others has a turn of their own to wait for. */
    private <T> Publisher<? extends T> alone(Function<? super DriverTurn, ? extends Publisher<? extends T>> work) {
        return shared == null ? work.apply(this) : shared.<T>alone(what, () -> work.apply(this));
    }

    /**
     * Whether {@link #take} can take a turn with the connection.
     *
     * @param connection a connection
     * @return {@code true} if a scope has handed it out
     */
    public static boolean isScoped(Connection connection) {
        return ScopedConnection.in(Objects.requireNonNull(connection, "connection")) != null;
    }

    private static ScopedConnection scoped(Connection connection) {
        ScopedConnection scoped = ScopedConnection.in(Objects.requireNonNull(connection, "connection"));
        if (scoped == null) {
            throw new IllegalArgumentException(
                    "This connection does not belong to a scope; use one that withConnection or inTransaction hands out,"
                            + " or one of ConnectionScopes.connectionFactory()");
        }
        return scoped;
    }

    /**
     * The connection as the factory delivered it: a pool's, if there is one. Unwrap it for the driver's own type.
     *
     * @return the connection; neither close it nor end its transaction
     */
    public Connection connection() {
        return shared == null ? connection : shared.shared();
    }

    /**
     * Completes when nobody waits for the answer any more.
     *
     * @return completes then, or never
     */
    public Mono<Void> left() {
        return left.asMono();
    }

    /**
     * Whether nobody waits for the answer any more, so that what has not begun need not begin.
     *
     * @return {@code true} once {@link #left} has completed
     */
    public boolean isLeft() {
        return isLeft;
    }

    /**
     * Whether the scope is a transaction, or a transaction was begun through its connection.
     *
     * @return {@code true} if it is
     */
    public boolean isInTransaction() {
        return session.isInTransaction();
    }

    /**
     * The options of the scope that holds the connection.
     *
     * @return the options
     */
    public ScopeOptions options() {
        return session.options();
    }

    /**
     * Lets others see whether the work goes on, if it waits for something that is not the database: one whose progress
     * stands still for longer than the scope's acquire timeout does not make a statement of the same scope wait for it any
     * longer; that statement fails, because what the work waits for may be that very statement.
     *
     * @param steps a count that grows while the work goes on, called on any thread
     */
    public void progress(LongSupplier steps) {
        progress = Objects.requireNonNull(steps, "steps");
    }

    /**
     * Says that what the work runs is a statement, which the database may be asked to cancel like one: when nobody waits for
     * its answer any more, and it goes on for longer than {@link ScopeOptions#cancelGrace()}. Other work has to come to its
     * end by itself when it is {@linkplain #left left}; the database is asked only when half of the release timeout has
     * passed without that. In a transaction that goes on it is never asked.
     */
    public void cancellable() {
        cancellable = true;
    }

    boolean isCancellable() {
        return cancellable;
    }

    @Nullable
    Pause pause(Exchange exchange) {
        LongSupplier steps = progress;
        return steps == null ? null : new Pause(this, steps.getAsLong(), exchange.sql());
    }

    boolean hasProgress() {
        return progress != null;
    }

    /**
     * Marks a Context for what the work subscribes to: a statement on this connection that is executed with it fails at once
     * with {@link IllegalStateException}, because it would wait for the work, which waits for it.
     *
     * @param context the Context of the work's subscriber
     * @return a Context that says that its pipeline is awaited in this turn
     */
    public Context within(Context context) {
        return context.put(gate, this);
    }

    /** Fails what would wait for itself. */
    static @Nullable IllegalStateException refusal(Gate gate, Context context, String sql) {
        if (context.isEmpty() || !context.hasKey(gate)) {
            return null;
        }
        return new IllegalStateException(
                "\"" + sql + "\" would wait for what its own connection is busy with, which waits"
                        + " for it in turn; read with another connection, such as one of ConnectionScopes.transactions("
                        + "Propagation.REQUIRES_NEW) or of another pool, or read all of it before");
    }

    /**
     * The connection is not in a known state any more: nothing more is sent on it, and it is destroyed at the end of the
     * scope instead of returned. A transaction on it cannot be committed any more. Called before the work has ended, it takes
     * effect with the end of the work, whose answer or error its subscriber still gets.
     */
    public void condemn() {
        condemned = true;
        if (ended) {
            session.condemn();
        }
    }

    /** The work has ended; nothing else was admitted yet. */
    void ended() {
        ended = true;
        if (condemned) {
            session.condemn();
        }
    }

    /**
     * Has something undone at the end of the scope, after its transaction was ended and before the connection goes back.
     * Each step is bounded by the release timeout; if one fails, the connection is destroyed, which undoes what belongs to
     * the session, too. Steps run in the opposite order in which they were added.
     *
     * @param what what is done, for the error
     * @param step gets the connection as the factory delivered it; must work outside a transaction and, in a scope that is a
     *     savepoint, inside one
     */
    public void atEnd(String what, Function<? super Connection, ? extends Publisher<?>> step) {
        session.endSteps().add(what, step);
    }

    /**
     * The connection serves until the end of the scope, and is destroyed then instead of returned, for what cannot be undone
     * for the next borrower. Unlike {@link #condemn} this is no failure, and everything else goes on as usual.
     */
    public void destroyAtEnd() {
        session.spend();
    }

    /**
     * Keeps something for the length of the scope, such as a count of what is to be undone at its end.
     *
     * @param type what it is, of which there is one for each session: a scope and those that join it have the same one, a
     *     transaction inside a plain scope and a savepoint have their own
     * @param first makes it when it is asked for first; must not block
     * @param <T> its type
     * @return the one that is kept
     */
    public <T> T kept(Class<T> type, Supplier<? extends T> first) {
        return session.endSteps().kept(Objects.requireNonNull(type, "type"), Objects.requireNonNull(first, "first"));
    }

    /**
     * Refuses what lasts as long as a transaction if there is none. Asks the driver as well, which knows of a transaction
     * that SQL text began.
     *
     * @throws TransactionRequiredException if there is none
     */
    public void requireTransaction() {
        if (!isInTransaction() && connection.isAutoCommit()) {
            throw new TransactionRequiredException(what, session.label());
        }
    }

    /**
     * Refuses what needs the same database session for longer than a transaction, if the scope's options say that there is
     * none.
     *
     * @param instead what to do instead, for the error
     * @throws TransactionPoolingException under {@link ScopeOptions#withTransactionPooling}
     */
    public void requireSession(String instead) {
        Objects.requireNonNull(instead, "instead");
        if (options().transactionPooling()) {
            throw TransactionPoolingException.session(what, instead, session.label());
        }
    }

    void leave() {
        isLeft = true;
        left.tryEmitEmpty();
    }

    @Override
    public String toString() {
        return "DriverTurn[" + session.label() + "]";
    }
}
