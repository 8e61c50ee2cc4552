package dev.r2dbcscope.demo;

import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import me.tongfei.progressbar.ProgressBar;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.Context;

/** The same pipeline in the usual way, with usingWhen on the pool: it stalls, and is stopped here. */
final class RawDriverScene implements Scene {

    private static final String APPLICATION = "raw driver";

    @Override
    public String name() {
        return "raw driver";
    }

    @Override
    public String title() {
        return "The same pipeline without a scope: usingWhen on the pool";
    }

    @Override
    public void play(Stage stage) {
        int orders = stage.settings().nestedOrders();
        Duration stall = stage.settings().stall();
        ConnectionPool pool = stage.database().pool(APPLICATION, 1);
        AtomicLong bills = new AtomicLong();
        AtomicReference<String> end = new AtomicReference<>();
        Disposable pipeline = Flux.usingWhen(
                        pool.create(), connection -> Shop.bills(connection, 1, orders), Connection::close)
                .contextWrite(Context.of("reactor.onErrorDropped.local", (Consumer<Throwable>) late -> {}))
                .subscribe(
                        bill -> bills.incrementAndGet(),
                        error -> end.set("failed: " + error),
                        () -> end.set("completed"));
        try {
            if (isStalled(stage.screen(), bills, end, orders, stall)) {
                end.set("stalled");
                stage.screen()
                        .line(
                                "  STALLED: no bill for %d s, after %,d of %,d; nobody said so. Stopping it.",
                                stall.toSeconds(), bills.get(), orders);
            }
        } finally {
            pipeline.dispose();
            leave(pool, stage.database());
        }
        stage.report().claim("usual code on the driver", "stalled", end.get());
        stage.report().claim("bills before that", "fewer than " + orders, bills.get(), bills.get() < orders);
    }

    /** Closes the connection, by force if the driver does not: it must not keep the demo from dropping its tables. */
    private static void leave(ConnectionPool pool, DemoDatabase database) {
        Mono.delay(Duration.ofMillis(50))
                .repeat(40, () -> !PoolCheck.state(pool).equals("all"))
                .then(pool.disposeLater())
                .timeout(Duration.ofSeconds(5))
                .onErrorComplete()
                .block();
        database.terminate(APPLICATION);
    }

    private static boolean isStalled(
            Screen screen, AtomicLong bills, AtomicReference<String> end, int orders, Duration stall) {
        try (ProgressBar bar = screen.progress("  bills", orders)) {
            long before = 0;
            long silentSince = System.nanoTime();
            while (end.get() == null) {
                long now = bills.get();
                bar.stepTo(now);
                if (now != before) {
                    before = now;
                    silentSince = System.nanoTime();
                } else if (System.nanoTime() - silentSince > stall.toNanos()) {
                    return true;
                }
                Flux.just(1).delayElements(Duration.ofMillis(100)).blockLast();
            }
            return false;
        }
    }
}
