package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.Disposable;
import reactor.core.Disposables;
import reactor.core.publisher.BaseSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/**
 * Completes when a statement without rows was executed and its results were read.
 *
 * <p>When its scope ends, a statement and its result that is being read fail at once with the same error. {@code concatMap}
 * would tell one of the two to the hook for dropped errors, which the user would take for a fault of theirs: therefore a
 * subscriber of its own.
 */
final class Acknowledgement extends Mono<Void> {

    private final Flux<Result> statement;

    Acknowledgement(Flux<Result> statement) {
        this.statement = statement;
    }

    @Override
    public void subscribe(CoreSubscriber<? super Void> actual) {
        statement.subscribe(new ResultsSubscriber(actual));
    }

    private static final class ResultsSubscriber implements CoreSubscriber<Result>, Subscription {

        private static final Throwable COMPLETED = new IllegalStateException("completed");
        private static final Throwable CANCELLED = new IllegalStateException("cancelled");

        private final CoreSubscriber<? super Void> actual;
        /** The statement, and each result that is being read. */
        private final AtomicInteger awaited = new AtomicInteger(1);

        private final AtomicReference<@Nullable Throwable> end = new AtomicReference<>();
        private final Disposable.Composite results = Disposables.composite();
        private Subscription execution = Operators.emptySubscription();

        ResultsSubscriber(CoreSubscriber<? super Void> actual) {
            this.actual = actual;
        }

        @Override
        public Context currentContext() {
            return actual.currentContext();
        }

        @Override
        public void onSubscribe(Subscription subscription) {
            execution = subscription;
            actual.onSubscribe(this);
            subscription.request(Long.MAX_VALUE);
        }

        @Override
        public void onNext(Result result) {
            awaited.incrementAndGet();
            Publisher<Long> counts = result.getRowsUpdated();
            OneResult reading = new OneResult();
            results.add(reading);
            counts.subscribe(reading);
        }

        @Override
        public void onError(Throwable thrown) {
            failed(thrown);
        }

        @Override
        public void onComplete() {
            completedOne();
        }

        private void completedOne() {
            if (awaited.decrementAndGet() == 0 && end.compareAndSet(null, COMPLETED)) {
                actual.onComplete();
            }
        }

        private void failed(Throwable thrown) {
            if (end.compareAndSet(null, thrown)) {
                actual.onError(thrown);
            } else if (end.get() != thrown && end.get() != CANCELLED) {
                Operators.onErrorDropped(thrown, currentContext());
            }
        }

        @Override
        public void request(long n) {
            // there is nothing to emit
        }

        @Override
        public void cancel() {
            end.compareAndSet(null, CANCELLED);
            execution.cancel();
            results.dispose();
        }

        private final class OneResult extends BaseSubscriber<Long> {

            @Override
            public Context currentContext() {
                return actual.currentContext();
            }

            @Override
            protected void hookOnComplete() {
                completedOne();
            }

            @Override
            protected void hookOnError(Throwable thrown) {
                failed(thrown);
            }
        }
    }
}
