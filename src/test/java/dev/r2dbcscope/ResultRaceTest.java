package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.util.RaceTestUtils;

/** A result that is delivered, asked for, drained and left at the same moment: no row lost, doubled or out of order. */
@Tag("race")
class ResultRaceTest {

    private static final int ROWS = 40;

    private static final List<Integer> ALL = IntStream.range(0, ROWS).boxed().toList();

    /** A scope whose statement {@code rows} answers when the test says so. */
    private static final class Stage {

        private final ProbeConnectionFactory database = ProbeConnectionFactory.of();
        private final ConnectionScopes scopes = ConnectionScopes.of(database);
        private final Sinks.Many<Integer> driver = Sinks.many().unicast().onBackpressureBuffer();
        private final Sinks.Empty<Void> end = Sinks.empty();
        private final Probe<Void> scope = Probe.unbounded();
        private final Connection connection;

        Stage() {
            database.on("rows", driver::asFlux);
            AtomicReference<Connection> current = new AtomicReference<>();
            scopes.inTransaction(c -> {
                        current.set(c);
                        return end.asMono();
                    })
                    .subscribe(scope);
            connection = Objects.requireNonNull(current.get());
        }

        void deliver() {
            for (int row : ALL) {
                driver.tryEmitNext(row).orThrow();
            }
            driver.tryEmitComplete().orThrow();
        }

        /** Another statement waits behind the rows, so that they are drained. */
        Probe<Integer> next() {
            Probe<Integer> next = Probe.unbounded();
            Rows.ints(connection, "next").subscribe(next);
            return next;
        }

        Probe<Integer> read(long demand) {
            Probe<Integer> rows = Probe.requesting(demand);
            Mono.from(connection.createStatement("rows").execute())
                    .flatMapMany(result -> result.map((row, metadata) -> row.get(0, Integer.class)))
                    .subscribe(rows);
            return rows;
        }

        /** A result that nobody subscribed to when it came. */
        Result unread() {
            AtomicReference<Result> result = new AtomicReference<>();
            Flux.from(connection.createStatement("rows").execute()).subscribe(result::set);
            return Objects.requireNonNull(result.get());
        }

        void finish() {
            end.tryEmitEmpty();
            scope.awaitEnd();
            assertSettled(scopes, database);
            assertThat(scope.isCompleted()).isTrue();
            assertThat(database.log()).endsWith("commit#1", "close#1");
        }
    }

    @Test
    @Tag("lifecycle-48")
    void keepsEveryRowInOrderWhenDemandRacesDelivery() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Probe<Integer> rows = stage.read(0);
            RaceTestUtils.race(stage::deliver, () -> ALL.forEach(n -> rows.request(1)));
            rows.request(1);
            assertAll(rows);
            stage.finish();
        }
    }

    @Test
    @Tag("lifecycle-48")
    void keepsEveryRowInOrderWhenDrainingRacesDeliveryAndDemand() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Probe<Integer> rows = stage.read(3);
            AtomicReference<Probe<Integer>> next = new AtomicReference<>();
            RaceTestUtils.race(stage::deliver, () -> ALL.forEach(n -> rows.request(1)), () -> next.set(stage.next()));
            assertAll(rows);
            assertThat(next.get().awaitEnd().values()).containsExactly(1);
            stage.finish();
        }
    }

    @Test
    @Tag("lifecycle-22")
    @Tag("lifecycle-48")
    void emitsABeginningOfTheRowsWhenCancelRacesDeliveryAndDraining() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Probe<Integer> rows = stage.read(ROWS / 2);
            AtomicReference<Probe<Integer>> next = new AtomicReference<>();
            RaceTestUtils.race(stage::deliver, rows::cancel, () -> next.set(stage.next()));
            assertThat(next.get().awaitEnd().values()).containsExactly(1);
            assertThat(rows.values()).isEqualTo(ALL.subList(0, rows.values().size()));
            assertThat(rows.isTerminated()).isFalse();
            rows.assertSound();
            assertThat(stage.scopes.live())
                    .allSatisfy(live -> assertThat(live.rowsBuffered()).isZero());
            stage.finish();
        }
    }

    @Test
    @Tag("lifecycle-68")
    void readsEveryRowOfAnUnreadResultWhenReadingRacesItsDelivery() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Result result = stage.unread();
            Probe<Integer> rows = Probe.unbounded();
            RaceTestUtils.race(
                    stage::deliver,
                    () -> Flux.from(result.map((row, metadata) -> row.get(0, Integer.class)))
                            .subscribe(rows));
            assertAll(rows);
            stage.finish();
        }
    }

    @Test
    @Tag("lifecycle-53")
    @Tag("lifecycle-68")
    void endsTheReaderOfAnUnreadResultWhenReadingRacesTheExit() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Result result = stage.unread();
            stage.deliver();
            Probe<Integer> rows = Probe.unbounded();
            RaceTestUtils.race(
                    () -> Flux.from(result.map((row, metadata) -> row.get(0, Integer.class)))
                            .subscribe(rows),
                    stage.end::tryEmitEmpty);
            rows.awaitEnd().assertSound();
            if (rows.isCompleted()) {
                assertThat(rows.values()).isEqualTo(ALL);
            } else {
                assertThat(rows.error()).isInstanceOf(ScopeClosedException.class);
            }
            stage.finish();
        }
    }

    /** The driver delivers a result while its subscriber leaves. */
    @Test
    @Tag("lifecycle-65")
    void discardsAResultThatComesWhileItsStatementIsCancelled() {
        for (int i = 0; i < RACES; i++) {
            Stage stage = new Stage();
            Sinks.Empty<Void> arrival = Sinks.empty();
            stage.database.on("rows", ProbeFault.delayUntil(arrival::asMono));
            stage.deliver();
            Probe<Result> results = Probe.unbounded();
            Flux.from(stage.connection.createStatement("rows").execute())
                    .map(result -> (Result) result)
                    .subscribe(results);
            RaceTestUtils.race(arrival::tryEmitEmpty, results::cancel);
            assertThat(stage.next().awaitEnd().values()).containsExactly(1);
            if (results.values().isEmpty()) {
                assertThat(stage.scopes.live())
                        .allSatisfy(live -> assertThat(live.rowsBuffered()).isZero());
            }
            stage.finish();
        }
    }

    private static void assertAll(Probe<Integer> rows) {
        assertThat(rows.awaitEnd().error()).isNull();
        rows.assertSound();
        assertThat(rows.values()).isEqualTo(ALL);
    }
}
