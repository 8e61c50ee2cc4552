package dev.r2dbcscope.simulation;

import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.SignalType;
import reactor.util.context.Context;

/**
 * Looks at what a step of the driver signals and passes it on as it is, even what the specification forbids, which
 * Reactor's operators would swallow.
 */
final class Tracked<T> extends Flux<T> {

    /** Is told of one step. */
    interface Watch {
        void begins();

        void ends(SignalType how);
    }

    private final Publisher<T> source;
    private final Watch watch;

    Tracked(Publisher<T> source, Watch watch) {
        this.source = source;
        this.watch = watch;
    }

    @Override
    public void subscribe(CoreSubscriber<? super T> actual) {
        watch.begins();
        source.subscribe(new TrackedSubscriber<>(actual, watch));
    }

    private static final class TrackedSubscriber<T> implements CoreSubscriber<T>, Subscription {

        private final CoreSubscriber<? super T> actual;
        private final Watch watch;
        private @Nullable Subscription upstream;
        private boolean ended;

        TrackedSubscriber(CoreSubscriber<? super T> actual, Watch watch) {
            this.actual = actual;
            this.watch = watch;
        }

        private void end(SignalType how) {
            if (!ended) {
                ended = true;
                watch.ends(how);
            }
        }

        @Override
        public Context currentContext() {
            return actual.currentContext();
        }

        @Override
        public void onSubscribe(Subscription s) {
            upstream = s;
            actual.onSubscribe(this);
        }

        @Override
        public void onNext(T value) {
            actual.onNext(value);
        }

        @Override
        public void onError(Throwable error) {
            end(SignalType.ON_ERROR);
            actual.onError(error);
        }

        @Override
        public void onComplete() {
            end(SignalType.ON_COMPLETE);
            actual.onComplete();
        }

        @Override
        public void request(long n) {
            Subscription s = upstream;
            if (s != null) {
                s.request(n);
            }
        }

        @Override
        public void cancel() {
            end(SignalType.CANCEL);
            Subscription s = upstream;
            if (s != null) {
                s.cancel();
            }
        }
    }
}
