package dev.r2dbcscope;

import java.time.Duration;
import java.util.Iterator;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import reactor.core.Disposable;
import reactor.core.publisher.Operators;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;

/**
 * Timers on {@link Schedulers#parallel()} that are cheap as long as they do not fire, which is what nearly all of a scope's do:
 * a scheduler's own timer takes a lock and wakes a sleeping thread when it is armed.
 *
 * <p>Timers of the same length fire in the order in which they were armed, so those of one length stand in a queue, and
 * only for the first of them a timer of the scheduler runs. One that was disposed of stays until it comes to the head, or until
 * it is one of {@value #SWEEP} such: then they are swept out.
 */
final class Timers {

    /** How many disposed timers a queue keeps at most, beside those that are disposed of while it is swept. */
    static final int SWEEP = 1_024;

    /** Timers of more lengths than this are armed with the scheduler, each by itself. */
    private static final int MOST_LENGTHS = 64;

    /** Replaced when Reactor gets another scheduler, such as that of a test in virtual time. */
    private static volatile Timers current = new Timers(Schedulers.parallel());

    private final Scheduler scheduler;
    private final boolean virtual;
    private final ConcurrentHashMap<Long, Lane> lanes = new ConcurrentHashMap<>();

    private Timers(Scheduler scheduler) {
        this.scheduler = scheduler;
        this.virtual = Math.abs(scheduler.now(TimeUnit.MILLISECONDS) - System.currentTimeMillis()) > 1_000;
    }

    /** Runs the task on the scheduler when the time is over, unless the timer was disposed of. */
    static Disposable after(Duration time, Runnable task) {
        return after(time.toNanos(), task);
    }

    static Disposable after(long nanos, Runnable task) {
        Scheduler now = Schedulers.parallel();
        Timers timers = current;
        if (timers.scheduler != now) {
            timers = new Timers(now);
            current = timers;
        }
        Lane lane = timers.lane(nanos);
        return lane == null ? now.schedule(task, nanos, TimeUnit.NANOSECONDS) : lane.arm(task);
    }

    /** How many are armed, and were not disposed of. */
    static int armed() {
        return current.lanes.values().stream().mapToInt(Lane::armed).sum();
    }

    /** How many are kept, disposed of or not. */
    static int kept() {
        return current.lanes.values().stream()
                .mapToInt(lane -> lane.timers.size())
                .sum();
    }

    /** How many timers of the scheduler itself run for them. */
    static int ticking() {
        return (int)
                current.lanes.values().stream().filter(lane -> lane.ticking).count();
    }

    private @Nullable Lane lane(long nanos) {
        Lane known = lanes.get(nanos);
        if (known != null || lanes.size() >= MOST_LENGTHS) {
            return known;
        }
        return lanes.computeIfAbsent(nanos, length -> new Lane(this, length));
    }

    /** By the clock of the scheduler if time is virtual there; its real one may be set, this one only goes on. */
    private long now() {
        return virtual ? scheduler.now(TimeUnit.NANOSECONDS) : System.nanoTime();
    }

    /**
     * The timers of one length. A tick looks for those that are due and schedules the next one; one too many does no harm. A tick
     * that does not come, because something blocks its thread, is made up for by the next timer that is armed.
     */
    private static final class Lane {

        private static final long LATE = TimeUnit.MILLISECONDS.toNanos(100);

        private final Timers owner;
        private final long length;
        private final Queue<Timer> timers = new ConcurrentLinkedQueue<>();
        private final AtomicInteger looking = new AtomicInteger();
        private final AtomicInteger disposed = new AtomicInteger();
        private volatile boolean ticking;
        private volatile long tickDue;

        Lane(Timers owner, long length) {
            this.owner = owner;
            this.length = length;
        }

        Timer arm(Runnable task) {
            long now = owner.now();
            Timer timer = new Timer(this, now + length, task);
            timers.offer(timer);
            if (!ticking || now - tickDue > LATE) {
                try {
                    tickAt(timer.due, now);
                } catch (Throwable rejected) {
                    timer.dispose();
                    throw rejected;
                }
            }
            return timer;
        }

        int armed() {
            return (int) timers.stream().filter(timer -> !timer.isDisposed()).count();
        }

        private void tickAt(long due, long now) {
            tickDue = due;
            ticking = true;
            try {
                owner.scheduler.schedule(this::look, Math.max(0, due - now), TimeUnit.NANOSECONDS);
            } catch (Throwable rejected) {
                ticking = false;
                throw rejected;
            }
        }

        private void look() {
            if (looking.getAndIncrement() != 0) {
                return;
            }
            int missed = 1;
            do {
                fireAllThatAreDue();
                missed = looking.addAndGet(-missed);
            } while (missed != 0);
        }

        private void fireAllThatAreDue() {
            long now = owner.now();
            while (true) {
                Timer first = timers.peek();
                if (first == null) {
                    ticking = false;
                    if (timers.isEmpty()) {
                        return;
                    }
                    continue;
                }
                Runnable task = first.get();
                if (task != null && first.due - now > 0) {
                    if (!ticking || tickDue - now <= 0 || tickDue - first.due > 0) {
                        tickAgain(first.due, now);
                    }
                    return;
                }
                boolean mine = timers.remove(first);
                if (task == null) {
                    disposed.addAndGet(mine ? -1 : 0);
                } else if (first.compareAndSet(task, null)) {
                    fire(task);
                }
            }
        }

        /** If the scheduler refuses, the next timer that is armed meets that, and tells whoever arms it. */
        private void tickAgain(long due, long now) {
            try {
                tickAt(due, now);
            } catch (Throwable rejected) {
                Operators.onErrorDropped(rejected, Context.empty());
            }
        }

        /** On another thread of the scheduler than the tick, which has the others to look after. */
        private void fire(Runnable task) {
            try {
                owner.scheduler.schedule(task);
            } catch (Throwable rejected) {
                task.run();
            }
        }

        void disposed() {
            int many = disposed.incrementAndGet();
            if (many >= SWEEP && disposed.compareAndSet(many, 0)) {
                for (Iterator<Timer> all = timers.iterator(); all.hasNext(); ) {
                    if (all.next().isDisposed()) {
                        all.remove();
                    }
                }
            }
        }
    }

    /** Its task, as long as it has one. */
    private static final class Timer extends AtomicReference<@Nullable Runnable> implements Disposable {

        private static final long serialVersionUID = 1L;

        private final transient Lane lane;
        private final long due;

        Timer(Lane lane, long due, Runnable task) {
            super(task);
            this.lane = lane;
            this.due = due;
        }

        @Override
        public void dispose() {
            if (getAndSet(null) != null) {
                lane.disposed();
            }
        }

        @Override
        public boolean isDisposed() {
            return get() == null;
        }
    }
}
