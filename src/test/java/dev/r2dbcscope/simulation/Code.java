package dev.r2dbcscope.simulation;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.RetryPolicy;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.TransactionOptions;
import dev.r2dbcscope.simulation.Attempt.Asked;
import dev.r2dbcscope.simulation.Attempt.Run;
import dev.r2dbcscope.simulation.Node.Reading;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.SignalType;
import reactor.core.scheduler.Schedulers;

/** Makes a publisher of a {@link Node}, as people write such code. */
final class Code {

    /** The error that a pipeline raises itself. */
    static final class UsersError extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UsersError() {
            super("the user's", null, false, false);
        }
    }

    private static final int MOST = 60;

    private final ConnectionScopes scopes;
    private final ScopeOptions options;
    private final ProbeConnectionFactory probe;
    private final History history;

    Code(ConnectionScopes scopes, ScopeOptions options, ProbeConnectionFactory probe, History history) {
        this.scopes = scopes;
        this.options = options;
        this.probe = probe;
        this.history = history;
    }

    Flux<Integer> of(Node node) {
        if (history.statements.size() > MOST || history.runs.size() > MOST) {
            return Flux.error(UsersError::new); // of what repeats what repeats
        }
        if (node instanceof Node.Query query) {
            return Flux.deferContextual(context -> query(query, context.get(Attempt.class), false));
        }
        if (node instanceof Node.Scope scope) {
            return Flux.deferContextual(context -> scope(scope, context.getOrDefault(Attempt.class, null)));
        }
        if (node instanceof Node.Values values) {
            return Flux.range(0, values.count());
        }
        if (node instanceof Node.Pause pause) {
            return Mono.delay(millis(pause.millis())).map(Long::intValue).flux();
        }
        if (node instanceof Node.Stray stray) {
            return stray(stray);
        }
        if (node instanceof Node.Doom) {
            return Flux.deferContextual(context -> doom(context.get(Attempt.class), CurrentScope.from(context)));
        }
        if (node instanceof Node.Many many) {
            return many(many);
        }
        if (node instanceof Node.Each each) {
            return each(each);
        }
        return node instanceof Node.Op op ? Operators.around(op, of(op.source())) : Flux.error(UsersError::new);
    }

    static Duration millis(int millis) {
        return Duration.ofMillis(millis);
    }

    // scopes ---------------------------------------------------------------------------------------------------------

    private Flux<Integer> scope(Node.Scope node, @Nullable Attempt around) {
        Run run = history.run(node, around);
        ScopeOptions own = options.withName(run.name).withListener(history);
        if (node.maxHoldMillis() > 0) {
            own = own.withMaxHold(millis(node.maxHoldMillis()));
        }
        ConnectionScopes variant = scopes.with(own);
        if (node.mode() != null) {
            variant = variant.transactions(transaction(node));
        }
        return watched(run, shaped(node, variant, run));
    }

    private static TransactionOptions transaction(Node.Scope node) {
        TransactionOptions transaction = TransactionOptions.defaults().withOnCancel(node.onCancel());
        if (node.mode() != null) {
            transaction = transaction.withPropagation(node.mode());
        }
        if (node.emitAfterCommit() > 0) {
            transaction = transaction.withEmitAfterCommit(node.emitAfterCommit());
        }
        return node.retries() == 0
                ? transaction
                : transaction.withRetry(RetryPolicy.serialization(node.retries())
                        .withBackoff(millis(5), millis(50))
                        .withJitter(0));
    }

    private Flux<Integer> shaped(Node.Scope node, ConnectionScopes variant, Run run) {
        boolean plain = node.mode() == null;
        return switch (node.shape()) {
            case MONO_CLOSURE ->
                (plain
                                ? variant.withConnection(c -> body(node, run, c))
                                : variant.inTransaction(c -> body(node, run, c)))
                        .flux();
            case FLUX_CLOSURE ->
                plain
                        ? variant.withConnectionMany(c -> body(node, run, c))
                        : variant.inTransactionMany(c -> body(node, run, c));
            case MONO_OPERATOR ->
                body(node, run, null)
                        .collectList()
                        .map(List::size)
                        .as(plain ? variant::connected : variant::transactional)
                        .flux();
            case FLUX_OPERATOR -> body(node, run, null).as(plain ? variant::connected : variant::transactional);
        };
    }

    private Flux<Integer> body(Node.Scope node, Run run, @Nullable Connection handle) {
        return Flux.deferContextual(context -> {
            Attempt attempt = run.begin(handle);
            if (node.hooks() && run.kind != Attempt.Kind.REFUSED && run.node.mode() != null) {
                hook(attempt, CurrentScope.from(context));
            }
            return of(node.body())
                    .doOnNext(value -> attempt.emitted++)
                    .doOnComplete(() -> attempt.bodyEnd = SignalType.ON_COMPLETE)
                    .doOnError(error -> attempt.bodyEnd = SignalType.ON_ERROR)
                    .doOnCancel(() -> attempt.bodyEnd = SignalType.CANCEL)
                    .contextWrite(inner -> inner.put(Attempt.class, attempt));
        });
    }

    private void hook(Attempt attempt, CurrentScope current) {
        if (current.isTransactional()) {
            attempt.hooked = true;
            current.afterCompletion(outcome -> Mono.fromRunnable(() -> {
                        history.note(() -> attempt.run.name + " hook " + outcome);
                        attempt.hooks.add(outcome);
                    })
                    .then(Mono.delay(millis(1))));
        }
    }

    private Flux<Integer> watched(Run run, Flux<Integer> scope) {
        return scope.doOnComplete(() -> history.told(run, SignalType.ON_COMPLETE, null))
                .doOnError(error -> history.told(run, SignalType.ON_ERROR, error))
                .doOnCancel(() -> history.told(run, SignalType.CANCEL, null));
    }

    private Flux<Integer> doom(Attempt attempt, CurrentScope current) {
        if (current.isTransactional()) {
            current.setRollbackOnly();
            attempt.doomed = true;
        }
        return Flux.just(1);
    }

    // statements -----------------------------------------------------------------------------------------------------

    private Flux<Integer> query(Node.Query query, Attempt attempt, boolean stray) {
        Asked asked = history.asked(query.fetchSize() > 0 ? "query" : "write", attempt, stray);
        probe.on(asked.sql, () -> Flux.range(0, query.rows()));
        Connection handle = query.byHandle() ? attempt.nearestHandle() : null;
        return handle != null
                ? read(query, asked, handle, attempt)
                : Flux.from(scopes.connectionFactory().create())
                        .concatMap(connection -> read(query, asked, connection, attempt));
    }

    private Flux<Integer> read(Node.Query query, Asked asked, Connection connection, Attempt attempt) {
        Statement statement = connection.createStatement(asked.sql);
        if (query.fetchSize() > 0) {
            statement.fetchSize(query.fetchSize());
        }
        Flux<? extends Result> results = Flux.from(statement.execute());
        return switch (query.reading()) {
            case ROWS -> results.flatMap(Code::values);
            case COUNT -> results.flatMap(Result::getRowsUpdated).map(Long::intValue);
            case UNREAD -> results.then(Mono.just(0)).flux();
            case FIRST_RESULT -> Mono.from(results).flatMapMany(Code::values);
            case NESTED ->
                results.flatMap(result -> result.flatMap(segment -> segment instanceof Result.RowSegment row
                        ? Flux.deferContextual(context -> query(leaf(query, row), attempt, false))
                        : Flux.empty()));
        };
    }

    private static Publisher<Integer> values(Result result) {
        return result.map((row, metadata) -> {
            Integer value = row.get(0, Integer.class);
            return value == null ? -1 : value;
        });
    }

    private static Node.Query leaf(Node.Query around, Result.RowSegment row) {
        return new Node.Query(
                Reading.ROWS, row.row().getMetadata().getColumnMetadatas().size(), 0, around.byHandle());
    }

    /** Its errors are nobody's. */
    private Flux<Integer> stray(Node.Stray stray) {
        return Flux.deferContextual(context -> {
            Attempt attempt = context.get(Attempt.class);
            Mono.delay(millis(stray.millis()))
                    .thenMany(Flux.defer(
                            () -> query(new Node.Query(Reading.ROWS, 1, 0, stray.byHandle()), attempt, true)))
                    .contextWrite(context)
                    .subscribe(null, error -> history.errors.add(error));
            return Flux.just(1);
        });
    }

    // several pipelines ----------------------------------------------------------------------------------------------

    private Flux<Integer> many(Node.Many many) {
        List<Flux<Integer>> parts = many.parts().stream().map(this::of).toList();
        return switch (many.joint()) {
            case CONCAT -> Flux.concat(parts);
            case MERGE -> Flux.merge(parts);
            case MERGE_DELAY_ERROR -> Flux.mergeDelayError(2, parts.toArray(Code::fluxes));
            case ZIP -> Flux.zip(parts, values -> values.length);
            case FIRST_WITH_SIGNAL -> Flux.firstWithSignal(parts);
            // without unbounded demand it hangs from 32 combinations on that nobody has asked for (Reactor 3.8.6, no
            // scope needed)
            case COMBINE_LATEST ->
                Flux.combineLatest(parts, values -> values.length).onBackpressureBuffer();
        };
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private static Flux<Integer>[] fluxes(int count) {
        return new Flux[count];
    }

    private Flux<Integer> each(Node.Each each) {
        Flux<Integer> outer = of(each.outer());
        Flux<Integer> inner = Flux.defer(() -> of(each.inner()));
        return switch (each.mapping()) {
            case CONCAT_MAP -> outer.concatMap(value -> inner, each.concurrency());
            case FLAT_MAP -> outer.flatMap(value -> inner, each.concurrency());
            case FLAT_MAP_SEQUENTIAL -> outer.flatMapSequential(value -> inner, each.concurrency());
            case FLAT_MAP_DELAY_ERROR -> outer.flatMapDelayError(value -> inner, each.concurrency(), 2);
            case SWITCH_MAP -> outer.switchMap(value -> inner);
        };
    }

    /** Operators around one pipeline. */
    private static final class Operators {

        static Flux<Integer> around(Node.Op op, Flux<Integer> source) {
            int n = op.n();
            return switch (op.operator()) {
                case TAKE -> source.take(n);
                case NEXT -> source.next().flux();
                case MONO_FROM -> Mono.from(source).flux();
                case TIMEOUT -> source.timeout(millis(n));
                case RETRY -> source.retry(n);
                case REPEAT -> source.repeat(n);
                case PUBLISH_ON -> source.publishOn(Schedulers.parallel(), n);
                case SUBSCRIBE_ON -> source.subscribeOn(Schedulers.boundedElastic());
                case DELAY_ELEMENTS -> source.delayElements(millis(n));
                case DELAY_SUBSCRIPTION -> source.delaySubscription(millis(n));
                case RESUME -> source.onErrorResume(error -> Flux.empty());
                case LIMIT_RATE -> source.limitRate(n);
                case FILTER -> source.filter(value -> value % 2 == 0);
                case BUFFER -> source.buffer(n).map(List::size);
                case BACKPRESSURE_BUFFER -> source.onBackpressureBuffer();
                case COLLECT -> source.collectList().flatMapIterable(values -> values);
                case TAKE_UNTIL_OTHER -> source.takeUntilOther(Mono.delay(millis(n)));
                case THROW -> throwing(n, source);
            };
        }

        private static Flux<Integer> throwing(int n, Flux<Integer> source) {
            return Flux.defer(() -> source.index().map(indexed -> {
                if (indexed.getT1() == n) {
                    throw new UsersError();
                }
                return indexed.getT2();
            }));
        }
    }
}
