package dev.r2dbcscope.demo;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.LiveScope;
import dev.r2dbcscope.ScopeOptions;
import java.time.Duration;
import java.util.List;

/** One scope, one connection, and a query for each of many rows of a query that is still open. */
final class NestedScene implements Scene {

    @Override
    public String name() {
        return "nested";
    }

    @Override
    public String title() {
        return "A query per row, all on the one connection whose rows are being read";
    }

    @Override
    public void play(Stage stage) {
        int orders = stage.settings().nestedOrders();
        ConnectionScopes scopes = ConnectionScopes.of(stage.database().pool("nested", 1))
                .with(ScopeOptions.defaults().withName("bills of orders").withMaxBufferedRows(orders));
        Watch watch = new Watch(stage.screen(), scopes, orders);

        Tally tally = watch.run(
                "  bills",
                scopes.withConnectionMany(connection -> Shop.bills(connection, 1, orders))
                        .doOnNext(bill -> watch.step())
                        .collect(Tally::new, Tally::add));
        scopes.drain(Duration.ofSeconds(10)).block();

        Report report = stage.report();
        report.claim("the sum is that of one SQL query", Tally.askedOf(stage.database(), orders), tally.toString());
        report.claim("connections used", 1, tally.backends());
        report.claim(
                "live() named the holder each time",
                "[bills of orders]",
                watch.seen().stream()
                        .flatMap(List::stream)
                        .map(LiveScope::name)
                        .distinct()
                        .toList()
                        .toString());
    }
}
