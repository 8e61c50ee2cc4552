package dev.r2dbcscope;

import java.util.concurrent.atomic.AtomicReference;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;
import reactor.core.publisher.Sinks;

/** The rows of a query that is read through a cursor; sends nothing before somebody reads them. */
final class PagedSource implements RowSource {

    private final PagedQuery query;
    private final Session session;
    private final boolean holdable;
    private final AtomicReference<Use> use = new AtomicReference<>(Use.NONE);
    private final Sinks.One<RowSource> unpaged = Sinks.one();

    private enum Use {
        NONE,
        /** Somebody reads it, page by page. */
        READ,
        /** It is executed as the driver does it, and can be read from there. */
        EXECUTED
    }

    PagedSource(PagedQuery query, Session session, boolean holdable) {
        this.query = query;
        this.session = session;
        this.holdable = holdable;
    }

    @Override
    public Scope scope() {
        return query.scope();
    }

    /** The result is to be executed for its effects, unless somebody reads it; says whether that is so. */
    boolean executeUnread() {
        return use.compareAndSet(Use.NONE, Use.EXECUTED);
    }

    void executed(RowSource result) {
        unpaged.tryEmitValue(result);
    }

    /** Has no effect after {@link #executed}. */
    void executionFailed(Throwable error) {
        unpaged.tryEmitError(error);
    }

    @Override
    public <T> Flux<T> read(ResultReading<T> reading) {
        return Flux.defer(() -> {
            if (use.compareAndSet(Use.NONE, Use.READ)) {
                RowCount rows = new RowCount();
                return reading.paged(
                        new Flux<>() {
                            @Override
                            public void subscribe(CoreSubscriber<? super T> actual) {
                                start(reading, rows, actual);
                            }
                        },
                        rows::get);
            }
            return use.get() == Use.EXECUTED
                    ? unpaged.asMono().flatMapMany(result -> result.read(reading))
                    : Flux.error(ResultSource::consumedTwice);
        });
    }

    private <T> void start(ResultReading<T> reading, RowCount rows, CoreSubscriber<? super T> actual) {
        RuntimeException closed = query.scope().unreadableError();
        if (closed != null) {
            Operators.error(actual, closed);
            return;
        }
        actual.onSubscribe(new CursorRead<>(query, new ServerCursor(query, session, holdable), reading, rows, actual));
    }

    /** How many rows were read; one thread at a time adds to it. */
    static final class RowCount {

        private volatile long rows;

        void set(long total) {
            rows = total;
        }

        long get() {
            return rows;
        }
    }
}
