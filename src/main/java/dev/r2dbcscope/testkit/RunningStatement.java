package dev.r2dbcscope.testkit;

import dev.r2dbcscope.StatementGuard;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Signal;
import reactor.core.publisher.Sinks;

/**
 * One statement of a logical connection on the shared one. Outside a transaction of the application it has a savepoint of its
 * own. It knows whether the database is at work on it, so that a request to cancel it hits nothing else: neither what comes
 * before and after it nor the statement of another connection.
 */
final class RunningStatement implements StatementGuard {

    private final SandboxRun run;
    private final LogicalConnection owner;
    private final boolean standsAlone;
    private boolean runs;
    private @Nullable Mono<Void> request;

    RunningStatement(SandboxRun run, LogicalConnection owner, boolean standsAlone) {
        this.run = run;
        this.owner = owner;
        this.standsAlone = standsAlone;
    }

    boolean belongsTo(LogicalConnection connection) {
        return owner == connection;
    }

    @Override
    public Mono<Void> before() {
        Mono<Void> savepoint = standsAlone ? run.setSavepoint() : Mono.empty();
        return savepoint.then(Mono.fromRunnable(this::begins));
    }

    private void begins() {
        synchronized (this) {
            runs = true;
        }
        run.runs(this);
    }

    @Override
    public Mono<Void> after(@Nullable Throwable error) {
        run.runs(null);
        Mono<Void> asked;
        synchronized (this) {
            runs = false;
            asked = request == null ? Mono.empty() : request;
        }
        if (!standsAlone) {
            return asked;
        }
        return asked.then(Mono.defer(() -> error == null ? run.releaseSavepoint() : run.rollbackToSavepoint()));
    }

    /** Runs work in the place of a statement. */
    <T> Flux<T> around(Supplier<? extends Publisher<? extends T>> work) {
        return before().thenMany(
                        Flux.<T>defer(() -> Flux.from(work.get())).materialize().concatMap(this::answered));
    }

    private <T> Flux<T> answered(Signal<T> signal) {
        T value = signal.get();
        if (value != null) {
            return Flux.just(value);
        }
        Throwable error = signal.getThrowable();
        return error == null
                ? after(null).thenMany(Flux.empty())
                : after(error).onErrorMap(e -> suppressed(error, e)).thenMany(Flux.error(error));
    }

    private static Throwable suppressed(Throwable error, Throwable later) {
        error.addSuppressed(later);
        return error;
    }

    /** Asks the database to cancel it, unless it is over already; completes when nothing later can be hit by that. */
    Mono<Void> cancel(Publisher<Void> asking) {
        Sinks.Empty<Void> answered = Sinks.empty();
        synchronized (this) {
            if (!runs) {
                return Mono.empty();
            }
            Mono<Void> before = request == null ? Mono.empty() : request;
            request = before.then(answered.asMono());
        }
        Mono.from(asking).subscribe(null, answered::tryEmitError, answered::tryEmitEmpty);
        return answered.asMono();
    }
}
