package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;
import reactor.test.util.RaceTestUtils;

/** A page that arrives while the read is asked for more, is left, or its scope ends: no row lost, no cursor left open. */
@Tag("race")
class CursorRaceTest {

    private static final int PAGE = 4;
    private static final List<Integer> ALL = IntStream.range(0, 10).boxed().toList();

    /** A transaction with a cursor of three pages, of which the given one comes when the test says so. */
    private static final class Stage {

        private final ProbeConnectionFactory database =
                ProbeConnectionFactory.of().knowingCursors();
        private final ConnectionScopes scopes = ConnectionScopes.of(database);
        private final Sinks.Many<Integer> held = Sinks.many().unicast().onBackpressureBuffer();
        private final Sinks.Empty<Void> opening = Sinks.empty();
        private final Sinks.Empty<Void> end = Sinks.empty();
        private final Probe<Void> scope = Probe.unbounded();
        private final Connection connection;
        private final int heldPage;

        Stage(int heldPage) {
            this.heldPage = heldPage;
            AtomicInteger fetches = new AtomicInteger();
            database.on("fetch", () -> {
                int page = fetches.getAndIncrement();
                return page == heldPage ? held.asFlux() : Flux.fromIterable(rows(page));
            });
            AtomicReference<Connection> current = new AtomicReference<>();
            scopes.inTransaction(c -> {
                        current.set(c);
                        return end.asMono();
                    })
                    .subscribe(scope);
            connection = Objects.requireNonNull(current.get());
        }

        private static List<Integer> rows(int page) {
            int from = Math.min(page * PAGE, ALL.size());
            return ALL.subList(from, Math.min(from + PAGE, ALL.size()));
        }

        Stage opensLater() {
            database.on("open", opening::asMono);
            return this;
        }

        void deliver() {
            for (int row : rows(heldPage)) {
                held.tryEmitNext(row).orThrow();
            }
            held.tryEmitComplete().orThrow();
        }

        Probe<Integer> read(Probe<Integer> probe) {
            Flux.from(connection.createStatement("query").fetchSize(PAGE).execute())
                    .concatMap(result -> result.map(row -> row.get(0, Integer.class)), 0)
                    .subscribe(probe);
            return probe;
        }

        void finish(Probe<?>... probes) {
            end.tryEmitEmpty();
            scope.awaitEnd();
            for (Probe<?> probe : probes) {
                probe.assertSound();
                assertThat(probe.drops().errors()).isEmpty();
            }
            assertSettled(scopes, database);
            int opened = Collections.frequency(database.log(), "open#1");
            assertThat(Collections.frequency(database.log(), "close cursor#1"))
                    .as("%s", database.log())
                    .isEqualTo(opened);
        }
    }

    @Test
    void rowsThatArriveWhileTheyAreAskedForComeOnceAndInOrder() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage(i % 3);
            Probe<Integer> rows = stage.read(Probe.requesting(i % 5));
            RaceTestUtils.race(stage::deliver, () -> rows.request(3), () -> rows.request(Long.MAX_VALUE));
            rows.awaitEnd();
            assertThat(rows.values()).isEqualTo(ALL);
            stage.finish(rows);
        }
    }

    @Test
    void aReadThatIsLeftWhileAPageArrivesClosesItsCursor() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage(i % 3);
            Probe<Integer> rows = stage.read(Probe.requesting(1 + i % 9));
            RaceTestUtils.race(stage::deliver, rows::cancel);
            assertThat(rows.values()).isEqualTo(ALL.subList(0, rows.values().size()));
            stage.finish(rows);
        }
    }

    @Test
    void aReadThatIsLeftWhileItsCursorOpensClosesIt() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage(-1).opensLater();
            Probe<Integer> rows = stage.read(Probe.unbounded());
            RaceTestUtils.race(() -> stage.opening.tryEmitEmpty().orThrow(), rows::cancel);
            stage.finish(rows);
        }
    }

    @Test
    void aScopeThatIsCancelledWhileAPageArrivesEndsInOrder() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage(i % 3);
            Probe<Integer> rows = stage.read(Probe.requesting(i % 9));
            RaceTestUtils.race(stage::deliver, stage.scope::cancel);
            assertSettled(stage.scopes, stage.database);
            assertThat(rows.values()).isEqualTo(ALL.subList(0, rows.values().size()));
            rows.assertSound();
            assertThat(rows.drops().errors()).isEmpty();
            List<String> log = stage.database.log();
            assertThat(log.subList(log.size() - 2, log.size())).containsExactly("rollback#1", "close#1");
        }
    }
}
