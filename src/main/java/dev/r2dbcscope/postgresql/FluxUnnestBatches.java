package dev.r2dbcscope.postgresql;

import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;

/**
 * Encodes rows into batches. It is not {@code buffer}, because rows are not kept, a batch is bounded by its length as well, and
 * the source is asked for the rows of a batch only when that is wanted, on a thread of its own: a synchronous source would
 * otherwise be encoded before the statement of the batch before is sent, instead of meanwhile.
 */
final class FluxUnnestBatches<T> extends Flux<UnnestBatch<T>> {

    private final Flux<? extends T> source;
    private final UnnestWriter.Plan<T> plan;

    FluxUnnestBatches(Flux<? extends T> source, UnnestWriter.Plan<T> plan) {
        this.source = source;
        this.plan = plan;
    }

    @Override
    public void subscribe(CoreSubscriber<? super UnnestBatch<T>> actual) {
        source.subscribe(new BatchSubscriber<>(actual, plan));
    }

    /**
     * As long as no batch is wanted, nothing is asked of the source; so there are no rows to keep, and whoever raises {@code
     * wanted} from zero is alone with the batch.
     */
    private static final class BatchSubscriber<T> implements CoreSubscriber<T>, Subscription {

        @SuppressWarnings("rawtypes")
        private static final AtomicLongFieldUpdater<BatchSubscriber> WANTED =
                AtomicLongFieldUpdater.newUpdater(BatchSubscriber.class, "wanted");

        private final CoreSubscriber<? super UnnestBatch<T>> actual;
        private final UnnestWriter.Plan<T> plan;
        private Subscription upstream = Operators.emptySubscription();
        private UnnestBatch<T> batch;
        private volatile long wanted;
        private int due;
        private boolean done;

        BatchSubscriber(CoreSubscriber<? super UnnestBatch<T>> actual, UnnestWriter.Plan<T> plan) {
            this.actual = actual;
            this.plan = plan;
            this.batch = new UnnestBatch<>(plan, 1);
        }

        @Override
        public Context currentContext() {
            return actual.currentContext();
        }

        @Override
        public void onSubscribe(Subscription s) {
            if (Operators.validate(upstream == Operators.emptySubscription() ? null : upstream, s)) {
                upstream = s;
                actual.onSubscribe(this);
            }
        }

        @Override
        public void request(long n) {
            if (Operators.validate(n) && Operators.addCap(WANTED, this, n) == 0) {
                Schedulers.parallel().schedule(this::ask);
            }
        }

        private void ask() {
            due = batch.room();
            upstream.request(due);
        }

        @Override
        public void cancel() {
            upstream.cancel();
        }

        @Override
        public void onNext(T row) {
            if (done) {
                Operators.onNextDropped(row, currentContext());
                return;
            }
            try {
                batch.add(row);
            } catch (Throwable e) {
                onError(Operators.onOperatorError(upstream, e, row, currentContext()));
                return;
            }
            if (--due > 0) {
                return;
            }
            if (batch.room() == 0) {
                UnnestBatch<T> full = batch;
                batch = new UnnestBatch<>(plan, full.lastRow() + 1);
                actual.onNext(full);
                if (Operators.produced(WANTED, this, 1) == 0) {
                    return;
                }
            }
            ask();
        }

        @Override
        public void onError(Throwable error) {
            if (done) {
                Operators.onErrorDropped(error, currentContext());
                return;
            }
            done = true;
            actual.onError(error);
        }

        @Override
        public void onComplete() {
            if (done) {
                return;
            }
            done = true;
            if (!batch.isEmpty()) {
                actual.onNext(batch);
            }
            actual.onComplete();
        }
    }
}
