package dev.r2dbcscope;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/**
 * A step of a {@link ProbeConnectionFactory} that ends when the test says so.
 *
 * @param <T> what it emits
 */
final class Step<T> implements Supplier<Publisher<?>> {

    private final Sinks.One<T> end = Sinks.one();
    private final CountDownLatch reached = new CountDownLatch(1);
    private final AtomicInteger cancels = new AtomicInteger();

    @Override
    public Publisher<?> get() {
        return publisher();
    }

    Mono<T> publisher() {
        return end.asMono().doOnSubscribe(s -> reached.countDown()).doOnCancel(cancels::incrementAndGet);
    }

    boolean isReached() {
        return reached.getCount() == 0;
    }

    int cancels() {
        return cancels.get();
    }

    Step<T> awaitReached() {
        try {
            if (!reached.await(Duration.ofSeconds(60).toMillis(), TimeUnit.MILLISECONDS)) {
                throw new AssertionError("The step was not reached");
            }
            return this;
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }

    void complete() {
        end.tryEmitEmpty().orThrow();
    }

    void complete(T value) {
        end.tryEmitValue(value).orThrow();
    }

    void fail(Throwable error) {
        end.tryEmitError(error).orThrow();
    }
}
