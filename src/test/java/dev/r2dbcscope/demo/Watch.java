package dev.r2dbcscope.demo;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.LiveScope;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import me.tongfei.progressbar.ProgressBar;
import reactor.core.publisher.Mono;

/**
 * Watches a pipeline from the main thread: draws its progress, and what {@code live()} says at a tenth and a
 * half of it.
 *
 * <p>The pipeline's own threads only count and take the snapshots; they do not print.
 */
final class Watch {

    private static final Duration BOUND = Duration.ofMinutes(10);

    private final Screen screen;
    private final ConnectionScopes scopes;
    private final long total;
    private final AtomicLong done = new AtomicLong();
    private final Queue<Moment> moments = new ConcurrentLinkedQueue<>();
    private final List<List<LiveScope>> seen = new ArrayList<>();
    private long mostHolders;

    private record Moment(long done, List<LiveScope> live, long holders) {}

    Watch(Screen screen, ConnectionScopes scopes, long total) {
        this.screen = screen;
        this.scopes = scopes;
        this.total = total;
    }

    /** One more is done. */
    void step() {
        long now = done.incrementAndGet();
        if (now == total / 10 || now == total / 2) {
            List<LiveScope> first = scopes.live();
            List<LiveScope> second = scopes.live();
            moments.add(new Moment(now, second, LiveTable.holdingInBoth(first, second)));
        }
    }

    /** What {@code live()} said at each moment. */
    List<List<LiveScope>> seen() {
        return seen;
    }

    /** How many scopes held a connection at one and the same instant, at that moment when they were most. */
    long mostHolders() {
        return mostHolders;
    }

    /** Waits for the end of the pipeline and returns its value. */
    <T> T run(String task, Mono<T> pipeline) {
        long end = System.nanoTime() + BOUND.toNanos();
        try (ProgressBar bar = screen.progress(task, total)) {
            CompletableFuture<T> future = pipeline.toFuture();
            while (true) {
                try {
                    return future.get(100, TimeUnit.MILLISECONDS);
                } catch (TimeoutException notYet) {
                    if (System.nanoTime() > end) {
                        future.cancel(true);
                        throw new IllegalStateException("not done after " + BOUND);
                    }
                } finally {
                    bar.stepTo(done.get());
                    printMoments();
                }
            }
        } catch (ExecutionException e) {
            throw new CompletionException(e.getCause());
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private void printMoments() {
        Moment moment;
        while ((moment = moments.poll()) != null) {
            seen.add(moment.live);
            mostHolders = Math.max(mostHolders, moment.holders);
            LiveTable.print(screen, String.format("after %,d of %,d", moment.done, total), moment.live);
        }
    }
}
