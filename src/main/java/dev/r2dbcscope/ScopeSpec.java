package dev.r2dbcscope;

import io.r2dbc.spi.ConnectionFactory;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.ContextView;

/**
 * What was fixed when a scope was assembled; each subscription makes a scope from it.
 *
 * @param transaction how its transaction begins, or {@code null} for a plain scope
 * @param endings what it does when it is cancelled, transaction or not
 */
record ScopeSpec(
        ScopeRoot root,
        ScopeOptions options,
        @Nullable TransactionOptions transaction,
        TransactionOptions endings,
        ScopeLabel label) {

    <T> Mono<T> mono(ScopeBody<T> body) {
        RetryPolicy retry = transaction == null ? null : transaction.retry();
        Mono<T> once = ScopeMono.assemble(this, body, session -> {});
        return retry == null
                ? once
                : Mono.deferContextual(context -> begins(context) ? retried(body, new Attempts(retry, label)) : once);
    }

    <T> Flux<T> flux(ScopeBody<T> body) {
        int max = transaction == null ? 0 : transaction.emitAfterCommit();
        if (max > 0) {
            return HeldBack.emit(mono(body.through(elements -> HeldBack.collect(elements, max, label))));
        }
        if (transaction != null && transaction.retry() != null) {
            throw new IllegalArgumentException(
                    "A Flux cannot be retried while it emits its elements as they come, because"
                            + " those cannot be taken back; add TransactionOptions.withEmitAfterCommit(max), or leave out"
                            + " withRetry for this one [" + label + "]");
        }
        return ScopeFlux.assemble(this, body);
    }

    private <T> Mono<T> retried(ScopeBody<T> body, Attempts attempts) {
        return ScopeMono.assemble(this, body, attempts::beginning).retryWhen(attempts);
    }

    /** Joins the current scope of the same {@link ConnectionFactory}, or makes one that owns a session. */
    private Scope enter(ContextView context) {
        Scope current = root.current(context);
        if (root.live().isDraining() && !root.belongsToALiveOne(context)) {
            throw root.live().refusal(label);
        }
        RuntimeException closed = current == null ? null : current.closedErrorIfEnded();
        if (current != null && closed != null && !(current.isUnopened() && isIndependentOf(current))) {
            throw closed;
        }
        if (transaction == null) {
            return plain(current, context);
        }
        Session around = current == null ? null : current.session();
        if (around == null || !around.isTransactional()) {
            return switch (transaction.propagation()) {
                case REQUIRED, REQUIRES_NEW, NESTED -> begin(around, transaction, context);
                case SUPPORTS, NOT_SUPPORTED, NEVER -> plain(current, context);
                case MANDATORY ->
                    throw new ScopePropagationException(
                            "MANDATORY, and there is no transaction to join"
                                    + (around == null ? "" : " in " + around.label())
                                    + ": call it from within a transaction, or choose REQUIRED",
                            label);
            };
        }
        return switch (transaction.propagation()) {
            case REQUIRED, MANDATORY, SUPPORTS -> join(around, transaction, context);
            case NESTED -> {
                transaction.requirePartOf(around.beginner(), label);
                yield within(around, transaction, context);
            }
            case REQUIRES_NEW -> ownConnection(transaction, context);
            case NOT_SUPPORTED -> ownConnection(null, context);
            case NEVER ->
                throw new ScopePropagationException(
                        "NEVER, and there is a transaction, of " + around.label()
                                + ": call it from outside, or choose NOT_SUPPORTED",
                        label);
        };
    }

    /** Whether a subscription with this Context begins a transaction, which is more than joining one. */
    boolean begins(ContextView context) {
        if (transaction == null) {
            return false;
        }
        Scope current = root.current(context);
        return switch (transaction.propagation()) {
            case REQUIRED, NESTED -> current == null || !current.session().isTransactional();
            case REQUIRES_NEW -> true;
            case MANDATORY, SUPPORTS, NOT_SUPPORTED, NEVER -> false;
        };
    }

    /** Whether it gets a connection of its own, so that it can do without the one that could not be opened around it. */
    private boolean isIndependentOf(Scope current) {
        return transaction != null
                && current.session().isTransactional()
                && (transaction.propagation() == Propagation.REQUIRES_NEW
                        || transaction.propagation() == Propagation.NOT_SUPPORTED);
    }

    private Scope plain(@Nullable Scope current, ContextView context) {
        return current == null ? ownConnection(null, context) : join(current.session(), false, context);
    }

    private Scope begin(@Nullable Session around, TransactionOptions transaction, ContextView context) {
        return around == null ? ownConnection(transaction, context) : within(around, transaction, context);
    }

    private Scope join(Session around, TransactionOptions transaction, ContextView context) {
        transaction.requirePartOf(around.beginner(), label);
        return join(around, true, context);
    }

    private Scope join(Session around, boolean transactional, ContextView context) {
        around.settings().requireSameAs(options.settings().resolve(context, label), label);
        return Scope.joining(around, label, transactional, context);
    }

    private Scope ownConnection(@Nullable TransactionOptions transaction, ContextView context) {
        return Scope.owning(
                Session.ownConnection(this, transaction, parent(context), root.belongsToALiveOne(context)), context);
    }

    private Scope within(Session around, TransactionOptions transaction, ContextView context) {
        return Scope.owning(Session.within(around, this, transaction, parent(context)), context);
    }

    private static @Nullable Session parent(ContextView context) {
        Scope innermost = ScopeRoot.innermost(context);
        return innermost == null ? null : innermost.session();
    }

    private <T> @Nullable ScopeSubscriber<T> subscriber(
            CoreSubscriber<? super T> actual, ScopeBody<T> body, Consumer<Session> beginning) {
        try {
            Scope scope = enter(actual.currentContext()).endingAs(endings);
            beginning.accept(scope.session());
            return new ScopeSubscriber<>(actual, scope, body);
        } catch (ScopeException refused) {
            Operators.error(actual, refused);
            return null;
        }
    }

    /** A scope of at most one element, which is emitted after the exit. */
    private static final class ScopeMono<T> extends Mono<T> {

        private final ScopeSpec spec;
        private final ScopeBody<T> body;
        private final Consumer<Session> beginning;

        private ScopeMono(ScopeSpec spec, ScopeBody<T> body, Consumer<Session> beginning) {
            this.spec = spec;
            this.body = body;
            this.beginning = beginning;
        }

        static <T> Mono<T> assemble(ScopeSpec spec, ScopeBody<T> body, Consumer<Session> beginning) {
            return onAssembly(new ScopeMono<>(spec, body, beginning));
        }

        @Override
        public void subscribe(CoreSubscriber<? super T> actual) {
            ScopeSubscriber<T> subscriber = spec.subscriber(actual, body, beginning);
            if (subscriber != null) {
                subscriber.subscribeMono();
            }
        }
    }

    /** A scope of any number of elements, which are emitted as they come. */
    private static final class ScopeFlux<T> extends Flux<T> {

        private final ScopeSpec spec;
        private final ScopeBody<T> body;

        private ScopeFlux(ScopeSpec spec, ScopeBody<T> body) {
            this.spec = spec;
            this.body = body;
        }

        static <T> Flux<T> assemble(ScopeSpec spec, ScopeBody<T> body) {
            return onAssembly(new ScopeFlux<>(spec, body));
        }

        @Override
        public void subscribe(CoreSubscriber<? super T> actual) {
            ScopeSubscriber<T> subscriber = spec.subscriber(actual, body, session -> {});
            if (subscriber != null) {
                subscriber.subscribeFlux();
            }
        }
    }
}
