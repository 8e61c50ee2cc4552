package dev.r2dbcscope;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.ContextView;

/**
 * BEGIN on its way through the gate of the session that it opens, with the first statements right behind, see {@link
 * PipelinedBegin}.
 *
 * <p>It is in flight until it is answered. Whoever may follow is let through meanwhile, behind the guard; whoever may not
 * waits, as behind anything that is exclusive. When it fails, the gate is closed before it ends, so that a statement is either
 * refused or behind the guard.
 */
final class BeginExchange extends Exchange {

    private final Session session;
    private final Gate gate;
    private final Connection connection;
    private final Map<String, String> settings;
    private final PipelinedBegin mode;
    private final Publisher<?> begin;
    private final ContextView context;
    private final Completion answer = new Completion();

    /** BEGIN, and the guard once it was sent. */
    private final AtomicInteger unanswered = new AtomicInteger(1);

    private boolean guarded;
    private volatile boolean open;
    private volatile boolean begun;
    private volatile @Nullable Throwable error;

    private BeginExchange(
            Session session,
            Connection connection,
            Map<String, String> settings,
            PipelinedBegin mode,
            Publisher<?> begin,
            ContextView context) {
        this.session = session;
        this.gate = session.gate();
        this.connection = connection;
        this.settings = settings;
        this.mode = mode;
        this.begin = begin;
        this.context = context;
    }

    /** How the session's transaction can be begun so, or {@code null} if it cannot, or it is not worth while. */
    static @Nullable PipelinedBegin mode(Session session, Connection connection) {
        RoundTrips roundTrips = session.root().roundTrips();
        if (session.isNested() || !roundTrips.areAtLeast(session.options().pipelinedBegin())) {
            return null;
        }
        PipelinedBegin mode = session.dialect().pipelinedBegin(FactorySupply.physical(connection));
        return mode == null || !FactorySupply.isWrappedOnlyBy(mode::isInOrder, connection) ? null : mode;
    }

    /** The BEGIN of a session with a connection of its own; {@code null} if nothing may follow before it is answered. */
    static @Nullable BeginExchange of(
            Session session, Connection connection, TransactionOptions transaction, ContextView context) {
        PipelinedBegin mode = mode(session, connection);
        if (mode == null || !Boolean.TRUE.equals(session.root().roundTrips().arePipelined())) {
            return null;
        }
        Map<String, String> settings = session.settings().localTo(transaction);
        Publisher<?> begin = settings == null ? null : mode.begin(connection, transaction, settings);
        return begin == null || settings == null
                ? null
                : new BeginExchange(session, connection, settings, mode, begin, context);
    }

    /** Whether that is known at once. */
    boolean isAnswered() {
        return answer.hasEnded();
    }

    /** Completes when the transaction is open; fails if it could not be opened, upon which the gate is closed. */
    Mono<Void> answer() {
        return answer.asMono();
    }

    @Override
    String sql() {
        return "BEGIN";
    }

    @Override
    boolean isOpening() {
        return true;
    }

    @Override
    ScopeState state() {
        return ScopeState.OPENING;
    }

    @Override
    boolean holdsBack(Exchange next) {
        try {
            return !mode.mayFollow(next.sql());
        } catch (RuntimeException e) {
            return true;
        }
    }

    /**
     * Nothing else would keep the next from taking effect if BEGIN failed. If it has failed just now, the gate is closed, and a
     * guard that nobody waits for would end the connection when it was given back.
     */
    @Override
    void precedes(Exchange next) {
        if (guarded || begun || unanswered.getAndUpdate(count -> count == 0 ? 0 : count + 1) == 0) {
            return;
        }
        guarded = true;
        try {
            gate.onConnection(() -> Shield.start(() -> mode.guard(connection), context)
                    .subscribe(null, this::guardFailed, this::answeredOne));
        } catch (RuntimeException rejected) {
            failed(rejected);
        }
    }

    @Override
    void start() {
        starting();
        session.begun();
        Shield.start(() -> Flux.from(begin).doOnNext(any -> open = true), context)
                .subscribe(null, this::notBegun, this::begun);
    }

    /** What fails in a transaction that is open is a setting, if there are any. */
    private void notBegun(Throwable thrown) {
        if (open && !settings.isEmpty()) {
            session.notBegun(thrown); // before a lost connection closes the gate
            failed(session.settings().refused(thrown, settings));
        } else {
            failed(thrown);
        }
    }

    /** A role that the transaction has set may not be able to call the guard (class 42): the next ones do without. */
    private void guardFailed(Throwable thrown) {
        if (begun
                && thrown instanceof R2dbcException answer
                && answer.getSqlState() != null
                && answer.getSqlState().startsWith("42")) {
            session.root().roundTrips().arePipelined(false);
        }
        failed(thrown);
    }

    private void begun() {
        begun = true;
        session.root().roundTrips().note(ran());
        answeredOne();
    }

    private void failed(Throwable thrown) {
        databaseFailed(gate.owner(), thrown);
        if (error == null) {
            error = thrown;
            session.notBegun(thrown);
            gate.closeAbruptly();
        }
        answeredOne();
    }

    private void answeredOne() {
        if (unanswered.decrementAndGet() > 0) {
            return;
        }
        Throwable failure = error;
        if (failure == null) {
            answer.complete();
        } else {
            answer.fail(failure);
        }
        gate.ended(this);
    }

    @Override
    void refuse(RuntimeException reason) {
        if (!session.isExiting()) {
            session.notBegun(reason);
            gate.closeAbruptly();
        }
        answer.fail(reason);
    }

    @Override
    void drain() {
        // it has no rows
    }

    @Override
    void abandon(RuntimeException reason) {
        // nothing is to be done on the connection before it is answered
    }
}
