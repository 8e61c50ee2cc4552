package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.util.RaceTestUtils;

/** {@link Timers}: each fires once, when its time is over, unless it was disposed of; none is kept that was. */
class TimerLanesTest {

    private static final Duration SECOND = Duration.ofSeconds(1);

    private final List<String> fired = new ArrayList<>();

    @AfterEach
    void realTime() {
        VirtualTimeScheduler.reset();
    }

    private Runnable note(String name) {
        return () -> fired.add(name);
    }

    @Test
    void fireWhenTheirTimeIsOverInTheOrderOfTheirEnds() {
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        Timers.after(SECOND, note("1 s"));
        Timers.after(SECOND.dividedBy(2), note("0.5 s"));
        time.advanceTimeBy(SECOND.dividedBy(4));
        Timers.after(SECOND, note("1.25 s"));

        time.advanceTimeBy(SECOND.dividedBy(4).minusNanos(1));
        assertThat(fired).isEmpty();
        time.advanceTimeBy(Duration.ofNanos(1));
        assertThat(fired).containsExactly("0.5 s");
        time.advanceTimeBy(SECOND.dividedBy(2));
        assertThat(fired).containsExactly("0.5 s", "1 s");
        time.advanceTimeBy(SECOND.dividedBy(4));
        assertThat(fired).containsExactly("0.5 s", "1 s", "1.25 s");
        assertThat(Timers.ticking()).isZero();
    }

    @Test
    void doNotFireAfterTheyWereDisposedOf() {
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        Disposable first = Timers.after(SECOND, note("first"));
        Timers.after(SECOND, note("second"));
        Disposable third = Timers.after(SECOND, note("third"));
        first.dispose();
        third.dispose();
        assertThat(first.isDisposed()).isTrue();
        assertThat(Timers.armed()).isEqualTo(1);

        time.advanceTimeBy(SECOND.multipliedBy(3));
        assertThat(fired).containsExactly("second");
        assertThat(Timers.armed()).isZero();
    }

    @Test
    void areArmedAnewAfterALaneWasEmpty() {
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        Timers.after(SECOND, note("first"));
        time.advanceTimeBy(SECOND);
        Timers.after(SECOND, note("second"));
        time.advanceTimeBy(SECOND);
        assertThat(fired).containsExactly("first", "second");
    }

    @Test
    void areManyLengthsWithoutALaneForEach() {
        VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
        AtomicInteger count = new AtomicInteger();
        for (int i = 1; i <= 1_000; i++) {
            Timers.after(Duration.ofMillis(i), count::incrementAndGet);
        }
        assertThat(Timers.ticking()).isLessThan(100);
        time.advanceTimeBy(SECOND);
        assertThat(count).hasValue(1_000);
    }

    /** What was disposed of is swept out, although the timer at the head of the lane waits on. */
    @Test
    void keepFewThatWereDisposedOf() {
        VirtualTimeScheduler.getOrSet();
        Timers.after(SECOND, note("waits"));
        for (int i = 0; i < 100_000; i++) {
            Timers.after(SECOND, note("disposed")).dispose();
        }
        assertThat(Timers.kept()).isLessThanOrEqualTo(Timers.SWEEP + 1);
        assertThat(Timers.armed()).isEqualTo(1);
    }

    @Test
    @Tag("race")
    void fireOrAreDisposedOfButNotBoth() {
        AtomicInteger runs = new AtomicInteger();
        AtomicInteger armed = new AtomicInteger();
        Scheduler realTime = Schedulers.fromExecutorService(Executors.newFixedThreadPool(2));
        for (int i = 0; i < Settling.RACES; i++) {
            VirtualTimeScheduler time = VirtualTimeScheduler.getOrSet();
            runs.set(0);
            Disposable first = Timers.after(SECOND, runs::incrementAndGet);
            Disposable second = Timers.after(SECOND, runs::incrementAndGet);
            RaceTestUtils.race(realTime, () -> time.advanceTimeBy(SECOND), () -> {
                first.dispose();
                Timers.after(SECOND, armed::incrementAndGet);
            });
            time.advanceTimeBy(SECOND.multipliedBy(2));
            assertThat(runs.get()).isBetween(1, 2);
            assertThat(second.isDisposed()).isTrue();
            assertThat(armed).hasValue(i + 1);
            assertThat(Timers.ticking()).isZero();
            VirtualTimeScheduler.reset();
        }
        realTime.dispose();
    }
}
