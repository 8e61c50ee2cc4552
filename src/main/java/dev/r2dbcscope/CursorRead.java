package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import java.util.Objects;
import java.util.Queue;
import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;
import java.util.concurrent.atomic.AtomicLongFieldUpdater;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Operators;
import reactor.util.concurrent.Queues;
import reactor.util.context.Context;

/**
 * Reads a query through a server-side cursor, page by page.
 *
 * <p>A page is asked for with unbounded demand and kept here, so the connection is free for others as soon as the server has
 * sent it. The next page is asked for when the first row of the current one was delivered, so no more is read than the page
 * that the demand has reached and one more. For a consumer that has had to wait for a page all the same, because it is faster
 * than the round trip, up to three are asked for ahead, until it does not want more at the end of a page.
 *
 * <p>The cursor is opened at the first demand, together with its first page, and closed after the last row, an error or a
 * cancel, behind whatever is still in flight.
 *
 * @param <T> what the mapping function makes of a row or segment
 */
final class CursorRead<T> implements Subscription {

    @SuppressWarnings("rawtypes")
    private static final AtomicIntegerFieldUpdater<CursorRead> WIP =
            AtomicIntegerFieldUpdater.newUpdater(CursorRead.class, "wip");

    @SuppressWarnings("rawtypes")
    private static final AtomicLongFieldUpdater<CursorRead> REQUESTED =
            AtomicLongFieldUpdater.newUpdater(CursorRead.class, "requested");

    /** How many pages a consumer that waits for them is read ahead. */
    private static final int MOST_AHEAD = 3;

    private final PagedQuery query;
    private final ServerCursor cursor;
    private final ResultReading<T> reading;
    private final PagedSource.RowCount total;
    private final CoreSubscriber<? super T> actual;
    private final Context context;

    private volatile int wip;
    private volatile long requested;
    private volatile boolean cancelled;
    private volatile boolean opened;
    private volatile @Nullable Throwable openingError;

    private @Nullable Page current;
    private @Nullable Page newest;
    private int ahead;
    private int mostAhead = 1;
    private long rows;
    private boolean asked;
    private volatile boolean prepared;
    private boolean begun;
    private boolean ended;
    private boolean closed;
    private @Nullable Throwable failure;

    CursorRead(
            PagedQuery query,
            ServerCursor cursor,
            ResultReading<T> reading,
            PagedSource.RowCount total,
            CoreSubscriber<? super T> actual) {
        this.query = query;
        this.cursor = cursor;
        this.reading = reading;
        this.total = total;
        this.actual = actual;
        this.context = actual.currentContext();
    }

    // the subscriber -------------------------------------------------------------------------------------------------

    @Override
    public void request(long n) {
        if (Operators.validate(n)) {
            Operators.addCap(REQUESTED, this, n);
            run();
        }
    }

    @Override
    public void cancel() {
        if (!cancelled) {
            cancelled = true;
            if (opened) {
                cursor.close(null, context); // whoever cancels may end the scope next, before this read has a turn
            }
            run();
        }
    }

    private void run() {
        if (WIP.getAndIncrement(this) == 0) {
            loop();
        }
    }

    private void loop() {
        int missed = 1;
        do {
            turn();
            missed = WIP.addAndGet(this, -missed);
        } while (missed != 0);
    }

    private void turn() {
        if (!begun && !ended) {
            if (cancelled) {
                ended = true;
                closed = true;
            } else if (openingError != null) {
                closed = true;
                end(openingError);
            } else if (requested != 0) {
                begin();
            }
            return;
        }
        if (!ended) {
            emit();
        }
        if (cancelled && !ended) {
            ended = true;
            leave();
        }
        if (ended) {
            close();
        }
    }

    private void begin() {
        if (!asked) {
            asked = true;
            Mono<Void> preparation = cursor.preparation();
            if (preparation != null) {
                preparation.subscribe(new Opening(() -> prepared = true));
                return;
            }
            prepared = true;
        }
        if (prepared) {
            begun = true;
            cursor.open().subscribe(new Opening(() -> opened = true));
            current = fetch(true);
        }
    }

    private Page fetch(boolean first) {
        Page page = new Page();
        newest = page;
        cursor.fetch(first).subscribe(page);
        return page;
    }

    private void emit() {
        long demand = requested;
        long emitted = 0;
        while (!cancelled && !ended) {
            Page page = Objects.requireNonNull(current);
            boolean done = page.isDone();
            T next = emitted == demand ? null : page.buffer.poll();
            if (next != null) {
                emitted++;
                deliver(next);
                prefetch();
            } else if (!done || !page.buffer.isEmpty()) {
                break;
            } else if (!turnPage(page, emitted != demand)) {
                break;
            }
        }
        if (emitted != 0) {
            Operators.produced(REQUESTED, this, emitted);
        }
    }

    /** A row of the page was delivered. */
    private void prefetch() {
        while (ahead < mostAhead && !ended && !cancelled) {
            Page last = Objects.requireNonNull(newest);
            if (last.isDone() && last.isLast()) {
                return;
            }
            ahead++;
            last.next = fetch(false);
        }
    }

    /** The page was delivered; says whether to go on with another one. */
    private boolean turnPage(Page page, boolean wanted) {
        Throwable error = openingError != null ? openingError : page.error;
        if (error != null || page.isLast()) {
            rows += page.rows;
            end(error);
            return false;
        }
        Page next = page.next;
        if (next == null && !wanted) {
            return false;
        }
        rows += page.rows;
        if (next == null) {
            current = fetch(false);
        } else {
            current = next;
            ahead--;
            mostAhead = wanted ? next.isHere() ? mostAhead : Math.min(mostAhead + 1, MOST_AHEAD) : 1;
        }
        return true;
    }

    /** A subscriber must not throw; if one does, because of a fatal error, it gets that as its error. */
    private void deliver(T next) {
        try {
            actual.onNext(next);
        } catch (Throwable e) {
            end(e);
            query.scope().subscriberThrew(e);
        }
    }

    private void end(@Nullable Throwable error) {
        ended = true;
        failure = error;
        total.set(rows);
        leave();
        close();
        if (cancelled) {
            return;
        }
        try {
            if (error != null) {
                actual.onError(error);
            } else {
                actual.onComplete();
            }
        } catch (Throwable e) {
            query.scope().subscriberThrew(e);
        }
    }

    /** Wants no more of the pages that are on their way. */
    private void leave() {
        for (Page page = current; page != null; page = page.next) {
            page.leave();
        }
    }

    /** What is still in flight is before it in the gate, so it is read to its end first. */
    private void close() {
        for (Page page = current; page != null; page = page.next) {
            page.discardAll();
        }
        if (!closed && (opened || openingError != null)) {
            closed = true;
            cursor.close(failure, context);
        }
    }

    // the server -----------------------------------------------------------------------------------------------------

    /** Hears whether the cursor is there; it is never cancelled, because what was opened must be closed. */
    private final class Opening implements CoreSubscriber<Void> {

        private final Runnable succeeded;

        Opening(Runnable succeeded) {
            this.succeeded = succeeded;
        }

        @Override
        public Context currentContext() {
            return context;
        }

        @Override
        public void onSubscribe(Subscription s) {
            s.request(Long.MAX_VALUE);
        }

        @Override
        public void onNext(Void never) {
            // it has no values
        }

        @Override
        public void onError(Throwable error) {
            openingError = error;
            cursor.failedToOpen(error);
            run();
        }

        @Override
        public void onComplete() {
            succeeded.run();
            run();
        }
    }

    /** Rows that one FETCH brings, and the page after them. */
    private final class Page implements CoreSubscriber<Result>, CountedResult.Counter {

        private final Queue<T> buffer =
                Queues.<T>unbounded(Queues.SMALL_BUFFER_SIZE).get();
        private final Subscription[] parts = new Subscription[2];
        private boolean left;
        private volatile boolean executed;
        private volatile boolean read = true;
        private volatile @Nullable Throwable error;
        private long rows;
        private @Nullable Page next;

        /** All its rows are here. */
        boolean isDone() {
            return executed && read;
        }

        /** Some of its rows are here. */
        boolean isHere() {
            return isDone() || !buffer.isEmpty();
        }

        /** The server has no more rows; known once it is done. */
        boolean isLast() {
            return rows < query.fetchSize();
        }

        /** On the thread that brings the rows, before it is done. */
        @Override
        public void counted(long more) {
            rows += more;
        }

        void leave() {
            Subscription[] all;
            synchronized (parts) {
                left = true;
                all = parts.clone();
            }
            for (Subscription part : all) {
                if (part != null) {
                    part.cancel();
                }
            }
        }

        private void arrived(int part, Subscription s) {
            synchronized (parts) {
                if (!left) {
                    parts[part] = s;
                }
            }
            if (left) {
                s.cancel();
            } else {
                s.request(Long.MAX_VALUE);
            }
        }

        void discardAll() {
            T value;
            while ((value = buffer.poll()) != null) {
                Held.discard(value, context);
            }
        }

        @Override
        public Context currentContext() {
            return context;
        }

        @Override
        public void onSubscribe(Subscription s) {
            arrived(0, s);
        }

        @Override
        public void onNext(Result result) {
            read = false;
            ((ScopedResult) result).source().read(reading.counted(this)).subscribe(new Rows(this));
        }

        @Override
        public void onError(Throwable thrown) {
            failed(thrown);
            read = true;
            executed = true;
            run();
        }

        @Override
        public void onComplete() {
            executed = true;
            run();
        }

        void failed(Throwable thrown) {
            if (error == null) {
                error = thrown;
            }
        }
    }

    /** Takes the rows of one page. */
    private final class Rows implements CoreSubscriber<T> {

        private final Page page;

        Rows(Page page) {
            this.page = page;
        }

        @Override
        public Context currentContext() {
            return context;
        }

        @Override
        public void onSubscribe(Subscription s) {
            page.arrived(1, s);
        }

        /** The short way is for a row that its subscriber waits for while nobody else is busy with this read. */
        @Override
        public void onNext(T value) {
            if (requested == 0 || !WIP.compareAndSet(CursorRead.this, 0, 1)) {
                page.buffer.offer(value);
                run();
                return;
            }
            if (page == current && !ended && !cancelled && requested != 0 && page.buffer.isEmpty()) {
                deliver(value);
                Operators.produced(REQUESTED, CursorRead.this, 1);
                prefetch();
            } else {
                page.buffer.offer(value);
                turn();
            }
            if (WIP.decrementAndGet(CursorRead.this) != 0) {
                loop();
            }
        }

        @Override
        public void onError(Throwable thrown) {
            page.failed(thrown);
            page.read = true;
            run();
        }

        @Override
        public void onComplete() {
            page.read = true;
            run();
        }
    }
}
