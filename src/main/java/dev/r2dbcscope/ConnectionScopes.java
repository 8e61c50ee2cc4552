package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * Opens connection scopes: a connection that lives exactly as long as the pipeline that uses it.
 *
 * <p>There are two shapes. The <em>closures</em> ({@link #withConnection}, {@link #inTransaction} and their {@code Many}
 * forms) get a connection and hand it to a function; it lives as long as the publisher that the function returns. The
 * <em>operators</em> ({@link #connected(Flux)}, {@link #transactional(Flux)}) let everything upstream of them, nested
 * {@code flatMap}s included, share one connection, which is opened at first use; they are for code that gets its
 * connections from {@link #connectionFactory()} or from closures of its own.
 *
 * <pre>{@code
 * ConnectionScopes scopes = ConnectionScopes.of(pool);
 * Mono<Order> one = scopes.withConnection(connection -> findOrder(connection, id));
 * Flux<Line> many = scopes.withConnectionMany(
 *         connection -> orders(connection).flatMap(order -> lines(connection, order.id()), 16));
 * Mono<Void> transfer = accounts.withdraw(a, amount).then(accounts.deposit(b, amount)).as(scopes::transactional);
 * }</pre>
 *
 * <p>What holds for every scope:
 *
 * <ul>
 *   <li><strong>Lifetime.</strong> Nothing happens before subscription, and every subscription has a scope of its own. A
 *       scope inside another one of the same connection factory joins it; only the outermost opens and releases. A
 *       transaction inside a plain scope uses its connection and holds it exclusively meanwhile. {@link Propagation} is the
 *       choice of something else.
 *   <li><strong>Endings.</strong> When the pipeline completes, fails or is cancelled, the scope admits no further statement,
 *       awaits those in flight, commits (on complete) or rolls back (on error and cancel, where {@link OnCancel} is the
 *       choice of something else) if it is a transaction, and
 *       releases the connection, once. The subscriber gets its terminal signal only then; on error it is the original
 *       error, with a failure of the exit suppressed under it. If work was done and only the release fails, the
 *       subscriber still completes, and the listeners hear of the failure. A connection that cannot be brought back to a
 *       clean state within the release timeout is destroyed instead of returned.
 *   <li><strong>Statements.</strong> Any number of statements may run on the connection at once, from any thread, nested
 *       within results that are still being read. A connection serves results strictly in order, so a result that
 *       another statement waits behind is read ahead into a bounded buffer; beyond the bound it fails with
 *       {@link NestedReadOverflowException}.
 *   <li><strong>Handles.</strong> Connections, statements, batches, results and rows of a scope fail with
 *       {@link ScopeClosedException} after its end. {@code close()} on its connection is left to the scope.
 *   <li><strong>Demand</strong> is passed on to the pipeline and from there to the database. <strong>Threads:</strong> the
 *       function runs on the subscribing thread or on the connection's event loop. <strong>Context:</strong> the scope is
 *       visible upstream only.
 *   <li>Fails with {@link ScopeAcquisitionException} when no connection comes within the acquire timeout, with {@link
 *       NestedAcquireDeadlockException} at once when none could ever come, with {@link ScopePropagationException} and {@link
 *       SessionSettingException} when it cannot have what its options ask for, with {@link ScopeTimeoutException} when it
 *       exceeds a time limit, and with {@link ScopesDrainedException} after {@link #drain}. Errors of the connection
 *       factory, the driver and the user's code are passed on as they are.
 * </ul>
 *
 * <p>Immutable and thread-safe. An application needs one per {@link ConnectionFactory}, which should be a pool.
 */
public final class ConnectionScopes {

    private final ScopeRoot root;
    private final ScopedConnectionFactory scopedFactory;
    private final ScopeOptions options;
    private final TransactionOptions transactionOptions;

    private ConnectionScopes(
            ScopeRoot root,
            ScopedConnectionFactory scopedFactory,
            ScopeOptions options,
            TransactionOptions transactionOptions) {
        this.root = root;
        this.scopedFactory = scopedFactory;
        this.options = options;
        this.transactionOptions = transactionOptions;
    }

    /**
     * Opens scopes on the connections of a factory, with the default options.
     *
     * <p>Call it once per factory and share the result: {@link #live()}, {@link #drain} and the check that no connection is
     * handed out twice see only the scopes of one call and its variants. Scopes join each other whichever call they come
     * from, by the identity of the innermost factory: a pool counts as the factory it wraps, so scopes of two pools over
     * the same factory object join each other as well.
     *
     * @param connectionFactory the factory, usually an r2dbc-pool; every subscriber to its {@code create()} must get a
     *     connection of its own
     * @return scopes on its connections
     */
    public static ConnectionScopes of(ConnectionFactory connectionFactory) {
        Objects.requireNonNull(connectionFactory, "connectionFactory");
        ConnectionFactory plain = connectionFactory;
        while (plain instanceof ScopedConnectionFactory || plain instanceof BoundConnectionFactory) {
            plain = (ConnectionFactory) ((Wrapped<?>) plain).unwrap();
        }
        ScopeRoot root = new ScopeRoot(plain);
        return new ConnectionScopes(
                root, new ScopedConnectionFactory(root), ScopeOptions.defaults(), TransactionOptions.defaults());
    }

    // variants -------------------------------------------------------------------------------------------------------

    /**
     * Returns a variant whose scopes have the given options. It shares everything else with this one, so the scopes of
     * both join each other, are listed together and are drained together.
     *
     * @param options the options
     * @return the variant
     */
    public ConnectionScopes with(ScopeOptions options) {
        return new ConnectionScopes(
                root, scopedFactory, Objects.requireNonNull(options, "options"), transactionOptions);
    }

    /**
     * Returns a variant whose transactions begin and end as the given options say. It shares everything else with this one.
     *
     * @param options the options
     * @return the variant
     */
    public ConnectionScopes transactions(TransactionOptions options) {
        return new ConnectionScopes(root, scopedFactory, this.options, Objects.requireNonNull(options, "options"));
    }

    /**
     * Returns a variant whose transactions have the given propagation and otherwise the options of this one. It shares
     * everything else with this one.
     *
     * <pre>{@code
     * Mono<Void> audited = scopes.transactions(Propagation.REQUIRES_NEW).inTransaction(c -> audit(c, order));
     * }</pre>
     *
     * @param propagation the mode
     * @return the variant
     */
    public ConnectionScopes transactions(Propagation propagation) {
        return transactions(transactionOptions.withPropagation(propagation));
    }

    // closures -------------------------------------------------------------------------------------------------------

    /**
     * Runs a function with a connection and emits the first element of what it returns.
     *
     * <p><em>Lifetime:</em> the connection is opened at subscription, before the function is called, and released before
     * the element is emitted. If the function's publisher is not a {@code Mono}, it is cancelled after its first element,
     * which counts as its completion. <em>Endings:</em> see the class.
     *
     * @param function uses the connection; all of its work must be part of the publisher that it returns
     * @param <T> the type of the element
     * @return a {@code Mono} with a scope for each subscription
     * @see #withConnectionMany(Function) for all elements
     * @see #inTransaction(Function) for a transaction
     */
    public <T> Mono<T> withConnection(Function<? super Connection, ? extends Publisher<? extends T>> function) {
        return plain().mono(ScopeBody.firstOf(Objects.requireNonNull(function, "function")));
    }

    /**
     * Runs a function with a connection and emits what it returns.
     *
     * <p><em>Lifetime:</em> the connection is opened at subscription, before the function is called, and released when
     * the function's publisher ends, before the terminal signal is passed on. Work that is chained downstream of the
     * returned {@code Flux} does not count. <em>Endings:</em> see the class.
     *
     * @param function uses the connection; all of its work must be part of the publisher that it returns
     * @param <T> the type of the elements
     * @return a {@code Flux} with a scope for each subscription
     * @see #connected(Flux) to scope an existing pipeline
     */
    public <T> Flux<T> withConnectionMany(Function<? super Connection, ? extends Publisher<? extends T>> function) {
        return plain().flux(ScopeBody.closure(Objects.requireNonNull(function, "function")));
    }

    /**
     * Runs a function in a transaction and emits the first element of what it returns, after the COMMIT.
     *
     * <p><em>Lifetime:</em> as {@link #withConnection}; the transaction begins before the function is called.
     * <em>Endings:</em> commits when the function's publisher completes or has emitted its first element; rolls back when
     * it fails or the subscriber cancels. If the COMMIT fails, the element is discarded and its error is passed on; if it
     * was not answered, that is a {@link CommitOutcomeUnknownException}. {@link TransactionOptions#withRetry} tries again
     * what failed for a conflict with other transactions.
     *
     * @param function uses the connection; all of its work must be part of the publisher that it returns
     * @param <T> the type of the element
     * @return a {@code Mono} with a transaction for each subscription
     * @see #transactions(TransactionOptions) for the choices of how a transaction begins and ends
     */
    public <T> Mono<T> inTransaction(Function<? super Connection, ? extends Publisher<? extends T>> function) {
        return transaction().mono(ScopeBody.firstOf(Objects.requireNonNull(function, "function")));
    }

    /**
     * Runs a function in a transaction and emits what it returns, as it comes.
     *
     * <p><em>Lifetime:</em> as {@link #withConnectionMany}; the transaction begins before the function is called.
     * <em>Endings:</em> commits when the function's publisher completes, and completes after that; a COMMIT that fails is
     * an error after the elements. Rolls back when the publisher fails or the subscriber cancels, which {@code take(n)}
     * and {@code next()} downstream do. {@link TransactionOptions#withEmitAfterCommit(int)} holds the elements back until
     * the COMMIT instead.
     *
     * @param function uses the connection; all of its work must be part of the publisher that it returns
     * @param <T> the type of the elements
     * @return a {@code Flux} with a transaction for each subscription
     * @throws IllegalArgumentException if its transactions are to be retried, but emit their elements as they come; see
     *     {@link TransactionOptions#withEmitAfterCommit(int)}
     * @see #transactional(Flux) for an existing pipeline
     */
    public <T> Flux<T> inTransactionMany(Function<? super Connection, ? extends Publisher<? extends T>> function) {
        return transaction().flux(ScopeBody.closure(Objects.requireNonNull(function, "function")));
    }

    /**
     * Runs a function with a connection that is not shared with any scope around it, and emits what the function returns.
     * For what must not meet other statements, nor be ended with a transaction, such as an endless subscription; where a
     * transaction is to be independent of the one around it, {@link Propagation#REQUIRES_NEW} is the choice.
     *
     * <p><em>Lifetime</em> and <em>endings:</em> as {@link #withConnectionMany}. A scope that is subscribed to inside another
     * one, and cannot get a second connection because scopes that wait hold them all, fails with {@link
     * NestedAcquireDeadlockException}.
     *
     * @param function uses the connection; all of its work must be part of the publisher that it returns
     * @param <T> the type of the elements
     * @return a {@code Flux} with a scope and a connection for each subscription
     */
    public <T> Flux<T> withOwnConnectionMany(Function<? super Connection, ? extends Publisher<? extends T>> function) {
        return apart(this.<T>withConnectionMany(function));
    }

    // operators ------------------------------------------------------------------------------------------------------

    /**
     * Lets everything upstream share one connection.
     *
     * <p><em>Lifetime:</em> the connection is opened when something upstream first asks for one, and released when the
     * source has ended, before its element is emitted. If nothing asks, none is opened. <em>Endings:</em> see the class.
     *
     * @param source a pipeline that gets its connections from {@link #connectionFactory()} or from scopes
     * @param <T> the type of the element
     * @return a {@code Mono} with a scope for each subscription
     * @see #withConnection(Function) to get the connection explicitly
     */
    public <T> Mono<T> connected(Mono<T> source) {
        return plain().mono(ScopeBody.upstream(Objects.requireNonNull(source, "source")));
    }

    /**
     * Lets everything upstream share one connection, nested {@code flatMap}s included.
     *
     * <p><em>Lifetime:</em> the connection is opened when something upstream first asks for one, and released when the
     * source has ended, before the terminal signal is passed on. If nothing asks, none is opened. <em>Endings:</em> see
     * the class.
     *
     * @param source a pipeline that gets its connections from {@link #connectionFactory()} or from scopes
     * @param <T> the type of the elements
     * @return a {@code Flux} with a scope for each subscription
     * @see #withConnectionMany(Function) to get the connection explicitly
     */
    public <T> Flux<T> connected(Flux<T> source) {
        return plain().flux(ScopeBody.upstream(Objects.requireNonNull(source, "source")));
    }

    /**
     * Runs everything upstream in one transaction.
     *
     * <p><em>Lifetime:</em> as {@link #connected(Mono)}; the transaction begins when the connection is opened.
     * <em>Endings:</em> commits when the source completes, and emits its element after that; rolls back when it fails or
     * the subscriber cancels. If the COMMIT fails, the element is discarded and its error is passed on.
     *
     * @param source a pipeline that gets its connections from {@link #connectionFactory()} or from scopes
     * @param <T> the type of the element
     * @return a {@code Mono} with a transaction for each subscription
     * @see #inTransaction(Function) to get the connection explicitly
     */
    public <T> Mono<T> transactional(Mono<T> source) {
        return transaction().mono(ScopeBody.upstream(Objects.requireNonNull(source, "source")));
    }

    /**
     * Runs everything upstream in one transaction, nested {@code flatMap}s included.
     *
     * <p><em>Lifetime:</em> as {@link #connected(Flux)}; the transaction begins when the connection is opened.
     * <em>Endings:</em> commits when the source completes, and completes after that; a COMMIT that fails is an error after
     * the elements. Rolls back when the source fails or the subscriber cancels.
     *
     * @param source a pipeline that gets its connections from {@link #connectionFactory()} or from scopes
     * @param <T> the type of the elements
     * @return a {@code Flux} with a transaction for each subscription
     * @throws IllegalArgumentException if its transactions are to be retried, but emit their elements as they come; see
     *     {@link TransactionOptions#withEmitAfterCommit(int)}
     * @see #inTransactionMany(Function) to get the connection explicitly
     */
    public <T> Flux<T> transactional(Flux<T> source) {
        return transaction().flux(ScopeBody.upstream(Objects.requireNonNull(source, "source")));
    }

    /**
     * Keeps everything upstream from joining the scopes of this factory that are downstream: it opens scopes of its own. For a
     * source inside a scope that must not use that scope's connection, such as one that reads in a transaction for as long as its
     * rows are wanted.
     *
     * <p>Opens nothing itself. A scope upstream that cannot get a second connection because scopes that wait hold them all fails
     * with {@link NestedAcquireDeadlockException}.
     *
     * @param source a pipeline with scopes of this factory
     * @param <T> the type of the elements
     * @return the same elements and endings
     */
    public <T> Flux<T> apart(Flux<T> source) {
        return source.contextWrite(root::apart);
    }

    // seen from inside, and from outside -----------------------------------------------------------------------------

    /**
     * Returns the connection factory as code inside a scope should see it. Libraries that are given it, such as Spring's
     * {@code DatabaseClient}, join the current scope without knowing of it, if they pass the Reactor Context on to it.
     *
     * <p>Inside a scope, {@code create()} emits the scope's connection, and closing it is left to the scope. Outside, it
     * is the plain factory, and whoever creates a connection closes it.
     *
     * @return the factory, always the same
     * @see #connectionFactory(ContextView) for libraries that do not, such as jOOQ
     */
    public ConnectionFactory connectionFactory() {
        return scopedFactory;
    }

    /**
     * Returns the connection factory as code inside the scope of the given Context should see it, for libraries that
     * subscribe to a factory without passing the Reactor Context on. jOOQ 3.19 is one:
     *
     * <pre>{@code
     * Flux<Record> records = Flux.deferContextual(
     *         context -> DSL.using(scopes.connectionFactory(context), SQLDialect.POSTGRES).selectFrom(ORDERS));
     * }</pre>
     *
     * @param context the Context of the pipeline, from {@code Flux.deferContextual} or {@code Mono.deferContextual}
     * @return a factory that is bound to that Context; without a scope in it, a plain one
     */
    public ConnectionFactory connectionFactory(ContextView context) {
        return new BoundConnectionFactory(scopedFactory, Objects.requireNonNull(context, "context"));
    }

    /**
     * Emits the current scope of this connection factory, where {@link CurrentScope#get()} emits the innermost one of
     * any.
     *
     * @return the scope; fails with {@link ScopePropagationException} if there is none, or if the Reactor Context was lost
     *     on the way
     */
    public Mono<CurrentScope> currentScope() {
        ScopeLabel caller = ScopeLabel.here("currentScope");
        return Mono.deferContextual(context -> Mono.just(CurrentScope.of(root.current(context), caller)));
    }

    /**
     * Lists the scopes that hold a connection or wait for one, over all variants, oldest first.
     *
     * @return a snapshot of each
     */
    public List<LiveScope> live() {
        return root.live().snapshot();
    }

    /**
     * Shuts the scopes down gracefully, over all variants: from the subscription on, new outermost scopes fail with
     * {@link ScopesDrainedException}, and those that live may end. Scopes inside live ones and in their hooks still open. There is no way
     * back.
     *
     * @param timeout how long to wait, positive
     * @return completes when the last connection was given back and the last hook has ended; fails with {@link ScopesDrainedException}, which lists
     *     the remaining scopes, if that takes longer than the timeout
     * @throws IllegalArgumentException if the timeout is zero or negative
     */
    public Mono<Void> drain(Duration timeout) {
        Duration bound = ScopeOptions.positive(timeout, "timeout");
        return root.live().drain(bound, ScopeLabel.here("drain"));
    }

    /**
     * Completes when a shutdown by {@link #drain} begins, over all variants: for scopes that would otherwise never end, such
     * as those of endless subscriptions, to end by themselves.
     *
     * @return completes then, or at once if it has begun
     */
    public Mono<Void> draining() {
        return root.live().draining();
    }

    /**
     * Returns the options of this variant.
     *
     * @return the options
     */
    public ScopeOptions options() {
        return options;
    }

    @Override
    public String toString() {
        return "ConnectionScopes[" + root.factory() + ", " + options + ", " + transactionOptions + "]";
    }

    private ScopeSpec plain() {
        return spec(null);
    }

    private ScopeSpec transaction() {
        return spec(transactionOptions);
    }

    private ScopeSpec spec(@Nullable TransactionOptions transaction) {
        return new ScopeSpec(root, options, transaction, transactionOptions, ScopeLabel.here(options.name()));
    }
}
