package dev.r2dbcscope.simulation;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.SessionSettings;
import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Subscription;
import reactor.core.CoreSubscriber;
import reactor.core.publisher.Flux;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.util.context.Context;

/** One run of a plan, in virtual time, on the calling thread. */
final class Simulation {

    /** Longer than all bounds of a plan together. */
    private static final Duration LONG = Duration.ofMinutes(10);

    private final Plan plan;
    private final VirtualTimeScheduler time;
    private final History history;
    private final ProbeConnectionFactory probe = ProbeConnectionFactory.of();
    private final Pool pool;
    private final ConnectionFactory factory;
    private final ConnectionScopes scopes;
    private final Code code;
    private final List<Throwable> dropped = new ArrayList<>();

    private Simulation(Plan plan, UnaryOperator<ConnectionFactory> seenThrough, boolean isRecording) {
        this.plan = plan;
        this.time = VirtualTimeScheduler.getOrSet(VirtualTimeScheduler.create());
        this.history = new History(time, plan.database(), isRecording);
        prepare(plan.database());
        this.pool = new Pool(probe, plan.pool(), history);
        probe.withFaults(new Faults(plan.faults(), history, pool));
        this.factory = seenThrough.apply(pool);
        this.scopes = ConnectionScopes.of(factory);
        this.code = new Code(scopes, options(), probe, history);
    }

    /** What became of a plan. */
    record Outcome(Plan plan, List<String> log, List<String> offences, int statements) {

        boolean isSound() {
            return offences.isEmpty();
        }

        @Override
        public String toString() {
            return plan + "\n" + String.join("\n", log) + "\n\n" + String.join("\n", offences) + "\n";
        }
    }

    /** Runs a plan without keeping what happens. */
    static Outcome run(Plan plan) {
        return run(plan, UnaryOperator.identity(), false, simulation -> simulation.code.of(plan.root()));
    }

    /** Runs a plan and keeps a log of it, which takes twice as long. */
    static Outcome record(Plan plan) {
        return run(plan, UnaryOperator.identity(), true, simulation -> simulation.code.of(plan.root()));
    }

    /** Runs a plan with connections that are seen through something else. */
    static Outcome runThrough(UnaryOperator<ConnectionFactory> seenThrough, Plan plan) {
        return run(plan, seenThrough, true, simulation -> simulation.code.of(plan.root()));
    }

    /** Runs something else than the plan's pipeline under the plan's conditions. */
    static Outcome runBare(Plan plan, Function<ConnectionFactory, Flux<Integer>> pipeline) {
        return run(plan, UnaryOperator.identity(), true, simulation -> pipeline.apply(simulation.factory));
    }

    private static Outcome run(
            Plan plan,
            UnaryOperator<ConnectionFactory> seenThrough,
            boolean isRecording,
            Function<Simulation, Flux<Integer>> pipeline) {
        try {
            Simulation simulation = new Simulation(plan, seenThrough, isRecording);
            return simulation.run(pipeline.apply(simulation));
        } finally {
            VirtualTimeScheduler.reset();
        }
    }

    private void prepare(Plan.Database database) {
        on(database.inOrder(), ProbeConnectionFactory::servingInOrder);
        on(database.aborting(), ProbeConnectionFactory::abortingTransactions);
        on(database.cancel(), ProbeConnectionFactory::knowingCancel);
        on(database.settings(), ProbeConnectionFactory::knowingSettings);
        on(database.cursors(), ProbeConnectionFactory::knowingCursors);
        on(database.pipelining(), ProbeConnectionFactory::pipeliningBegin);
    }

    private void on(boolean wanted, UnaryOperator<ProbeConnectionFactory> feature) {
        if (wanted) {
            feature.apply(probe);
        }
    }

    private ScopeOptions options() {
        Plan.Options given = plan.options();
        ScopeOptions options = ScopeOptions.defaults()
                .withAcquireTimeout(Code.millis(given.acquire()))
                .withReleaseTimeout(Code.millis(given.release()))
                .withCancelGrace(Code.millis(given.grace()))
                .withMaxBufferedRows(given.buffered())
                .withMaxStatementsInFlight(given.inFlight())
                .withPipelinedBegin(Duration.ZERO);
        if (given.idle() > 0) {
            options = options.withMaxIdle(Code.millis(given.idle()));
        }
        return plan.database().settings()
                ? options.withSettings(
                        SessionSettings.none().with("app.tenant", "1").withValuesInSql())
                : options;
    }

    private Outcome run(Flux<Integer> pipeline) {
        Root root = new Root();
        try {
            pipeline.subscribe(root);
            time.advanceTimeBy(LONG);
            history.require(root.isOver() || history.hung, () -> "hangs: no end came, and live are " + scopes.live());
            root.cancel();
            time.advanceTimeBy(LONG);
            pool.close();
            new Invariants(history, probe, pool, scopes, dropped).check();
        } catch (RuntimeException | Error e) {
            history.offence("thrown: " + e + " "
                    + List.of(e.getStackTrace()).subList(0, Math.min(6, e.getStackTrace().length)));
        }
        return new Outcome(plan, history.log, history.offences, history.statements.size());
    }

    /** The subscriber at the end. */
    private final class Root implements CoreSubscriber<Integer> {

        private final Context context;
        private @Nullable Subscription subscription;
        private boolean terminated;
        private boolean cancelled;
        private boolean busy;
        private int received;
        private int asked;

        Root() {
            Consumer<Throwable> onErrorDropped = dropped::add;
            Consumer<Object> onNextDropped = value -> history.note(() -> "dropped a value");
            context = Context.of(
                    "reactor.onErrorDropped.local", onErrorDropped, "reactor.onNextDropped.local", onNextDropped);
        }

        boolean isOver() {
            return terminated || cancelled;
        }

        @Override
        public Context currentContext() {
            return context;
        }

        @Override
        public void onSubscribe(Subscription s) {
            history.require(subscription == null, () -> "subscribed twice");
            subscription = s;
            Plan.Subscriber wanted = plan.subscriber();
            if (wanted.cancelAtMillis() >= 0) {
                Schedulers.parallel().schedule(this::cancel, wanted.cancelAtMillis(), TimeUnit.MILLISECONDS);
            }
            if (wanted.first() == Integer.MAX_VALUE) {
                s.request(Long.MAX_VALUE);
                return;
            }
            Schedulers.parallel().schedule(this::askForMore, wanted.everyMillis(), TimeUnit.MILLISECONDS);
            if (wanted.first() > 0) {
                s.request(wanted.first());
            }
        }

        private void askForMore() {
            if (isOver() || subscription == null) {
                return;
            }
            if (asked++ < 10) {
                Schedulers.parallel()
                        .schedule(this::askForMore, plan.subscriber().everyMillis(), TimeUnit.MILLISECONDS);
                subscription.request(plan.subscriber().more());
            } else {
                subscription.request(Long.MAX_VALUE);
            }
        }

        private void signal(String signal) {
            history.note(() -> "> " + signal);
            history.require(!terminated, () -> signal + " after the end");
            history.require(!busy, () -> signal + " within another signal");
        }

        @Override
        public void onNext(Integer value) {
            signal("onNext " + value);
            busy = true;
            if (++received == plan.subscriber().cancelAfter()) {
                cancel();
            }
            busy = false;
        }

        @Override
        public void onError(Throwable error) {
            signal("onError " + error.getClass().getSimpleName());
            terminated = true;
            history.errors.add(error);
        }

        @Override
        public void onComplete() {
            signal("onComplete");
            terminated = true;
        }

        void cancel() {
            Subscription s = subscription;
            if (!isOver() && s != null) {
                cancelled = true;
                history.note(() -> "< cancel");
                s.cancel();
            }
        }
    }
}
