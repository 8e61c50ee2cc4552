package dev.r2dbcscope;

import io.r2dbc.spi.Result;
import org.reactivestreams.Publisher;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Operators;

/** What {@code execute()} returns: each subscription passes the gate of the innermost scope of its subscriber. */
final class ExecuteFlux extends Flux<Result> {

    private final Scope scope;
    private final String sql;
    private final boolean hasManyBindings;
    private final Publisher<? extends Result> driver;
    private final boolean counted;
    private boolean fetches;

    /**
     * An execution.
     *
     * @param counted whether it is work of the scope that waits for an answer, see {@link ScopeWork}, and not a part of what
     *     has been answered already
     */
    ExecuteFlux(Scope scope, String sql, boolean hasManyBindings, Publisher<? extends Result> driver, boolean counted) {
        this.scope = scope;
        this.sql = sql;
        this.hasManyBindings = hasManyBindings;
        this.driver = driver;
        this.counted = counted;
    }

    /** The driver reads it by fetch size. */
    ExecuteFlux fetching() {
        fetches = true;
        return this;
    }

    @Override
    public void subscribe(CoreSubscriber<? super Result> actual) {
        RuntimeException closed = scope.refusal(sql, actual.currentContext());
        if (closed != null) {
            Operators.error(actual, closed);
            return;
        }
        Scope innermost = scope.scopeFor(actual.currentContext());
        Session session = innermost.session();
        Gate gate = session.gateIfOpen();
        if (gate == null) {
            session.open(actual.currentContext()).flatMapMany(opened -> this).subscribe(actual);
            return;
        }
        RuntimeException waitsForItself = DriverTurn.refusal(gate, actual.currentContext(), sql);
        if (waitsForItself != null) {
            Operators.error(actual, waitsForItself);
            return;
        }
        if (counted && !innermost.work().begin()) {
            Operators.error(actual, innermost.closedError());
            return;
        }
        ResultExchange exchange = new ResultExchange(scope, gate, sql, hasManyBindings, driver, actual);
        if (fetches && !session.isInTransaction()) {
            exchange.fetching();
        }
        if (counted) {
            exchange.countedBy(innermost.work());
        }
        actual.onSubscribe(exchange);
        gate.enter(exchange); // also one that was cancelled just now: the gate counts who comes and who leaves
    }
}
