package dev.r2dbcscope.demo;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.ScopeOptions;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import java.time.Duration;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Many nested pipelines at once on a small pool, in the operator style. */
final class ManyScene implements Scene {

    private static final int PIPELINES = 64;
    private static final int POOL = 4;

    @Override
    public String name() {
        return "many";
    }

    @Override
    public String title() {
        return PIPELINES + " such pipelines at once on a pool of " + POOL;
    }

    @Override
    public void play(Stage stage) {
        int each = stage.settings().ordersPerPipeline();
        int orders = each * PIPELINES;
        ConnectionPool pool = stage.database().pool("many", POOL);
        ConnectionScopes scopes = ConnectionScopes.of(pool)
                .with(ScopeOptions.defaults().withName("pipeline").withAcquireTimeout(Duration.ofMinutes(5)));
        Watch watch = new Watch(stage.screen(), scopes, orders);

        Tally tally = watch.run(
                "  bills",
                Flux.range(0, PIPELINES)
                        .flatMap(
                                i -> bills(scopes.connectionFactory(), i * each + 1, (i + 1) * each)
                                        .as(scopes::connected),
                                PIPELINES)
                        .doOnNext(bill -> watch.step())
                        .collect(Tally::new, Tally::add));
        scopes.drain(Duration.ofSeconds(10)).block();

        Report report = stage.report();
        long most = watch.mostHolders();
        report.claim("the sum is that of one SQL query", Tally.askedOf(stage.database(), orders), tally.toString());
        report.claim("connections used", "1 to " + POOL, tally.backends(), tally.backends() <= POOL);
        report.claim("holders that live() listed", "1 to " + POOL, most, most >= 1 && most <= POOL);
        report.claim("connections back in the pool", "all", PoolCheck.state(pool));
    }

    /** A repository that knows no scope: it asks the connection factory each time, and closes what it got. */
    private static Flux<Shop.Bill> bills(ConnectionFactory factory, int first, int last) {
        return Flux.usingWhen(factory.create(), c -> Shop.orders(c, first, last), Connection::close)
                .flatMap(
                        order -> Mono.usingWhen(factory.create(), c -> Shop.bill(c, order), Connection::close),
                        Shop.CONCURRENCY);
    }
}
