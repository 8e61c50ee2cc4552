package dev.r2dbcscope;

import java.util.Objects;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.core.publisher.Sinks;
import reactor.util.context.Context;

/**
 * A request to the connection itself: begin, commit, a savepoint, a setting, a validation.
 *
 * <p>It is exclusive, because drivers decide from a client-side status what to send, which is true only while nothing is
 * in flight. It runs to its end even if its subscriber cancels.
 *
 * @param <T> what it answers
 */
final class ControlExchange<T> extends Exchange implements CoreSubscriber<T> {

    private final Scope scope;
    private final Gate gate;
    private final String words;
    private final Supplier<? extends Publisher<? extends T>> source;
    private final Context context;
    private final Sinks.One<T> answer = Sinks.one();
    private @Nullable Subscription subscription;
    private volatile boolean left;
    private long startedAt;
    private boolean done;

    private ControlExchange(
            Scope scope, Gate gate, String words, Supplier<? extends Publisher<? extends T>> source, Context context) {
        this.scope = scope;
        this.gate = gate;
        this.words = words;
        this.source = source;
        this.context = context;
    }

    /** Passes the scope's gate when subscribed to. */
    static <T> Mono<T> through(Scope scope, String words, Supplier<? extends Publisher<? extends T>> source) {
        return Mono.deferContextual(context -> {
            RuntimeException closed = scope.closedErrorIfEnded();
            if (closed != null) {
                return Mono.error(closed);
            }
            return scope.sessionFor(context)
                    .open(context)
                    .flatMap(session -> enter(scope, session.gate(), words, source, Context.of(context)));
        });
    }

    private static <T> Mono<T> enter(
            Scope scope, Gate gate, String words, Supplier<? extends Publisher<? extends T>> source, Context context) {
        ScopeWork work = scope.scopeFor(context).work();
        if (!work.begin()) {
            return Mono.error(scope::closedError);
        }
        ControlExchange<T> exchange = new ControlExchange<>(scope, gate, words, source, context);
        exchange.countedBy(work);
        gate.enter(exchange);
        return exchange.answer.asMono().doOnCancel(exchange::leave);
    }

    @Override
    boolean isExclusive() {
        return true;
    }

    @Override
    String sql() {
        return words;
    }

    private void leave() {
        left = true;
        if (withdraw()) {
            gate.withdrawn();
        }
    }

    @Override
    void start() {
        if (left) {
            onComplete();
            return;
        }
        startedAt = System.nanoTime();
        try {
            Objects.requireNonNull(source.get(), "The driver returned a null publisher")
                    .subscribe(this);
        } catch (Throwable e) {
            onError(e);
        }
    }

    @Override
    void refuse(RuntimeException error) {
        tell(() -> answer.tryEmitError(error));
    }

    @Override
    void drain() {
        // it asks for everything from the start
    }

    @Override
    void abandon(RuntimeException error) {
        left = true;
        tell(() -> answer.tryEmitError(error));
    }

    @Override
    public Context currentContext() {
        return context;
    }

    @Override
    public void onSubscribe(Subscription s) {
        if (Operators.validate(subscription, s)) {
            subscription = s;
            s.request(Long.MAX_VALUE);
        }
    }

    @Override
    public void onNext(T value) {
        answered();
        tell(() -> answer.tryEmitValue(value));
    }

    @Override
    public void onError(Throwable error) {
        if (done) {
            Operators.onErrorDropped(error, context);
            return;
        }
        done = true;
        gate.owner().databaseFailed(error);
        Throwable shown = gate.owner().shown(error, words, System.nanoTime() - startedAt);
        gate.ended(this);
        tell(() -> answer.tryEmitError(shown));
    }

    @Override
    public void onComplete() {
        if (!done) {
            done = true;
            gate.ended(this);
            tell(answer::tryEmitEmpty);
        }
    }

    /** A subscriber must not throw; if one does, because of a fatal error, the scope fails instead of the driver. */
    private void tell(Runnable signal) {
        try {
            signal.run();
        } catch (Throwable e) {
            scope.subscriberThrew(e);
        }
    }
}
