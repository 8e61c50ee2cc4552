package dev.r2dbcscope;

import io.r2dbc.spi.ConnectionFactory;
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
 */
record ScopeSpec(
        ScopeRoot root, ScopeOptions options, @Nullable TransactionOptions transaction, ScopeLabel label) {

    <T> Mono<T> mono(ScopeBody<T> body) {
        return ScopeMono.assemble(this, body);
    }

    <T> Flux<T> flux(ScopeBody<T> body) {
        return ScopeFlux.assemble(this, body);
    }

    /** Joins the current scope of the same {@link ConnectionFactory}, or makes one that owns a session. */
    private Scope enter(ContextView context) {
        boolean transactional = transaction != null;
        Scope current = root.current(context);
        if (current == null) {
            if (root.live().isDraining()) {
                throw root.live().refusal(label);
            }
            Scope around = ScopeRoot.innermost(context);
            Session parent = around == null ? null : around.session();
            return Scope.owning(Session.ownConnection(this, transaction, parent), transactional, context);
        }
        RuntimeException closed = current.closedErrorIfEnded();
        if (closed != null) {
            throw closed;
        }
        Session outer = current.session();
        if (transaction == null || outer.isTransactional()) {
            return Scope.joining(outer, label, transactional, context);
        }
        return Scope.owning(Session.within(outer, this, transaction), true, context);
    }

    private <T> @Nullable ScopeSubscriber<T> subscriber(CoreSubscriber<? super T> actual, ScopeBody<T> body) {
        try {
            return new ScopeSubscriber<>(actual, enter(actual.currentContext()), body);
        } catch (ScopeException refused) {
            Operators.error(actual, refused);
            return null;
        }
    }

    /** A scope of at most one element, which is emitted after the exit. */
    private static final class ScopeMono<T> extends Mono<T> {

        private final ScopeSpec spec;
        private final ScopeBody<T> body;

        private ScopeMono(ScopeSpec spec, ScopeBody<T> body) {
            this.spec = spec;
            this.body = body;
        }

        static <T> Mono<T> assemble(ScopeSpec spec, ScopeBody<T> body) {
            return onAssembly(new ScopeMono<>(spec, body));
        }

        @Override
        public void subscribe(CoreSubscriber<? super T> actual) {
            ScopeSubscriber<T> subscriber = spec.subscriber(actual, body);
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
            ScopeSubscriber<T> subscriber = spec.subscriber(actual, body);
            if (subscriber != null) {
                subscriber.subscribeFlux();
            }
        }
    }
}
