package dev.r2dbcscope.testkit;

import dev.r2dbcscope.DriverTurn;
import dev.r2dbcscope.ScopeAcquisitionException;
import dev.r2dbcscope.ScopeRolledBackException;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.TransactionDefinition;
import java.time.Duration;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.Context;
import reactor.util.context.ContextView;

/**
 * The transactions of one logical connection: which place it is at, and how it moves on to the next.
 *
 * <p>It moves when a change is subscribed to, not when that is done, so that what is subscribed to next follows it. Changes
 * run to their end, whoever stops waiting for them.
 */
final class LogicalTransactions {

    /** As long as scopes wait before they ask the database to cancel something. */
    private static final Duration GRACE = Duration.ofMillis(20);

    private static final String CHECK = "sandbox_check";

    private final SandboxRun run;
    private final LogicalConnection owner;
    private Place place;

    LogicalTransactions(SandboxRun run, LogicalConnection owner) {
        this.run = run;
        this.owner = owner;
        this.place = run.place();
    }

    boolean isAutoCommit() {
        return !place().isTransaction();
    }

    /** The isolation level of the transaction, if it was begun with one. */
    @Nullable
    IsolationLevel isolation() {
        return place().isolation();
    }

    private synchronized Place place() {
        return place;
    }

    private synchronized boolean move(Place from, Place to) {
        boolean there = place == from;
        if (there) {
            place = to;
        }
        return there;
    }

    // statements -----------------------------------------------------------------------------------------------------

    /** Does something in the place where the connection is now. */
    <T> Flux<T> in(ContextView application, BiFunction<Place, ContextView, Flux<T>> work) {
        Place at = place();
        Place other = at.isShared() ? placeAround(application) : null;
        if (other != null) {
            return other.context()
                    .flatMapMany(context -> work.apply(at, context))
                    .onErrorMap(owner::told);
        }
        return at.context()
                .flatMapMany(context -> work.apply(at, context))
                .onErrorResume(ScopeAcquisitionException.class, e -> {
                    Place busy = at.isShared() ? nestedPlace() : null;
                    return busy == null
                            ? Flux.error(e)
                            : busy.context().flatMapMany(context -> work.apply(at, context));
                })
                .onErrorMap(owner::told);
    }

    /** The same of what has one answer, and is not cancelled when it has come. */
    <T> Mono<T> inMono(ContextView application, BiFunction<Place, ContextView, Mono<T>> work) {
        return in(application, (at, context) -> work.apply(at, context).flux()).singleOrEmpty();
    }

    /** Asks something of the real connection itself. */
    <T> Mono<T> control(
            ContextView application, Function<? super Connection, ? extends Publisher<? extends T>> request) {
        return inMono(
                application,
                (at, context) -> Mono.defer(() -> {
                            Connection own = at.connection();
                            return Mono.<T>from(request.apply(own == null ? run.handle() : own));
                        })
                        .contextWrite(mine -> mine.putAll(context)));
    }

    /** The place of a transaction that waits for what comes now, by the Context. */
    private @Nullable Place placeAround(ContextView application) {
        LogicalConnection holder = run.holder();
        if (holder == null || holder == owner || !holder.isHeldAround(application)) {
            return null;
        }
        Place nested = nestedPlace();
        if (nested == null) {
            throw run.busy(owner, null);
        }
        return nested;
    }

    /** The place of whoever has the real connection for itself, if what waits for it is to be nested. */
    private @Nullable Place nestedPlace() {
        LogicalConnection holder = run.holder();
        return run.options().nesting() && holder != null && holder != owner ? holder.place() : null;
    }

    Place current() {
        return place();
    }

    // beginning ------------------------------------------------------------------------------------------------------

    /** Begins a transaction, unless there is one. */
    Mono<Void> begin(ContextView application, @Nullable TransactionDefinition definition) {
        return Mono.defer(() -> {
            Place at = place();
            if (!at.isTransaction()) {
                Place begun = at.transaction(
                        definition == null ? null : definition.getAttribute(TransactionDefinition.ISOLATION_LEVEL));
                if (!move(at, begun)) {
                    return begin(application, definition);
                }
                boolean readOnly = definition != null
                        && Boolean.TRUE.equals(definition.getAttribute(TransactionDefinition.READ_ONLY));
                take(begun, application, readOnly);
                return begun.context().then();
            }
            return at.context().then();
        });
    }

    /** Has the real connection for the connection alone from now on, until it is closed. */
    void pin() {
        Place at = place();
        if (at.isShared()) {
            Place pinned = at.pinned();
            if (move(at, pinned)) {
                take(pinned, Context.empty(), false);
            }
        }
    }

    private void take(Place taken, ContextView application, boolean readOnly) {
        Mono.defer(() -> {
                    Place other = taken.around().isShared() ? placeAround(application) : null;
                    return other == null
                            ? taken.take(run.sections()).onErrorResume(ScopeAcquisitionException.class, e -> {
                                Place busy = taken.around().isShared() ? nestedPlace() : null;
                                return busy == null ? Mono.error(e) : taken.takeInside(busy, run.sections());
                            })
                            : taken.takeInside(other, run.sections());
                })
                .doOnNext(context -> run.holds(owner))
                .flatMap(context -> readOnly ? readOnly(context).thenReturn(context) : Mono.just(context))
                .subscribe(taken::ready, e -> notTaken(taken, e));
    }

    private void notTaken(Place taken, Throwable error) {
        run.holdsNoMore(owner);
        move(taken, taken.around());
        taken.failed(owner.told(error));
    }

    private Mono<Void> readOnly(ContextView context) {
        return turn(context, "beginning a read-only transaction", () -> {
            Publisher<Void> made = run.dialect().makeReadOnly(run.real());
            return made == null ? Mono.empty() : made;
        });
    }

    private Mono<Void> turn(ContextView context, String what, Supplier<? extends Publisher<?>> work) {
        return DriverTurn.take(run.handle(), what, turn -> Flux.from(work.get()).then())
                .contextWrite(own -> own.putAll(context))
                .then();
    }

    // ending ---------------------------------------------------------------------------------------------------------

    Mono<Void> commit() {
        return end(this::commit);
    }

    Mono<Void> rollback() {
        return end(transaction -> transaction.section().rollback());
    }

    private Mono<Void> end(Function<Place, Mono<Void>> how) {
        return Mono.defer(() -> {
            Place transaction = place();
            if (!transaction.isTransaction()) {
                return Mono.empty();
            }
            if (!move(transaction, transaction.around())) {
                return end(how);
            }
            return detached(transaction
                    .context()
                    .then(Mono.defer(() -> how.apply(transaction)))
                    .doOnTerminate(() -> run.holdsNoMore(owner)));
        });
    }

    private Mono<Void> commit(Place transaction) {
        return transaction
                .context()
                .flatMap(context -> restored(transaction, context).then(checked(context)))
                .onErrorResume(refused -> transaction
                        .section()
                        .rollback()
                        .onErrorResume(e -> Mono.empty())
                        .then(Mono.error(refused)))
                .then(Mono.defer(() -> transaction.section().commit()))
                .onErrorMap(ScopeRolledBackException.class, LogicalTransactions::rolledBack);
    }

    /** What was local to the transaction; in one that has failed, the rollback does it. */
    private Mono<Void> restored(Place transaction, ContextView context) {
        return Flux.fromIterable(transaction.atCommit())
                .concatMap(step -> turn(context, "restoring the settings of a transaction", step))
                .then()
                .onErrorComplete();
    }

    /** In a savepoint that is rolled back to, so that constraints are as deferred afterwards as they were. */
    private Mono<Void> checked(ContextView context) {
        if (!run.options().deferredConstraintsChecked()) {
            return Mono.empty();
        }
        return turn(
                context,
                "checking deferred constraints",
                () -> Flux.from(run.real().createSavepoint(CHECK))
                        .thenMany(Flux.defer(() -> run.real()
                                .createStatement("SET CONSTRAINTS ALL IMMEDIATE")
                                .execute()))
                        .concatMap(result -> result.getRowsUpdated())
                        .thenMany(Flux.defer(() -> run.real().rollbackTransactionToSavepoint(CHECK)))
                        .thenMany(Flux.defer(() -> run.real().releaseSavepoint(CHECK))));
    }

    /** Has something done before the transaction is committed, if there is one. */
    void atCommit(Supplier<? extends Publisher<?>> step) {
        place().atCommit(step);
    }

    private static Throwable rolledBack(Throwable error) {
        return new R2dbcRollbackException(
                "The transaction was rolled back instead of committed, because a statement in it had failed", error);
    }

    /** Ends everything: what was done in a transaction is undone, what was done before is not. */
    Mono<Void> close() {
        Place last;
        synchronized (this) {
            last = place;
            place = run.place();
        }
        stopRunning();
        if (last.isShared()) {
            return Mono.empty();
        }
        Mono<Void> end = last.isTransaction() ? last.section().abort() : unpin(last);
        Place around = last.around();
        return detached((last.isTransaction() && !around.isShared() ? end.then(unpin(around)) : end)
                .doOnTerminate(() -> run.holdsNoMore(owner)));
    }

    private static Mono<Void> unpin(Place pinned) {
        return Mono.defer(() -> pinned.connection() == null
                ? pinned.section().abort()
                : pinned.section().commit());
    }

    private void stopRunning() {
        Mono<Void> request = run.cancelRunning(owner, run.dialect());
        if (request != null && run.isRunning(owner)) {
            Mono.delay(GRACE).then(request).subscribe(null, e -> {});
        }
    }

    private static Mono<Void> detached(Mono<Void> change) {
        Sinks.Empty<Void> over = Sinks.empty();
        change.subscribe(null, over::tryEmitError, over::tryEmitEmpty);
        return over.asMono();
    }
}
