package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;

/** A result of the driver, and who reads it: at most one, once. */
final class ResultSource implements RowSource {

    private final ResultExchange exchange;
    private final Result driver;
    private final AtomicReference<@Nullable ResultReader<?>> reader = new AtomicReference<>();
    private final AtomicReference<@Nullable ResultReader<Held<Result.Segment>>> parked = new AtomicReference<>();

    ResultSource(ResultExchange exchange, Result driver) {
        this.exchange = exchange;
        this.driver = driver;
    }

    @Override
    public Scope scope() {
        return exchange.scope();
    }

    @Override
    public <T> Flux<T> read(ResultReading<T> reading) {
        return new Flux<>() {
            @Override
            public void subscribe(CoreSubscriber<? super T> actual) {
                read(reading, actual);
            }
        };
    }

    private <T> void read(ResultReading<T> reading, CoreSubscriber<? super T> actual) {
        RuntimeException closed = exchange.scope().unreadableError();
        if (closed != null) {
            Operators.error(actual, closed);
            return;
        }
        ResultReader<T> mine = new ResultReader<>(exchange, actual);
        if (reader.compareAndSet(null, mine)) {
            actual.onSubscribe(mine);
            mine.start(reading.live(driver, mine));
            return;
        }
        ResultReader<Held<Result.Segment>> waiting = parked.get();
        if (waiting != null && reader.get() == waiting) {
            new ParkedFlux(waiting)
                    .as(reading::kept)
                    .onErrorMap(exchange::shown)
                    .subscribe(actual);
        } else {
            Operators.error(actual, consumedTwice());
        }
    }

    /**
     * Reads ahead a little, for nobody yet, unless somebody reads the result. The driver's thread and one that cancels may
     * both come here.
     */
    void parkUnlessRead() {
        if (reader.get() != null) {
            return;
        }
        parked.compareAndSet(null, new ResultReader<>(exchange));
        ResultReader<Held<Result.Segment>> waiting = Objects.requireNonNull(parked.get());
        if (reader.compareAndSet(null, waiting)) {
            exchange.gate().park(waiting);
            waiting.start(driver.flatMap(segment -> keep(segment, waiting)));
        }
    }

    /** Reads it for nobody. */
    void discard() {
        parkUnlessRead();
        ResultReader<Held<Result.Segment>> waiting = parked.get();
        if (waiting != null && reader.get() == waiting) {
            waiting.discard();
        }
    }

    private Mono<?> keep(Result.Segment segment, ResultReader<?> waiting) {
        try {
            Throwable error = waiting.errorIn(segment);
            if (error != null) {
                waiting.sawError(error);
            }
            if (waiting.isDeaf()) {
                return ResultReading.one(ResultReader.NOTHING);
            }
            Runnable release = exchange.gate().owner().dialect().retain(segment);
            Result.Segment kept = release == null ? CopiedRow.copy(segment) : segment;
            return ResultReading.one(new Held<>(kept, release));
        } catch (Throwable e) {
            waiting.failed(e);
            return Mono.empty();
        }
    }

    static IllegalStateException consumedTwice() {
        return new IllegalStateException("The Result was already consumed; it can be read only once");
    }

    /** The segments that a parked reader kept and those that are still to come. */
    private static final class ParkedFlux extends Flux<Held<Result.Segment>> {

        private final ResultReader<Held<Result.Segment>> waiting;

        ParkedFlux(ResultReader<Held<Result.Segment>> waiting) {
            this.waiting = waiting;
        }

        @Override
        public void subscribe(CoreSubscriber<? super Held<Result.Segment>> actual) {
            if (!waiting.attach(actual)) {
                RuntimeException discarded = waiting.discardedError();
                Operators.error(actual, discarded != null ? discarded : consumedTwice());
            }
        }
    }
}
