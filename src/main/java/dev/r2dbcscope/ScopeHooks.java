package dev.r2dbcscope;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * What code inside a scope wants to run after the connection was given back.
 *
 * <p>A hook is accepted until the exit decides what became of the transaction, or refused: it is never lost in between.
 * Those of a savepoint go to the transaction around it, because only that one's end decides about them.
 */
final class ScopeHooks {

    /** Beyond this they are a leak, or should be one hook for many elements. */
    static final int MOST = 100_000;

    private final Session session;

    /** How many this scope and the savepoints in it have accepted. */
    private final AtomicInteger accepted = new AtomicInteger();

    private List<Hook> hooks = List.of();
    private @Nullable TransactionOutcome outcome;
    private @Nullable ScopeHooks around;

    /**
     * One hook.
     *
     * @param wants the outcomes in which it runs
     * @param action makes what it does
     */
    record Hook(
            Predicate<TransactionOutcome> wants,
            Function<? super TransactionOutcome, ? extends @Nullable Publisher<?>> action) {

        /** This hook for an outcome that is fixed already, whatever becomes of what is around it. */
        Hook decided(TransactionOutcome fixed) {
            return new Hook(any -> true, any -> action.apply(fixed));
        }

        Publisher<?> publisher(TransactionOutcome how) {
            return Objects.requireNonNull(action.apply(how), "The hook returned a null publisher");
        }
    }

    ScopeHooks(Session session) {
        this.session = session;
    }

    /** Accepts a hook, unless it is too late; fails if there are too many. */
    boolean add(Hook hook) {
        if (session.beginner().hooks().accepted.incrementAndGet() > MOST) {
            session.beginner().hooks().accepted.decrementAndGet();
            throw new HookOverflowException(MOST, session.label());
        }
        return addAll(List.of(hook));
    }

    private synchronized boolean addAll(List<Hook> more) {
        if (outcome != null) {
            return false;
        }
        if (hooks.isEmpty()) {
            hooks = new ArrayList<>();
        }
        hooks.addAll(more);
        return true;
    }

    /**
     * Accepts no more; what became of the transaction is decided by the first call. A savepoint that ends after what is around
     * it shares the end of that.
     */
    void decide(TransactionOutcome how, @Nullable ScopeHooks around) {
        TransactionOutcome decided;
        List<Hook> due;
        synchronized (this) {
            if (outcome == null) {
                outcome = how;
                this.around = around;
            }
            decided = outcome;
            due = hooks;
        }
        if (due.isEmpty()) {
            return;
        }
        ScopeHooks heir = around;
        while (heir != null && !heir.takeOver(due, decided)) {
            decided = decided == TransactionOutcome.COMMITTED ? heir.outcome() : decided;
            heir = heir.around();
        }
        if (heir != null) {
            takeAll();
        } else {
            outcome(decided);
            session.root().live().finishing(session);
        }
    }

    /** Takes the hooks of a savepoint; refuses if it is too late, and then they run by themselves. */
    private boolean takeOver(List<Hook> inner, TransactionOutcome how) {
        return addAll(
                how == TransactionOutcome.COMMITTED
                        ? inner
                        : inner.stream()
                                .filter(hook -> hook.wants().test(how))
                                .map(hook -> hook.decided(how))
                                .toList());
    }

    private synchronized List<Hook> takeAll() {
        List<Hook> all = hooks;
        hooks = List.of();
        return all;
    }

    private synchronized TransactionOutcome outcome() {
        return Objects.requireNonNull(outcome);
    }

    private synchronized void outcome(TransactionOutcome decided) {
        outcome = decided;
    }

    private synchronized @Nullable ScopeHooks around() {
        return around;
    }

    /** Runs what has been decided, after the given end of the exit, and passes that end on. */
    Mono<Void> after(Mono<Void> end) {
        if (end == Completion.NOW) {
            return run();
        }
        return end.onErrorResume(error -> run().then(Mono.error(error))).then(Mono.defer(this::run));
    }

    private Mono<Void> run() {
        List<Hook> due = takeAll();
        if (due.isEmpty()) {
            return Mono.empty();
        }
        TransactionOutcome how = outcome();
        return Flux.fromIterable(due)
                .filter(hook -> hook.wants().test(how))
                .concatMap(hook -> run(hook, how))
                .then(Mono.fromRunnable(() -> session.root().live().finished(session)));
    }

    /** Whatever it does, it changes nothing: the work is over. */
    private Mono<Void> run(Hook hook, TransactionOutcome how) {
        Duration bound = session.options().hookTimeout();
        Sinks.Empty<Void> stop = Sinks.empty();
        return Shield.bounded(
                        () -> Flux.from(hook.publisher(how))
                                .takeUntilOther(stop.asMono())
                                .contextWrite(session.root()::withoutEnded),
                        bound,
                        () -> ScopeTimeoutException.hook(bound, session.report().snapshot(), session.label()))
                .onErrorResume(error -> {
                    stop.tryEmitEmpty();
                    session.report().hookFailed(error);
                    return Mono.empty();
                });
    }
}
