package dev.r2dbcscope;

import java.util.Objects;
import java.util.function.Function;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * The scope that code runs in, as that code sees it: what it is called, what is to happen after it, and whether its
 * transaction may commit.
 *
 * <pre>{@code
 * Mono<Void> placed = scopes.inTransaction(c -> insert(c, order)
 *         .then(CurrentScope.get())
 *         .doOnNext(scope -> scope.afterCommit(mailer.confirm(order)))
 *         .then());
 * }</pre>
 *
 * <h2>Hooks</h2>
 *
 * <p>A hook belongs to the transaction, from whichever scope that joined it it is registered. Hooks run one after the
 * other, in the order of their registration, after the connection was given back, so they can open scopes of their own on
 * the smallest pool. They are part of the exit: the subscriber gets its terminal signal after them, {@link
 * ConnectionScopes#drain} waits for them, and after a cancel they run as well. They see the Reactor Context downstream of
 * the scope that began the transaction. Each is bounded by {@link ScopeOptions#withHookTimeout}. The work is over when a
 * hook runs: its error, or that it takes too long, is logged and told to the listeners by {@link ScopeEvent.HookFailed},
 * changes nothing for the subscriber, and does not keep the next hook from running.
 *
 * <p>The hooks of a savepoint that is released become those of the transaction around it, in order. If it is rolled back
 * to, its commit hooks are dropped, and the others run after the transaction around it, whatever becomes of that.
 *
 * <p>Which hooks run is a matter of the {@link TransactionOutcome}: if it is unknown whether the transaction was
 * committed, only those of {@link #afterCompletion} do. A transactional pipeline that completed without ever using its
 * connection counts as committed.
 *
 * <p>Thread-safe. Registering a hook and marking the transaction fail with {@link ScopeClosedException} after the end of
 * the scope.
 */
public final class CurrentScope {

    private static final Object ACQUIRING = new Object() {
        @Override
        public String toString() {
            return "the connection scope that asks for a connection";
        }
    };

    private final Scope scope;
    private final Session session;

    CurrentScope(Scope scope) {
        this.scope = scope;
        this.session = scope.session();
    }

    /**
     * Emits the innermost scope of the pipeline, of whatever connection factory.
     *
     * @return the scope; fails with {@link ScopePropagationException} if there is none, or if the Reactor Context was lost
     *     on the way
     * @see ConnectionScopes#currentScope() for the scope of one factory
     */
    public static Mono<CurrentScope> get() {
        ScopeLabel caller = ScopeLabel.here("CurrentScope.get");
        return Mono.deferContextual(context -> Mono.just(of(ScopeRoot.innermost(context), caller)));
    }

    /**
     * Returns the innermost scope of a pipeline, of whatever connection factory.
     *
     * @param context the Context of the pipeline, from {@code Mono.deferContextual} or {@code Flux.deferContextual}
     * @return the scope
     * @throws ScopePropagationException if there is none
     */
    public static CurrentScope from(ContextView context) {
        Objects.requireNonNull(context, "context");
        Scope innermost = ScopeRoot.innermost(context);
        return innermost != null ? new CurrentScope(innermost) : of(null, ScopeLabel.here("CurrentScope.from"));
    }

    /**
     * Returns the scope that asks a connection factory for a connection. For factories that wrap another one and want to
     * know for whom: the Context is the one in which their {@code create()} is subscribed to.
     *
     * @param context the Context, from {@code Mono.deferContextual}
     * @return the scope, which waits for its connection; {@code null} if it is not a scope that asks
     */
    public static @Nullable CurrentScope acquiring(ContextView context) {
        Scope asking = context.getOrDefault(ACQUIRING, null);
        return asking == null ? null : new CurrentScope(asking);
    }

    /** Marks the Context of an acquisition. */
    static Context acquiring(@Nullable Scope asking, Context context) {
        return asking == null ? context : context.put(ACQUIRING, asking);
    }

    static CurrentScope of(@Nullable Scope found, ScopeLabel caller) {
        if (found == null) {
            throw new ScopePropagationException(
                    "There is no current scope: ask for it upstream of connected or transactional, or in the function of"
                            + " a scope, where the Reactor Context has it",
                    caller);
        }
        return new CurrentScope(found);
    }

    /**
     * Returns the name of the scope.
     *
     * @return the name, see {@link ScopeOptions#withName(String)}
     */
    public String name() {
        return scope.label().name();
    }

    /**
     * Returns where the scope was assembled.
     *
     * @return class, method, file and line
     */
    public String origin() {
        return scope.label().origin();
    }

    /**
     * Returns what the scope looks like at the moment, as {@link ConnectionScopes#live()} shows it: the one that holds the
     * connection, if this one has joined it.
     *
     * @return a snapshot, also after the scope's end
     */
    public LiveScope snapshot() {
        return session.report().snapshot();
    }

    /**
     * Says whether the code runs in a transaction, begun by this scope or by the one that it has joined.
     *
     * @return {@code true} in a transaction or a savepoint
     */
    public boolean isTransactional() {
        return session.isTransactional();
    }

    /**
     * Lets the transaction end with a rollback.
     *
     * <p>By the scope that began the transaction, or the savepoint, this is a choice: the pipeline ends as it would, with its
     * elements and without an error. By a scope that has joined, it is news to the one that began the transaction, which
     * fails with {@link ScopeRolledBackException} when it completes.
     *
     * @throws ScopePropagationException if there is no transaction
     * @throws ScopeClosedException after the end of the scope
     */
    public void setRollbackOnly() {
        requireTransaction("be rolled back");
        if (!scope.requestRollback()) {
            throw scope.closedError();
        }
    }

    /**
     * Says whether the transaction will be rolled back even if its pipeline completes, because {@link #setRollbackOnly} was
     * called or a scope that had joined it failed.
     *
     * @return {@code true} if it will; {@code false} without a transaction
     */
    public boolean isRollbackOnly() {
        return session.rollbackMark().isMarked();
    }

    /**
     * Registers what to run if the transaction is committed.
     *
     * @param hook subscribed to after the connection was given back; its elements are discarded
     * @throws ScopePropagationException if there is no transaction
     * @throws ScopeClosedException after the end of the scope
     * @throws HookOverflowException if the scope has 100,000 hooks already
     */
    public void afterCommit(Publisher<?> hook) {
        Objects.requireNonNull(hook, "hook");
        requireTransaction("be committed");
        register(outcome -> outcome == TransactionOutcome.COMMITTED, outcome -> hook);
    }

    /**
     * Registers what to run if the transaction is rolled back.
     *
     * @param hook subscribed to after the connection was given back; its elements are discarded
     * @throws ScopePropagationException if there is no transaction
     * @throws ScopeClosedException after the end of the scope
     * @throws HookOverflowException if the scope has 100,000 hooks already
     */
    public void afterRollback(Publisher<?> hook) {
        Objects.requireNonNull(hook, "hook");
        requireTransaction("be rolled back");
        register(outcome -> outcome == TransactionOutcome.ROLLED_BACK, outcome -> hook);
    }

    /**
     * Registers what to run whatever becomes of the transaction, or after a plain scope.
     *
     * @param hook called after the connection was given back, with what became of the transaction; {@link
     *     TransactionOutcome#NONE} in a plain scope. The elements of what it returns are discarded
     * @throws ScopeClosedException after the end of the scope
     * @throws HookOverflowException if the scope has 100,000 hooks already
     */
    public void afterCompletion(Function<? super TransactionOutcome, ? extends Publisher<?>> hook) {
        Objects.requireNonNull(hook, "hook");
        register(outcome -> true, hook);
    }

    /**
     * Emits that the scope has given its connection back: to the pool, or to the scope around it whose connection it used.
     * A scope that has joined another one has the connection of that one. It can be waited for by whoever kept this object,
     * also after a cancel, which nothing downstream can wait for.
     *
     * @return completes when the connection was given back, or when the scope no longer waits for one; one that comes after that
     *     is given back unused, for which {@link ConnectionScopes#drain} waits. Never fails
     */
    public Mono<Void> released() {
        return session.released();
    }

    @Override
    public String toString() {
        return "CurrentScope[" + scope.label() + "]";
    }

    private void requireTransaction(String what) {
        if (!session.isTransactional()) {
            throw new ScopePropagationException(
                    "There is no transaction that could " + what
                            + ": the scope is a plain one; use inTransaction or transactional",
                    scope.label());
        }
    }

    private void register(
            Predicate<TransactionOutcome> wants, Function<? super TransactionOutcome, ? extends Publisher<?>> action) {
        scope.requireOpen();
        if (!session.hooks().add(new ScopeHooks.Hook(wants, action))) {
            throw scope.closedError();
        }
    }
}
