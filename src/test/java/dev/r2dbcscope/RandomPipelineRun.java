package dev.r2dbcscope;

import dev.r2dbcscope.RandomPipeline.BadStatement;
import dev.r2dbcscope.RandomPipeline.Fail;
import dev.r2dbcscope.RandomPipeline.Insert;
import dev.r2dbcscope.RandomPipeline.Node;
import dev.r2dbcscope.RandomPipeline.Siblings;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeoutException;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** Runs random pipelines, and keeps what cannot be known beforehand: who timed out, and who was denied a connection. */
final class RandomPipelineRun {

    /** The error that a program raises itself. */
    static final class UsersError extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UsersError() {
            super("the user's", null, false, false);
        }
    }

    private final WatchedPool pool;
    final Set<String> timedOut = ConcurrentHashMap.newKeySet();
    final Set<String> denied = ConcurrentHashMap.newKeySet();

    RandomPipelineRun(WatchedPool pool) {
        this.pool = pool;
    }

    /** Completes, empty, when all steps are done. */
    Mono<Void> run(RandomPipeline.Scope scope) {
        return caught(scope);
    }

    private Mono<Void> step(Node node, @Nullable Connection handle) {
        if (node instanceof RandomPipeline.Scope scope) {
            return caught(scope);
        }
        if (node instanceof Insert insert) {
            return use(
                    handle,
                    c -> Rows.update(c.createStatement("insert into nested_rows values ($1)")
                            .bind(0, insert.row())));
        }
        if (node instanceof BadStatement bad) {
            Mono<Void> refused = use(handle, c -> Rows.ints(c, "select 1 / 0"));
            return bad.caught() ? refused.onErrorResume(e -> Mono.empty()) : refused;
        }
        if (node instanceof Siblings siblings) {
            return Flux.fromIterable(siblings.steps())
                    .flatMap(sibling -> step(sibling, handle).onErrorResume(e -> Mono.empty()))
                    .then();
        }
        return node instanceof Fail ? Mono.error(UsersError::new) : Mono.error(new AssertionError(node));
    }

    /** On the handle of the scope's closure, or as a repository does it that asks the factory. */
    private Mono<Void> use(
            @Nullable Connection handle, java.util.function.Function<Connection, Flux<? extends Object>> statement) {
        return handle != null
                ? statement.apply(handle).then()
                : Flux.from(pool.scopes.connectionFactory().create())
                        .flatMap(statement)
                        .then();
    }

    private Mono<Void> caught(RandomPipeline.Scope scope) {
        Mono<Void> run = scope(scope);
        return scope.caught() ? run.onErrorResume(e -> Mono.empty()) : run;
    }

    private Mono<Void> scope(RandomPipeline.Scope scope) {
        return Mono.defer(() -> {
            Sinks.Empty<Void> leave = Sinks.empty();
            Mono<Void> whole = shaped(scope, leave).doOnError(NestedAcquireDeadlockException.class, e -> {
                if (e.scopeName().equals(scope.name())) {
                    denied.add(scope.name());
                }
            });
            if (scope.cancelAfter() >= 0) {
                whole = whole.takeUntilOther(leave.asMono());
            }
            if (scope.timeoutMicros() == 0) {
                return whole;
            }
            Mono<Void> gaveUp = Mono.defer(() -> {
                timedOut.add(scope.name());
                return Mono.error(new TimeoutException("gave up"));
            });
            return whole.timeout(Duration.ofNanos(scope.timeoutMicros() * 1_000L), gaveUp, Schedulers.parallel());
        });
    }

    private Mono<Void> shaped(RandomPipeline.Scope scope, Sinks.Empty<Void> leave) {
        ConnectionScopes scopes = pool.with(options -> options.withName(scope.name())
                .withPipelinedBegin(scope.name().hashCode() % 2 == 0 ? Duration.ZERO : Duration.ofDays(1)));
        boolean plain = scope.mode() == null;
        if (scope.mode() != null) {
            scopes = scopes.transactions(scope.mode());
        }
        return switch (scope.shape()) {
            case MONO_CLOSURE ->
                plain
                        ? scopes.withConnection(c -> steps(scope, c, leave))
                        : scopes.inTransaction(c -> steps(scope, c, leave));
            case FLUX_CLOSURE ->
                (plain
                                ? scopes.withConnectionMany(c -> steps(scope, c, leave))
                                : scopes.inTransactionMany(c -> steps(scope, c, leave)))
                        .then();
            case MONO_OPERATOR -> steps(scope, null, leave).as(plain ? scopes::connected : scopes::transactional);
            case FLUX_OPERATOR ->
                steps(scope, null, leave)
                        .flux()
                        .as(plain ? scopes::connected : scopes::transactional)
                        .then();
        };
    }

    private Mono<Void> steps(RandomPipeline.Scope scope, @Nullable Connection handle, Sinks.Empty<Void> leave) {
        int last = scope.cancelAfter() < 0 ? scope.steps().size() : scope.cancelAfter();
        Mono<Void> steps = Flux.fromIterable(scope.steps().subList(0, last))
                .concatMap(node -> step(node, handle))
                .then();
        if (scope.cancelAfter() < 0) {
            return steps;
        }
        return steps.then(Mono.<Void>fromRunnable(leave::tryEmitEmpty)).then(Mono.never());
    }
}
