package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;

/** Rows that are memory of the driver, which has to get it back, once for each time that it was kept. */
class RetainedSegmentsTest {

    private static final int ROWS = 3;

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final List<Segment> segments =
            IntStream.range(0, ROWS).mapToObj(Segment::new).toList();

    /** A row with its number in its only column. */
    private static final class Segment implements Result.RowSegment, NotingDriver.Retainable {

        private final int number;
        private int retained;
        private int released;

        Segment(int number) {
            this.number = number;
        }

        @Override
        public Row row() {
            return (Row) Proxy.newProxyInstance(
                    RetainedSegmentsTest.class.getClassLoader(),
                    new Class<?>[] {Row.class},
                    (proxy, method, args) -> method.getName().equals("get") ? number : null);
        }

        @Override
        public Runnable retain() {
            retained++;
            return () -> released++;
        }
    }

    @BeforeEach
    void answer() {
        new NotingDriver(database).on("retains", Mono::empty);
        database.on("query", () -> Flux.fromIterable(segments));
    }

    private static Flux<Result> execute(Connection connection) {
        return Flux.from(connection.createStatement("query").execute());
    }

    private void assertAllReleased() {
        assertThat(segments).allSatisfy(segment -> {
            assertThat(segment.retained).as("retained").isPositive();
            assertThat(segment.released).as("released").isEqualTo(segment.retained);
        });
    }

    @Test
    void areReleasedByWhoeverReadsThemLate() {
        List<Integer> read = scopes.withConnectionMany(c -> {
                    List<Result> kept = new ArrayList<>();
                    execute(c).subscribe(kept::add);
                    assertThat(segments).allMatch(segment -> segment.retained == 1 && segment.released == 0);
                    return kept.get(0).map(row -> Objects.requireNonNull(row.get(0, Integer.class)));
                })
                .collectList()
                .block(FormContract.PATIENCE);
        assertThat(read).containsExactly(0, 1, 2);
        assertAllReleased();
    }

    @Test
    void areReleasedWhenNobodyReadsThem() {
        scopes.withConnection(c -> execute(c).then()).block(FormContract.PATIENCE);
        assertAllReleased();
    }

    @Test
    void areKeptWhileWhatWasMadeOfThemGoesOn() {
        Sinks.Empty<Integer> work = Sinks.empty();
        Probe<Integer> probe = Probe.unbounded();
        scopes.withConnectionMany(c -> execute(c).flatMap(result -> result.flatMap(segment -> work.asMono())))
                .subscribe(probe);
        assertThat(segments.get(0).retained).isEqualTo(1);
        assertThat(segments.get(0).released).isZero();
        work.tryEmitEmpty().orThrow();
        probe.awaitEnd();
        assertAllReleased();
    }

    /** As a connection does that shares the scope's with others: it reads what a scope has handed out. */
    @Test
    void canBeRetainedByWhoeverGetsThemFromAScope() {
        Dialect outside = new SharedDialect(PlainDialect.INSTANCE);
        List<Runnable> releases = new ArrayList<>();
        scopes.withConnectionMany(c -> execute(c)
                        .flatMap(result -> result.flatMap(segment -> {
                            releases.add(Objects.requireNonNull(outside.retain(segment)));
                            return Mono.empty();
                        })))
                .blockLast(FormContract.PATIENCE);
        assertThat(segments).allMatch(segment -> segment.released == segment.retained - 1);
        releases.forEach(Runnable::run);
        assertAllReleased();
        assertThat(outside.retain(segments.get(0))).as("one of the driver").isNull();
    }
}
