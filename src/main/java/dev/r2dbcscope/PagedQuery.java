package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import java.util.concurrent.atomic.AtomicBoolean;
import org.reactivestreams.Publisher;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;
import reactor.util.context.Context;

/**
 * What {@code execute()} returns for a query with a fetch size on a database that can read it through a cursor: in a
 * transaction it is read page by page; outside one it is executed as the driver does it, unless the scope wants holdable
 * cursors.
 *
 * <p>It emits one result with all rows, as the driver would, and not one for each page: {@code
 * Mono.from(statement.execute())} must not lose rows. Nothing is sent before the result is read; but a subscriber that wants
 * everything and does not read the result waits for the execution only, and gets it from the driver.
 */
final class PagedQuery extends Flux<Result> {

    private final Scope scope;
    private final Cursors cursors;
    private final String sql;
    private final Bindings bindings;
    private final int fetchSize;
    private final Publisher<? extends Result> driver;

    PagedQuery(
            Scope scope,
            Cursors cursors,
            String sql,
            Bindings bindings,
            int fetchSize,
            Publisher<? extends Result> driver) {
        this.scope = scope;
        this.cursors = cursors;
        this.sql = sql;
        this.bindings = bindings;
        this.fetchSize = fetchSize;
        this.driver = driver;
    }

    Scope scope() {
        return scope;
    }

    Cursors cursors() {
        return cursors;
    }

    String sql() {
        return sql;
    }

    Bindings bindings() {
        return bindings;
    }

    int fetchSize() {
        return fetchSize;
    }

    /** The execution as the driver does it. */
    Flux<Result> unpaged() {
        return new ExecuteFlux(scope, sql, false, driver, true).fetching();
    }

    @Override
    public void subscribe(CoreSubscriber<? super Result> actual) {
        RuntimeException closed = scope.refusal(sql, actual.currentContext());
        if (closed != null) {
            Operators.error(actual, closed);
            return;
        }
        Session session = scope.sessionFor(actual.currentContext());
        if (session.gateIfOpen() == null) {
            session.open(actual.currentContext()).flatMapMany(opened -> this).subscribe(actual);
            return;
        }
        if (StatementGuard.in(actual.currentContext()) != null) {
            unpaged().subscribe(actual);
            return;
        }
        boolean transactional = session.isInTransaction();
        boolean holdable = !transactional && session.options().holdableCursors();
        if (!(transactional || holdable) || !cursors.canRead(sql, holdable)) {
            unpaged().subscribe(actual);
            return;
        }
        actual.onSubscribe(new Execution(this, session, holdable, actual));
    }

    /** One execution: hands out the result, once. */
    private static final class Execution implements Subscription, CoreSubscriber<Result> {

        private final PagedQuery query;
        private final PagedSource source;
        private final CoreSubscriber<? super Result> actual;
        private final AtomicBoolean emitted = new AtomicBoolean();
        private final LateSubscription unpaged = new LateSubscription();
        private volatile boolean cancelled;

        Execution(PagedQuery query, Session session, boolean holdable, CoreSubscriber<? super Result> actual) {
            this.query = query;
            this.source = new PagedSource(query, session, holdable);
            this.actual = actual;
        }

        @Override
        public void request(long n) {
            if (!Operators.validate(n) || cancelled || !emitted.compareAndSet(false, true)) {
                return;
            }
            actual.onNext(new ScopedResult(source));
            if (cancelled) {
                return;
            }
            if (n == Long.MAX_VALUE && source.executeUnread()) {
                unpaged.request(Long.MAX_VALUE);
                query.unpaged().subscribe(this);
            } else {
                actual.onComplete();
            }
        }

        @Override
        public void cancel() {
            cancelled = true;
            unpaged.cancel();
            source.executionFailed(new IllegalStateException("The execution was cancelled before its result had come"));
        }

        // the driver's execution of a result that nobody reads --------------------------------------------------------

        @Override
        public Context currentContext() {
            return actual.currentContext();
        }

        @Override
        public void onSubscribe(Subscription s) {
            unpaged.arrive(s);
        }

        @Override
        public void onNext(Result result) {
            source.executed(((ScopedResult) result).source());
        }

        @Override
        public void onError(Throwable error) {
            source.executionFailed(error);
            if (!cancelled) {
                actual.onError(error);
            }
        }

        @Override
        public void onComplete() {
            source.executionFailed(new IllegalStateException("The statement had no result"));
            if (!cancelled) {
                actual.onComplete();
            }
        }
    }
}
