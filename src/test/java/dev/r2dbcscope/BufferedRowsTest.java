package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.publisher.TestPublisher;

/** Rows that nobody has asked for yet: how many are kept, and what gives way when there are too many. */
class BufferedRowsTest {

    private static final int MAX = 3;

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withMaxBufferedRows(MAX)));
    private final TestPublisher<Integer> outer = TestPublisher.create();
    private final Sinks.Empty<Void> end = Sinks.empty();
    private final Probe<Void> scope = Probe.unbounded();
    private final Probe<Integer> slow = Probe.requesting(1);

    @BeforeEach
    void script() {
        database.on("outer", outer::flux);
    }

    private void in(Function<Connection, Mono<?>> body) {
        scopes.withConnection(c -> body.apply(c).then(end.asMono())).subscribe(scope);
    }

    private void finish() {
        end.tryEmitEmpty().orThrow();
        assertThat(scope.awaitEnd().isCompleted()).isTrue();
    }

    private int buffered() {
        return scopes.live().get(0).rowsBuffered();
    }

    private static Flux<Result> execute(Connection connection, String sql) {
        return Flux.from(connection.createStatement(sql).execute());
    }

    private static Probe<Integer> read(Result result) {
        Probe<Integer> rows = Probe.unbounded();
        Flux.from(result.map(row -> row.get(0, Integer.class))).subscribe(rows);
        return rows;
    }

    @Nested
    class BehindAnOpenResult {

        private final Probe<Integer> inner = Probe.unbounded();

        @BeforeEach
        void start() {
            in(c -> Mono.fromRunnable(() -> {
                Rows.onDemand(c.createStatement("outer")).subscribe(slow);
                outer.next(1);
                Rows.ints(c, "inner").subscribe(inner);
            }));
        }

        @Test
        void keepsSoManyForTheOneWhoIsSlow() {
            outer.next(2, 3, 4);
            assertThat(buffered()).isEqualTo(MAX);
            assertThat(scopes.live().get(0).state())
                    .as("it is read although nobody asks for more")
                    .isEqualTo(ScopeState.STREAMING);
            assertThat(slow.isTerminated()).isFalse();
            slow.request(2);
            assertThat(slow.values()).containsExactly(1, 2, 3);
            assertThat(buffered()).isEqualTo(1);
            outer.next(5, 6).complete();
            slow.request(10);
            assertThat(slow.values()).containsExactly(1, 2, 3, 4, 5, 6);
            assertThat(slow.isCompleted()).isTrue();
            assertThat(buffered()).isZero();
            finish();
        }

        @Test
        void failsWhoeverIsTooSlowAndGoesOn() {
            outer.next(2, 3, 4, 5);
            assertThat(slow.error())
                    .isInstanceOfSatisfying(NestedReadOverflowException.class, error -> {
                        assertThat(error.waitingSql()).isEqualTo("inner");
                        assertThat(error.maxBufferedRows()).isEqualTo(MAX);
                    })
                    .hasMessageContaining("\"outer\" has more than 3 rows that its subscriber has not asked for")
                    .hasMessageContaining("while \"inner\" waits behind it");
            assertThat(slow.values()).containsExactly(1);
            assertThat(slow.drops().values()).containsExactly(2, 3, 4, 5);
            assertThat(buffered()).isZero();
            outer.next(6);
            outer.assertNotCancelled();
            outer.complete();
            assertThat(inner.values()).containsExactly(1);
            finish();
            slow.assertSound();
        }

        @Test
        void throwsAwayWhatWasKeptForWhoeverLeaves() {
            outer.next(2, 3);
            slow.cancel();
            assertThat(slow.drops().values()).containsExactly(2, 3);
            assertThat(buffered()).isZero();
            outer.next(4).complete();
            assertThat(buffered()).isZero();
            finish();
        }
    }

    @Test
    void whoeverIsTooSlowForTheEndOfTheScopeIsToldSo() {
        in(c -> Mono.fromRunnable(
                () -> Rows.onDemand(c.createStatement("outer")).subscribe(slow)));
        outer.next(1);
        end.tryEmitEmpty().orThrow();
        outer.next(2, 3, 4, 5);
        assertThat(slow.error())
                .isInstanceOf(NestedReadOverflowException.class)
                .hasMessageContaining("while \"the end of the scope\" waits behind it");
        outer.complete();
        assertThat(scope.awaitEnd().isCompleted()).isTrue();
    }

    @Nested
    class OfResultsThatNobodyReads {

        private final List<Result> kept = new ArrayList<>();

        private Mono<Void> executed(Connection connection, String sql) {
            return execute(connection, sql).doOnNext(kept::add).then();
        }

        private Result kept(int index) {
            return Objects.requireNonNull(kept.get(index));
        }

        @Test
        void theOldestThatIsCompleteGivesWay() {
            database.on("first", () -> Flux.just(1, 2))
                    .on("second", () -> Flux.just(3))
                    .on("third", () -> Flux.just(4, 5));
            in(c -> executed(c, "first").then(executed(c, "second")).then(executed(c, "third")));
            assertThat(buffered()).isEqualTo(MAX);
            assertThat(read(kept(0)).error())
                    .isInstanceOf(NestedReadOverflowException.class)
                    .hasMessageContaining("\"first\"")
                    .hasMessageContaining("while \"what came after it\" waits");
            assertThat(read(kept(1)).values()).containsExactly(3);
            assertThat(read(kept(2)).values()).containsExactly(4, 5);
            assertThat(buffered()).isZero();
            finish();
        }

        @Test
        void oneThatIsTooLongForItselfFailsWhoeverReadsItLater() {
            database.on("long", () -> Flux.range(1, MAX + 1));
            in(c -> executed(c, "long"));
            assertThat(buffered()).isZero();
            assertThat(read(kept(0)).error())
                    .isInstanceOf(NestedReadOverflowException.class)
                    .hasMessageContaining("while \"the next statement\" waits behind it");
            finish();
        }

        @Test
        void oneThatIsRefusedLaterIsReadWithTheReasonAfterTheEndOfTheScope() {
            database.on("first", () -> Flux.just(1, 2));
            in(c -> executed(c, "first"));
            finish();
            assertThat(read(kept(0)).error()).isInstanceOf(ScopeClosedException.class);
        }

        @Test
        void oneIsReadOnce() {
            database.on("first", () -> Flux.just(1, 2));
            in(c -> executed(c, "first"));
            assertThat(read(kept(0)).values()).containsExactly(1, 2);
            assertThat(read(kept(0)).error())
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("already consumed");
            finish();
        }

        @Test
        void oneWithoutRowsTakesNoRoom() {
            database.on("update", () -> Flux.just((Result.UpdateCount) () -> 7));
            in(c -> executed(c, "update").then(executed(c, "update")));
            assertThat(buffered()).isZero();
            Probe<Long> count = Probe.unbounded();
            Flux.from(kept(0).flatMap(segment -> Mono.just(((Result.UpdateCount) segment).value())))
                    .subscribe(count);
            assertThat(count.values()).containsExactly(7L);
            finish();
        }

        @Test
        void onlyTheFirstFewRowsAreReadForWhoeverMayStillReadIt() {
            Probe<Result> results = Probe.requesting(1);
            in(c -> Mono.fromRunnable(() -> execute(c, "outer").subscribe(results)));
            outer.next(1, 2, 3);
            assertThat(buffered()).isEqualTo(3);
            Probe<Integer> rows = read(results.values().get(0));
            assertThat(rows.values()).containsExactly(1, 2, 3);
            outer.next(4).complete();
            assertThat(rows.values()).containsExactly(1, 2, 3, 4);
            assertThat(rows.isCompleted()).isTrue();
            finish();
        }
    }
}
