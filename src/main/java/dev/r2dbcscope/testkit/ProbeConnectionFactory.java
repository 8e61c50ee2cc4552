package dev.r2dbcscope.testkit;

import dev.r2dbcscope.testkit.ProbeCall.Kind;
import dev.r2dbcscope.testkit.ProbeCall.State;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;

/**
 * A connection factory without a database, for tests: it does as it is told, and remembers everything that was asked of it.
 *
 * <p>Its steps are named {@code create}, {@code begin}, {@code guard}, {@code commit}, {@code rollback}, {@code close}, {@code cancel},
 * {@code savepoint}, {@code release savepoint}, {@code rollback to savepoint}, {@code setAutoCommit}, {@code isolation},
 * {@code statementTimeout}, {@code lockWaitTimeout}, {@code validate}, and the SQL text of a statement. Every step succeeds
 * at once, on the thread that subscribes, and a statement returns one row with the number 1, unless {@link #on} or
 * {@link #withFaults} say otherwise.
 *
 * <pre>{@code
 * ProbeConnectionFactory probe = ProbeConnectionFactory.of();
 * probe.on("select name", () -> Flux.just("ann", "bob")).on("commit", ProbeFault.hang());
 * }</pre>
 *
 * <p>Thread-safe. It opens as many connections as it is asked for; put a pool in front of it for a bound. Nothing of it
 * blocks or times out by itself.
 */
public final class ProbeConnectionFactory implements ConnectionFactory {

    private final Queue<ProbeCall> calls = new ConcurrentLinkedQueue<>();
    private final Queue<String> violations = new ConcurrentLinkedQueue<>();
    private final Queue<String> durable = new ConcurrentLinkedQueue<>();
    private final Map<String, Supplier<? extends Publisher<?>>> script = new ConcurrentHashMap<>();
    private final Map<String, ProbeFault> faultsByStep = new ConcurrentHashMap<>();
    private final AtomicLong order = new AtomicLong();
    private final AtomicInteger opened = new AtomicInteger();
    private final AtomicInteger closed = new AtomicInteger();
    private volatile @Nullable ProbeFaults faults;
    private volatile boolean forgetful;
    private volatile boolean inOrder;
    private volatile boolean aborts;
    private volatile boolean knowsSettings;
    private volatile boolean knowsCursors;
    private volatile boolean knowsCancel;
    private volatile boolean pipelinesBegin;
    private volatile Supplier<? extends @Nullable Scheduler> scheduler = () -> null;

    private ProbeConnectionFactory() {}

    /**
     * Makes a factory whose every step succeeds.
     *
     * @return a new one, with nothing opened
     */
    public static ProbeConnectionFactory of() {
        return new ProbeConnectionFactory();
    }

    /**
     * Replaces what a step does.
     *
     * @param step the step's name
     * @param behaviour called for each such step. Of {@code create} it emits connections, see {@link #newConnection()}; of a
     *     statement its rows, each a value, a map of values by column, or a {@link io.r2dbc.spi.Result.Segment}; of other
     *     steps its end is the step's end.
     * @return this
     */
    public ProbeConnectionFactory on(String step, Supplier<? extends Publisher<?>> behaviour) {
        script.put(step, behaviour);
        return this;
    }

    /**
     * Lets a step go wrong, whenever it comes, from now on.
     *
     * @param step the step's name
     * @param fault what happens to it; {@link ProbeFault#none()} ends an earlier one
     * @return this
     */
    public ProbeConnectionFactory on(String step, ProbeFault fault) {
        faultsByStep.put(step, fault);
        return this;
    }

    /**
     * Lets something decide for each step, and for each row, what goes wrong with it, from now on. Faults that were named for
     * a step by {@link #on(String, ProbeFault)} come first.
     *
     * @param decision decides
     * @return this
     */
    public ProbeConnectionFactory withFaults(ProbeFaults decision) {
        faults = decision;
        return this;
    }

    /**
     * Nothing goes wrong any more from now on; what was held or hangs stays so.
     *
     * @return this
     */
    public ProbeConnectionFactory withoutFaults() {
        faultsByStep.clear();
        faults = null;
        return this;
    }

    /**
     * Connections serve one step at a time, in the order in which they came, as those of real databases do: a statement holds
     * up all that follow until its last row was read. What has not ended when the connection is closed fails with SQLSTATE
     * 08003. By default each step is served at once, and none is disturbed by a close.
     *
     * @return this
     */
    public ProbeConnectionFactory servingInOrder() {
        inOrder = true;
        return this;
    }

    /**
     * A statement that fails aborts the transaction that it is part of, from now on, as in PostgreSQL: what follows fails
     * with SQLSTATE 25P02 until it is rolled back, as a whole or to a savepoint, and a COMMIT rolls it back and fails with an
     * {@link io.r2dbc.spi.R2dbcRollbackException}. By default a failed statement has no consequences.
     *
     * @return this
     */
    public ProbeConnectionFactory abortingTransactions() {
        aborts = true;
        return this;
    }

    /**
     * Keeps only numbers from now on, no list of calls: for runs of millions of steps.
     *
     * @return this
     */
    public ProbeConnectionFactory forgetful() {
        forgetful = true;
        return this;
    }

    /**
     * Knows session settings from now on, as steps {@code "set key"}, {@code "set local key"} and {@code "restore key"}.
     *
     * @return this
     */
    public ProbeConnectionFactory knowingSettings() {
        knowsSettings = true;
        return this;
    }

    /**
     * Reads statements that begin with {@code query} and have a fetch size through cursors from now on, as steps
     * {@code "open"}, {@code "fetch"} and {@code "close cursor"}, with a number behind them from the second cursor on. Each
     * connection is prepared for them if {@code "prepare cursor"} is scripted. So does a factory that was told to know settings
     * or how to cancel.
     *
     * @return this
     */
    public ProbeConnectionFactory knowingCursors() {
        knowsCursors = true;
        return this;
    }

    /**
     * Can be asked to cancel what runs from now on, as step {@code "cancel"}: statements that have not ended fail with
     * SQLSTATE 57014, unless {@link #on} says what the step does instead.
     *
     * @return this
     */
    public ProbeConnectionFactory knowingCancel() {
        knowsCancel = true;
        return this;
    }

    /**
     * Takes statements right behind BEGIN from now on, and serves in order, see {@link #servingInOrder}. A step {@code "guard"}
     * goes between them: if BEGIN has failed, it ends the connection, and everything behind it fails with SQLSTATE 08003.
     * Statements that begin with {@code lock} wait for the answer to BEGIN.
     *
     * @return this
     * @see dev.r2dbcscope.ScopeOptions#withPipelinedBegin
     */
    public ProbeConnectionFactory pipeliningBegin() {
        pipelinesBegin = true;
        return servingInOrder();
    }

    /**
     * The scheduler on which its connections want to be called; by default they do not care.
     *
     * @param wanted called when a connection is asked for it
     * @return this
     */
    public ProbeConnectionFactory onScheduler(Supplier<? extends @Nullable Scheduler> wanted) {
        scheduler = wanted;
        return this;
    }

    /**
     * Everything that was asked of the factory, in order.
     *
     * @return the calls so far
     */
    public List<ProbeCall> calls() {
        return new ArrayList<>(calls);
    }

    /**
     * The names of the {@link #calls()}, such as {@code create}, {@code begin#1}, {@code select 1#1}.
     *
     * @return the names so far
     */
    public List<String> log() {
        return calls.stream().map(ProbeCall::toString).toList();
    }

    /**
     * What must never happen: a use of a connection after its close, a second close.
     *
     * @return what happened of it
     */
    public List<String> violations() {
        return new ArrayList<>(violations);
    }

    /**
     * The statements that took effect for good, in the order in which they did: those outside a transaction when they ended
     * or were left, those inside when it was committed. Failed ones have no effect.
     *
     * @return their SQL texts
     */
    public List<String> durable() {
        return new ArrayList<>(durable);
    }

    /**
     * How many connections were opened.
     *
     * @return the number
     */
    public int opened() {
        return opened.get();
    }

    /**
     * How many connections were closed.
     *
     * @return the number
     */
    public int closed() {
        return closed.get();
    }

    /**
     * How many connections are open.
     *
     * @return the number
     */
    public int live() {
        return opened.get() - closed.get();
    }

    /**
     * The steps that have not ended.
     *
     * @return the calls
     */
    public List<ProbeCall> inFlight() {
        return calls.stream().filter(call -> call.state() == State.RUNNING).toList();
    }

    /**
     * Opens a connection, to be emitted by a scripted {@code create}.
     *
     * @return the connection
     */
    public Connection newConnection() {
        return new ProbeConnection(this, opened.incrementAndGet());
    }

    /**
     * Opens a connection when it is subscribed to.
     *
     * @return emits one connection, unless something else was scripted
     */
    @Override
    @SuppressWarnings("unchecked")
    public Publisher<? extends Connection> create() {
        Supplier<? extends Publisher<?>> behaviour = script.get("create");
        if (behaviour != null && !mayFail("create")) {
            // as it is, because it may break the rules of publishers
            called(Kind.CREATE, 0, "create").end(State.COMPLETED);
            return (Publisher<? extends Connection>) behaviour.get();
        }
        Flux<Connection> connections = behaviour == null
                ? Flux.defer(() -> Mono.just(newConnection()))
                : Flux.from((Publisher<? extends Connection>) behaviour.get());
        return Flux.defer(() -> {
            ProbeCall call = called(Kind.CREATE, 0, "create");
            return faultAt(call).applyTo(connections, call, Mono.never());
        });
    }

    @Override
    public ConnectionFactoryMetadata getMetadata() {
        return () -> "probe";
    }

    ProbeCall called(Kind kind, int connection, String step) {
        ProbeCall call = new ProbeCall(order.incrementAndGet(), kind, connection, step);
        if (!forgetful) {
            calls.add(call);
        }
        return call;
    }

    void violated(String what) {
        violations.add(what);
    }

    void tookEffect(String sql) {
        if (!forgetful) {
            durable.add(sql);
        }
    }

    void closedOne() {
        closed.incrementAndGet();
    }

    ProbeFault faultAt(ProbeCall call) {
        ProbeFault named = faultsByStep.getOrDefault(call.step(), ProbeFault.none());
        ProbeFaults decision = faults;
        return named.isNone() && decision != null ? decision.at(call) : named;
    }

    ProbeFault faultAtRow(ProbeCall statement, long row) {
        ProbeFaults decision = faults;
        return decision == null ? ProbeFault.none() : decision.atRow(statement, row);
    }

    private boolean mayFail(String step) {
        return faultsByStep.containsKey(step) || hasFaults();
    }

    boolean hasFaults() {
        return faults != null;
    }

    boolean isScripted(String step) {
        return script.containsKey(step);
    }

    @Nullable
    Publisher<?> scripted(String step) {
        Supplier<? extends Publisher<?>> behaviour = script.get(step);
        return behaviour == null ? null : behaviour.get();
    }

    boolean abortsTransactions() {
        return aborts;
    }

    boolean inOrder() {
        return inOrder;
    }

    boolean knowsMoreThanTheSpi() {
        return knowsSettings || knowsCursors || knowsCancel || pipelinesBegin;
    }

    boolean knowsSettings() {
        return knowsSettings;
    }

    boolean knowsCancel() {
        return knowsCancel;
    }

    boolean pipelinesBegin() {
        return pipelinesBegin;
    }

    @Nullable
    Scheduler askedForScheduler() {
        return scheduler.get();
    }

    @Override
    public String toString() {
        return "probe: " + opened + " opened, " + closed + " closed, in flight " + inFlight();
    }
}
