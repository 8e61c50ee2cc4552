package dev.r2dbcscope;

import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import java.time.Duration;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** What goes wrong in one case of {@link RandomFaultsIT}, and when: decided by a seed, then armed. */
final class FaultScript {

    /** What one can expect of everybody whom a fault meets. */
    enum Manner {
        /** Nothing fails; it only takes longer. */
        HARMLESS,
        /** Whoever is met is told at once, so that nobody has to wait for a time limit. */
        LOUD,
        /** Whoever is met is told nothing, so that only time limits help. */
        SILENT
    }

    /** Whatever a driver sends in the phases of a scope: while it connects, at the beginning, in the middle, at the end. */
    private static final List<String> WORDS = List.of(
            "user",
            "BEGIN",
            "BEGIN",
            "insert into",
            "insert into",
            "select",
            "DECLARE",
            "FETCH",
            "SAVEPOINT",
            "RELEASE",
            "COPY",
            "pg_sleep",
            "COMMIT",
            "COMMIT",
            "COMMIT",
            "ROLLBACK",
            "ROLLBACK");

    private static final List<Class<? extends ScopeEvent>> EVENTS = List.of(
            ScopeEvent.Waiting.class,
            ScopeEvent.Opened.class,
            ScopeEvent.StatementEnded.class,
            ScopeEvent.Exiting.class,
            ScopeEvent.Released.class);

    private static final List<NetworkFault> LOUD = List.of(NetworkFault.CUT, NetworkFault.RESET);
    private static final List<NetworkFault> ALL = List.of(
            NetworkFault.CUT,
            NetworkFault.CUT,
            NetworkFault.RESET,
            NetworkFault.RESET,
            NetworkFault.HALF_OPEN,
            NetworkFault.BLACK_HOLE,
            NetworkFault.REQUESTS_LOST,
            NetworkFault.ANSWERS_LOST);

    /** The world that a script breaks. */
    interface World {
        FaultyProxy network();

        /** Makes the pool's connections be made anew. */
        void forgetConnections();

        /** The server ends the pool's connections. */
        void terminate();

        /** The server cancels what the pool's connections run. */
        void cancelStatements();

        void restart(boolean crash);
    }

    private interface Step {
        void arm(World world, FaultScript script);
    }

    private final String description;
    private final Manner manner;
    private final Step step;
    private final boolean forgetful;
    private boolean killsIdle;
    private final AtomicBoolean struck = new AtomicBoolean();
    private final AtomicInteger running = new AtomicInteger();
    private final AtomicInteger countdown = new AtomicInteger();
    private volatile @Nullable Class<? extends ScopeEvent> event;
    private volatile Runnable onEvent = () -> {};

    private FaultScript(String description, Manner manner, boolean forgetful, Step step) {
        this.description = description;
        this.manner = manner;
        this.forgetful = forgetful;
        this.step = step;
    }

    static FaultScript random(Random random) {
        FaultScript script = choose(random);
        script.killsIdle = random.nextInt(3) == 0;
        return script;
    }

    private static FaultScript choose(Random random) {
        return switch (random.nextInt(21)) {
            case 0, 1, 2, 3, 4 -> atWord(random);
            case 5, 6, 7 -> atAnswer(random);
            case 8, 9 -> atByte(random);
            case 10, 11, 12 -> atEvent(random);
            case 13, 14 -> byTheServer(random, true);
            case 15, 16 -> byTheServer(random, false);
            case 17, 18 -> forNewcomers(random);
            case 19 -> atCancelRequest(random);
            default -> slowness(random);
        };
    }

    /** The server goes away and comes back. */
    static FaultScript restart(Random random) {
        boolean crash = random.nextBoolean();
        String word = word(random);
        return new FaultScript(
                (crash ? "crash at " : "restart at ") + word,
                Manner.LOUD,
                false,
                (world, script) -> script.whenSeen(world, word, () -> world.restart(crash)));
    }

    private static String word(Random random) {
        return WORDS.get(random.nextInt(WORDS.size()));
    }

    private static NetworkFault fault(Random random) {
        return ALL.get(random.nextInt(ALL.size()));
    }

    private static Manner manner(NetworkFault fault) {
        return LOUD.contains(fault) ? Manner.LOUD : Manner.SILENT;
    }

    private static FaultScript atWord(Random random) {
        String word = word(random);
        NetworkFault fault = fault(random);
        boolean everywhere = random.nextInt(3) == 0;
        boolean forgetful = word.equals("user") || random.nextInt(8) == 0;
        NetworkTrigger trigger = NetworkTrigger.clientSends(word);
        return new FaultScript(
                fault + " at " + word,
                manner(fault),
                forgetful,
                (world, script) -> script.whenStruck(
                        world.network().strikeWhen(everywhere ? trigger.everywhere() : trigger, fault)));
    }

    /** The server has got what is lost, and has done it: the answer is lost, or a part of it. */
    private static FaultScript atAnswer(Random random) {
        String word = word(random);
        NetworkFault fault = fault(random);
        int bytes = random.nextBoolean() ? 0 : random.nextInt(40);
        boolean forgetful = word.equals("user");
        return new FaultScript(
                fault + " after " + bytes + " bytes of the answer to " + word,
                manner(fault),
                forgetful,
                (world, script) -> world.network()
                        .await(NetworkTrigger.clientSends(word))
                        .subscribe(
                                null,
                                healed -> {},
                                () -> script.whenStruck(
                                        world.network().strikeWhen(NetworkTrigger.afterServerBytes(bytes), fault))));
    }

    private static FaultScript atByte(Random random) {
        NetworkTrigger trigger = NetworkTrigger.seeded(random.nextLong(), 20_000);
        NetworkFault fault = fault(random);
        boolean forgetful = random.nextInt(3) == 0;
        return new FaultScript(
                fault + " " + trigger,
                manner(fault),
                forgetful,
                (world, script) -> script.whenStruck(world.network().strikeWhen(trigger, fault)));
    }

    private static FaultScript atEvent(Random random) {
        Class<? extends ScopeEvent> type = EVENTS.get(random.nextInt(EVENTS.size()));
        int nth = 1 + random.nextInt(3);
        NetworkFault fault = fault(random);
        return new FaultScript(
                fault + " at " + type.getSimpleName() + " " + nth, manner(fault), false, (world, script) -> {
                    script.countdown.set(nth);
                    script.onEvent = () -> {
                        world.network().strike(fault);
                        script.struck.set(true);
                    };
                    script.event = type;
                });
    }

    private static FaultScript byTheServer(Random random, boolean terminates) {
        String word = word(random);
        Duration later = Duration.ofMillis(random.nextInt(4));
        boolean forgetful = word.equals("user");
        return new FaultScript(
                (terminates ? "terminate " : "cancel ") + later.toMillis() + " ms after " + word,
                Manner.LOUD,
                forgetful,
                (world, script) -> world.network()
                        .await(NetworkTrigger.clientSends(word))
                        .subscribe(
                                null,
                                healed -> {},
                                () -> script.later(later, terminates ? world::terminate : world::cancelStatements)));
    }

    /** The database is asked on a connection of its own; a scope that leaves a statement asks. */
    private static FaultScript atCancelRequest(Random random) {
        NetworkFault fault = fault(random);
        int bytes = random.nextInt(16);
        return new FaultScript(
                fault + " after " + bytes + " bytes of what follows pg_sleep",
                manner(fault),
                false,
                (world, script) -> world.network()
                        .await(NetworkTrigger.clientSends("pg_sleep(60)"))
                        .subscribe(
                                null,
                                healed -> {},
                                () -> script.later(
                                        Duration.ofMillis(2), // when the statement has passed
                                        () -> script.whenStruck(world.network()
                                                .strikeWhen(NetworkTrigger.afterClientBytes(bytes), fault)))));
    }

    /** New connections, which are also how the database is asked to cancel a statement. */
    private static FaultScript forNewcomers(Random random) {
        boolean refused = random.nextBoolean();
        Duration back = Duration.ofMillis(20 + random.nextInt(150));
        boolean forgetful = random.nextInt(3) > 0;
        return new FaultScript(
                "newcomers " + (refused ? "refused" : "held") + " for " + back.toMillis() + " ms",
                refused ? Manner.LOUD : Manner.HARMLESS,
                forgetful,
                (world, script) -> {
                    if (refused) {
                        world.network().refuseNewcomers();
                    } else {
                        world.network().holdNewcomers();
                    }
                    script.later(back, world.network()::letNewcomersIn);
                });
    }

    private static FaultScript slowness(Random random) {
        if (random.nextBoolean()) {
            String word = word(random);
            return new FaultScript(
                    "stall at " + word,
                    Manner.HARMLESS,
                    false,
                    (world, script) -> world.network()
                            .strikeWhen(NetworkTrigger.clientSends(word), NetworkFault.STALL)
                            .subscribe(
                                    null,
                                    healed -> {},
                                    () -> script.later(Duration.ofMillis(100), world.network()::heal)));
        }
        Duration there = Duration.ofMillis(random.nextInt(6));
        Duration back = Duration.ofMillis(random.nextInt(6));
        long bandwidth = 20_000 + random.nextInt(1_000_000);
        return new FaultScript(
                "latency " + there.plus(back).toMillis() + " ms, " + bandwidth + " bytes/s",
                Manner.HARMLESS,
                false,
                (world, script) -> {
                    world.network().latency(there, back);
                    world.network().bandwidth(bandwidth, bandwidth);
                    script.struck.set(true);
                });
    }

    // while the case runs --------------------------------------------------------------------------------------------

    Manner manner() {
        return manner;
    }

    /** Whether it has done anything. */
    boolean hasStruck() {
        return struck.get();
    }

    boolean isBusy() {
        return running.get() > 0;
    }

    void arm(World world) {
        if (forgetful && manner != Manner.HARMLESS && killsIdle) {
            world.terminate();
        } else if (forgetful) {
            world.forgetConnections();
        }
        step.arm(world, this);
    }

    /** The listener of the scopes. */
    void saw(ScopeEvent seen) {
        Class<? extends ScopeEvent> awaited = event;
        if (awaited != null && awaited.isInstance(seen) && countdown.decrementAndGet() == 0) {
            onEvent.run();
        }
    }

    private void whenStruck(Mono<Void> fault) {
        fault.subscribe(null, healed -> {}, () -> struck.set(true));
    }

    private void whenSeen(World world, String word, Runnable action) {
        world.network()
                .await(NetworkTrigger.clientSends(word))
                .subscribe(null, healed -> {}, () -> later(Duration.ZERO, action));
    }

    /** On a thread that may wait. */
    private void later(Duration delay, Runnable action) {
        running.incrementAndGet();
        struck.set(true);
        Mono.delay(delay, Schedulers.boundedElastic())
                .doOnNext(now -> action.run())
                .doFinally(end -> running.decrementAndGet())
                .subscribe();
    }

    @Override
    public String toString() {
        return description
                + (forgetful ? killsIdle ? ", with dead connections in the pool" : ", on new connections" : "") + " ("
                + manner + ")";
    }
}
