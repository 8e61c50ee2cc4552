package dev.r2dbcscope.testkit;

import java.util.List;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.FluxOperator;
import reactor.util.context.Context;

/**
 * Emits each value of its source twice, as demanded, and completes twice if there was none: a subscriber of our own,
 * because Reactor's operators swallow a second completion.
 */
final class Twice extends FluxOperator<Object, Object> {

    Twice(Flux<Object> source) {
        super(source);
    }

    @Override
    public void subscribe(CoreSubscriber<? super Object> actual) {
        source.concatMapIterable(value -> List.of(value, value)).subscribe(new TwiceSubscriber(actual));
    }

    private static final class TwiceSubscriber implements CoreSubscriber<Object> {

        private final CoreSubscriber<? super Object> actual;
        private boolean empty = true;

        TwiceSubscriber(CoreSubscriber<? super Object> actual) {
            this.actual = actual;
        }

        @Override
        public Context currentContext() {
            return actual.currentContext();
        }

        @Override
        public void onSubscribe(Subscription subscription) {
            actual.onSubscribe(subscription);
        }

        @Override
        public void onNext(Object value) {
            empty = false;
            actual.onNext(value);
        }

        @Override
        public void onError(Throwable error) {
            actual.onError(error);
        }

        @Override
        public void onComplete() {
            actual.onComplete();
            if (empty) {
                actual.onComplete();
            }
        }
    }
}
