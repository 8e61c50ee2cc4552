package dev.r2dbcscope.demo;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.pool.ConnectionPool;
import java.time.Duration;
import java.util.SplittableRandom;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** A transfer between two accounts that loses its subscriber after the first UPDATE. */
final class CancelScene implements Scene {

    private static final String APPLICATION = "transfer";
    private static final int RANDOM_CANCELS = 300;

    @Override
    public String name() {
        return "cancel";
    }

    @Override
    public String title() {
        return "A transfer that is cancelled midway, then " + RANDOM_CANCELS + " that are cancelled at any moment";
    }

    @Override
    public void play(Stage stage) {
        ConnectionPool pool = stage.database().pool(APPLICATION, 2);
        ConnectionScopes scopes =
                ConnectionScopes.of(pool).with(ScopeOptions.defaults().withName("transfer"));

        cancelMidway(stage, scopes);
        int completed = cancelAtRandom(scopes);
        scopes.drain(Duration.ofSeconds(30)).block();

        DemoDatabase database = stage.database();
        Report report = stage.report();
        stage.screen().line("  %d of %d random transfers completed before their cancel", completed, RANDOM_CANCELS);
        long moved = database.number("select 1000 - balance from accounts where name = 'shop'");
        report.claim("money after random cancels", 2000L, database.number("select sum(balance) from accounts"));
        report.claim("transfers that completed are durable", "at least " + completed, moved, moved >= completed);
        report.claim("transactions left open", 0L, database.openTransactions(APPLICATION));
        report.claim("connections back in the pool", "all", PoolCheck.state(pool));
    }

    /** The balances are asked for on another connection. */
    private static void cancelMidway(Stage stage, ConnectionScopes scopes) {
        DemoDatabase database = stage.database();
        CountDownLatch updated = new CountDownLatch(1);
        Disposable transfer = scopes.inTransaction(connection -> Shop.add(connection, "shop", -100)
                        .doOnNext(rows -> updated.countDown())
                        .then(Mono.delay(Duration.ofHours(1))) // somebody has to approve it
                        .then(Shop.add(connection, "bank", 100)))
                .subscribe();
        await(updated);
        LiveTable.print(stage.screen(), "after the first UPDATE", scopes.live());
        long open = database.openTransactions(APPLICATION);
        transfer.dispose();
        Mono.delay(Duration.ofMillis(20))
                .repeat(() -> !scopes.live().isEmpty())
                .then()
                .block(Duration.ofSeconds(30));

        stage.report().claim("transactions open before the cancel", 1L, open);
        stage.report().claim("transactions open after it", 0L, database.openTransactions(APPLICATION));
        stage.report()
                .claim(
                        "the balances after it",
                        "bank 1000, shop 1000",
                        database.one(
                                "select string_agg(name || ' ' || balance, ', ' order by name) from accounts",
                                String.class));
    }

    private static int cancelAtRandom(ConnectionScopes scopes) {
        SplittableRandom random = new SplittableRandom(1);
        AtomicInteger completed = new AtomicInteger();
        Flux.range(0, RANDOM_CANCELS)
                .flatMap(
                        i -> scopes.inTransaction(connection ->
                                        Shop.add(connection, "shop", -1).then(Shop.add(connection, "bank", 1)))
                                .doOnNext(done -> completed.incrementAndGet())
                                .take(Duration.ofNanos(random.nextLong(12_000_000))),
                        4)
                .blockLast(Duration.ofMinutes(2));
        return completed.get();
    }

    private static void await(CountDownLatch latch) {
        try {
            if (!latch.await(60, TimeUnit.SECONDS)) {
                throw new IllegalStateException("the first UPDATE did not happen");
            }
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
