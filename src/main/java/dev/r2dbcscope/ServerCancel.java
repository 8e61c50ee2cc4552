package dev.r2dbcscope;

import java.net.ConnectException;
import java.net.NoRouteToHostException;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;

/**
 * Asks the database to cancel what a gate's connection still runs for nobody.
 *
 * <p>Such a request names a connection and not a statement, and the database takes notice of it whenever it does. So it is
 * made only while nobody wants anything of what is in flight, and from the moment that this is so until the request is
 * answered and all of that has ended, the gate admits nothing that it could hit. The gate's end waits for it, too: a request
 * that is under way when the connection is given back would hit the next borrower.
 *
 * <p>A request that was answered while the exchange goes on, because it came before the server had begun or because there is
 * another one behind, is repeated, each time after a longer wait. One of which it is not known whether it will come to the
 * database yet, because it failed or was not answered, condemns the connection.
 *
 * <p>Of a result that is read for nobody the first rows are read, because most end soon, and then no more until the request
 * is answered: what the server has sent by then has to be read after all, and the longer one reads, the more the network's
 * buffers let it send.
 *
 * <p>It belongs to the gate's loop, in which all methods are called except {@link #stop}, {@link #flooded}, {@link #isAble}
 * and the two callbacks. Those only set a flag, after which the gate is asked for a turn.
 */
final class ServerCancel {

    private static final long SHORTEST_REPETITION = TimeUnit.MILLISECONDS.toNanos(100);
    private static final long LONGEST_REPETITION = TimeUnit.SECONDS.toNanos(1);

    private final Gate gate;
    private final GateOwner owner;
    private final @Nullable Scheduler scheduler;

    private volatile @Nullable Boolean able;
    private @Nullable Look look;
    private @Nullable Request request;
    private long repetition;
    private volatile boolean flooded;
    private volatile boolean stopped;

    ServerCancel(Gate gate, GateOwner owner, @Nullable Scheduler scheduler) {
        this.gate = gate;
        this.owner = owner;
        this.scheduler = scheduler;
    }

    /** Whether a request is under way, or about to be, so that nothing may be admitted that it could hit. */
    boolean holdsBack(List<Exchange> inFlight, boolean undone) {
        return request != null || isForNobody(inFlight, undone);
    }

    /** Whether what is in flight may have to be asked for before anything else is admitted. */
    boolean mayHoldBack() {
        return isAble() && !owner.isInTransaction();
    }

    /** Whether the answer to a request is still to come. */
    boolean isUnderWay() {
        return request != null;
    }

    /** So many rows were read for nobody already that it is not worth while to wait for the last one. */
    void flooded() {
        flooded = true;
    }

    /** No further request: the connection will be destroyed. */
    void stop() {
        stopped = true;
    }

    /** What the database runs in a transaction that goes on is not cancelled, because that would abort the transaction. */
    private boolean isForNobody(List<Exchange> inFlight, boolean undone) {
        if (inFlight.isEmpty() || stopped) {
            return false;
        }
        for (Exchange exchange : inFlight) {
            if (!exchange.isUnwanted()) {
                return false;
            }
        }
        return isAble() && (undone || !owner.isInTransaction());
    }

    /** Whether the database can be asked at all; known to other threads, too. */
    boolean isAble() {
        Boolean known = able;
        if (known == null) {
            known = owner.cancelRequest() != null;
            able = known;
        }
        return known;
    }

    /** Draws the consequences of a request that has been answered, before anything is admitted. */
    void conclude() {
        Request answered = request;
        if (answered == null || !answered.over) {
            return;
        }
        request = null;
        gate.drainAll();
        Throwable error = answered.error;
        if (error != null && !wasNeverSent(error) && !stopped) {
            stopped = true;
            gate.fail(owner.cancelFailed(error));
        }
    }

    /** One of those in flight has ended: another one runs now, which has not been asked for. */
    void ended() {
        repetition = 0;
        lookLater(null);
    }

    /** Looks what there is to do, at a moment at which nobody else has anything to tell the gate. */
    void look(List<Exchange> inFlight, boolean undone) {
        if (request != null) {
            return;
        }
        if (!isAnyUnwanted(inFlight) || inFlight.get(0).isOpening() || !isAble()) {
            repetition = 0;
            flooded = false;
            lookLater(null);
            return;
        }
        Look before = look;
        if (before == null) {
            lookLater(new Look(false));
        } else if (before.due || flooded) {
            goOn(inFlight, undone, before);
        }
    }

    private static boolean isAnyUnwanted(List<Exchange> inFlight) {
        for (Exchange exchange : inFlight) {
            if (exchange.isUnwanted()) {
                return true;
            }
        }
        return false;
    }

    private void goOn(List<Exchange> inFlight, boolean undone, Look before) {
        if (!isForNobody(inFlight, undone)) {
            inFlight.stream().filter(Exchange::isUnwanted).forEach(Exchange::drain);
        } else if (before.due && before.isLast || flooded && isImpatient()) {
            lookLater(null);
            ask(inFlight);
        } else if (flooded) {
            flooded = false;
            gate.drainAll();
        } else if (!before.isLast) {
            lookLater(new Look(true));
        }
    }

    /** Whoever never wants to ask in an exit does not want to because of many rows either. */
    private boolean isImpatient() {
        return owner.options().cancelGrace().compareTo(owner.options().releaseTimeout()) < 0;
    }

    private void lookLater(@Nullable Look next) {
        Look before = look;
        look = next;
        if (before != null) {
            before.dispose();
        }
        if (next != null) {
            next.arm(next.isLast ? waitFor(gate.oldestInFlight()) : 0);
        }
    }

    private long waitFor(Exchange exchange) {
        return Math.max(repetition, nanos(exchange.cancelGrace(owner.options())));
    }

    private void ask(List<Exchange> inFlight) {
        Exchange first = inFlight.get(0);
        repetition = repetition == 0 ? SHORTEST_REPETITION : Math.min(2 * repetition, LONGEST_REPETITION);
        Mono<Void> asking = owner.cancelRequest();
        if (asking == null) {
            able = false;
            return;
        }
        flooded = false;
        inFlight.forEach(Exchange::cancelRequested);
        Request asked = new Request(first.sql(), first.ran());
        request = asked;
        asked.start(asking);
    }

    /** There are no timers any more. */
    private void giveUp() {
        able = false;
        gate.drainAll();
    }

    private static long nanos(Duration duration) {
        return duration.compareTo(Duration.ofNanos(Long.MAX_VALUE)) >= 0 ? Long.MAX_VALUE : duration.toNanos();
    }

    /** Whether there was no connection by which it could have come to the database. */
    private static boolean wasNeverSent(Throwable error) {
        Throwable link = error;
        for (int i = 0; i < AbortReason.LONGEST_CHAIN && link != null; i++) {
            if (link instanceof ConnectException
                    || link instanceof NoRouteToHostException
                    || link instanceof UnknownHostException) {
                return true;
            }
            link = link.getCause();
        }
        return false;
    }

    /**
     * A later look at the gate: a first one soon, on the connection's own thread, which by then has mostly read the end of a
     * result whose last row was wanted, and costs no timer; and one after the grace.
     */
    private final class Look implements Runnable {

        final boolean isLast;
        volatile boolean due;
        private @Nullable Disposable timer;

        Look(boolean isLast) {
            this.isLast = isLast;
        }

        void arm(long nanos) {
            try {
                if (isLast) {
                    timer = Timers.after(nanos, this);
                } else if (scheduler != null) {
                    scheduler.schedule(this);
                } else {
                    run();
                }
            } catch (RejectedExecutionException shutDown) {
                giveUp();
            }
        }

        @Override
        public void run() {
            due = true;
            gate.run();
        }

        void dispose() {
            Disposable armed = timer;
            if (armed != null) {
                armed.dispose();
            }
        }
    }

    /** One request, from when it is sent until it is answered. */
    private final class Request {

        private final String sql;
        private final long ran;
        private final long startedAt = System.nanoTime();
        volatile boolean over;

        @Nullable
        Throwable error;

        Request(String sql, long ran) {
            this.sql = sql;
            this.ran = ran;
        }

        /** From another thread than the connection's own, on which the driver would connect and which may be busy reading. */
        void start(Mono<Void> asking) {
            try {
                Schedulers.parallel().schedule(() -> asking.subscribe(null, this::over, () -> over(null)));
            } catch (RejectedExecutionException shutDown) {
                over(new ConnectException("not sent"));
            }
        }

        private void over(@Nullable Throwable failure) {
            error = failure;
            owner.cancelRequested(sql, ran, System.nanoTime() - startedAt, failure);
            over = true;
            gate.run();
        }
    }
}
