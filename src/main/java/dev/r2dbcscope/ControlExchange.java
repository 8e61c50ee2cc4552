package dev.r2dbcscope;

import java.time.Duration;
import java.util.Objects;
import java.util.function.BiFunction;
import java.util.function.Function;
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
 * A request to the connection itself: begin, commit, a savepoint, a setting, a validation, or a {@link DriverTurn}.
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
    private final @Nullable DriverTurn turn;
    private final Sinks.One<T> answer = Sinks.one();
    private @Nullable Subscription subscription;
    private volatile boolean left;
    private volatile boolean done;

    private ControlExchange(
            Scope scope,
            Gate gate,
            String words,
            Supplier<? extends Publisher<? extends T>> source,
            @Nullable DriverTurn turn,
            Context context) {
        this.scope = scope;
        this.gate = gate;
        this.words = words;
        this.source = source;
        this.turn = turn;
        this.context = context;
    }

    /** Passes the scope's gate when subscribed to. */
    static <T> Mono<T> through(Scope scope, String words, Supplier<? extends Publisher<? extends T>> source) {
        return opened(scope, words, (session, context) -> enter(scope, session.gate(), words, source, null, context));
    }

    /** Passes the scope's gate when subscribed to, and lets the work know whether somebody still waits for it. */
    static <T> Mono<T> inTurn(
            Scope scope,
            String words,
            Function<Session, DriverTurn> turns,
            Function<? super DriverTurn, ? extends Publisher<? extends T>> work) {
        return opened(scope, words, (session, context) -> {
            DriverTurn turn = turns.apply(session);
            return enter(scope, session.gate(), words, () -> work.apply(turn), turn, context);
        });
    }

    private static <T> Mono<T> opened(Scope scope, String words, BiFunction<Session, Context, Mono<T>> then) {
        return Mono.deferContextual(context -> {
            RuntimeException closed = scope.refusal(words, context);
            if (closed != null) {
                return Mono.error(closed);
            }
            return scope.sessionFor(context).open(context).flatMap(session -> then.apply(session, Context.of(context)));
        });
    }

    private static <T> Mono<T> enter(
            Scope scope,
            Gate gate,
            String words,
            Supplier<? extends Publisher<? extends T>> source,
            @Nullable DriverTurn turn,
            Context context) {
        RuntimeException waitsForItself = DriverTurn.refusal(gate, context, words);
        if (waitsForItself != null) {
            return Mono.error(waitsForItself);
        }
        ScopeWork work = scope.scopeFor(context).work();
        if (!work.begin()) {
            return Mono.error(scope::closedError);
        }
        ControlExchange<T> exchange = new ControlExchange<>(scope, gate, words, source, turn, context);
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

    @Override
    boolean holdsForOthers() {
        return turn != null && turn.hasProgress();
    }

    @Override
    @Nullable
    Pause pause() {
        return turn == null ? null : turn.pause(this);
    }

    /** Drivers end BEGIN and COMMIT soon, and what a turn runs for nobody ends by itself; see {@link #cancelGrace}. */
    @Override
    boolean isUnwanted() {
        return turn != null && left;
    }

    /** What knows how to come to its end, such as COPY, is cancelled only when nothing else has helped. */
    @Override
    Duration cancelGrace(ScopeOptions options) {
        return turn != null && turn.isCancellable()
                ? options.cancelGrace()
                : options.releaseTimeout().dividedBy(2);
    }

    private void leave() {
        left = true;
        if (withdraw()) {
            gate.withdrawn();
        } else {
            tellTurn();
            gate.unwanted();
        }
    }

    private void endTurn() {
        if (turn != null) {
            turn.ended();
        }
    }

    private void tellTurn() {
        if (turn != null) {
            tell(turn::leave);
        }
    }

    @Override
    void start() {
        if (left) {
            onComplete();
            return;
        }
        starting();
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
        if (done) {
            return; // its own answer is on its way, and may be the reason
        }
        left = true;
        tell(() -> answer.tryEmitError(error));
        tellTurn();
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
        databaseFailed(gate.owner(), error);
        Throwable shown = gate.owner().shown(error, words, ran());
        endTurn();
        gate.ended(this);
        tell(() -> answer.tryEmitError(shown));
    }

    @Override
    public void onComplete() {
        if (!done) {
            done = true;
            endTurn();
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
