package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;

/** The README's example of a server-side cancel. */
class ReadmePostgresqlCancelIT {

    @Test
    void aSlowReportIsCancelledOnTheServer() {
        try (WatchedPool pool = WatchedPool.of(1)) {
            List<String> cancelled = new CopyOnWriteArrayList<>();
            ConnectionScopes scopes = pool.scopes;

            // example: cancel
            ConnectionScopes reports = scopes.with(ScopeOptions.defaults()
                    .withCancelGrace(Duration.ofMillis(5))
                    .withListener(event -> {
                        if (event instanceof ScopeEvent.CancelRequested request) {
                            cancelled.add(request.sql());
                        }
                    }));

            Flux<Integer> report = reports.withConnectionMany(c -> Flux.from(
                            c.createStatement("select 1 from pg_sleep(600)").execute())
                    .flatMap(result -> result.map((row, metadata) -> row.get(0, Integer.class))));

            // end
            Disposable request = report.subscribe();
            Await.until(() -> pool.inState("active") == 1, () -> "it does not run");
            request.dispose(); // the user closes the page

            assertThat(pool.borrow(c -> Rows.ints(c, "select 42"))).containsExactly(42); // milliseconds later
            assertThat(cancelled).containsExactly("select 1 from pg_sleep(600)");
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
        }
    }
}
