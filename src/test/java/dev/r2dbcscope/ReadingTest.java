package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** Each way to read a result, when it comes and after it was kept. */
@ParameterizedClass(name = "kept: {0}")
@ValueSource(booleans = {false, true})
class ReadingTest {

    @Parameter
    boolean kept;

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final R2dbcException refused = new R2dbcDataIntegrityViolationException("duplicate key", "23505");

    private record Told(String sqlState, R2dbcException exception) implements Result.Message {

        @Override
        public int errorCode() {
            return 0;
        }

        @Override
        public String message() {
            return "told";
        }
    }

    private static Map<String, @Nullable Object> row(int id, @Nullable String word) {
        Map<String, @Nullable Object> row = new LinkedHashMap<>();
        row.put("id", id);
        row.put("word", word);
        return row;
    }

    private <T> Probe<T> read(Function<Result, Publisher<T>> reading, Object... segments) {
        database.on("statement", () -> Flux.fromIterable(Arrays.asList(segments)));
        Probe<T> probe = Probe.unbounded();
        scopes.withConnectionMany(c -> {
                    Flux<Result> results =
                            Flux.from(c.createStatement("statement").execute());
                    return kept
                            ? results.collectList().flatMapMany(all -> reading.apply(all.get(0)))
                            : results.flatMap(reading);
                })
                .subscribe(probe);
        probe.awaitEnd().assertSound();
        return probe;
    }

    @Test
    void rowsByIndexAndByName() {
        Probe<String> read = read(
                result -> result.map((row, metadata) -> row.get("word") + "/" + row.get(1) + "/"
                        + row.get("WORD", String.class) + "/" + row.get(0, Integer.class) + "/"
                        + row.get(0, String.class) + "/"
                        + metadata.getColumnMetadata(0).getName() + "/"
                        + row.getMetadata().getColumnMetadata(1).getName()),
                row(1, "one"),
                row(2, null));
        assertThat(read.values()).containsExactly("one/one/one/1/1/id/word", "null/null/null/2/2/id/word");
    }

    @Test
    void rowsAsReadables() {
        Probe<String> read = read(
                result -> result.map(readable -> readable.get("id") + "/" + readable.get(1, String.class)),
                row(1, "one"));
        assertThat(read.values()).containsExactly("1/one");
    }

    @Test
    void aColumnThatIsNotThereIsAnError() {
        Probe<Object> read =
                read(result -> result.map((row, metadata) -> row.get("other", Object.class)), row(1, "one"));
        assertThat(read.error()).isInstanceOf(NoSuchElementException.class).hasMessageContaining("other");
    }

    @Test
    void rowsThroughAFilter() {
        Probe<Integer> read = read(
                result -> result.filter(segment -> segment instanceof Result.RowSegment rows
                                && !Objects.equals(rows.row().get("id"), 2))
                        .map((row, metadata) -> row.get(0, Integer.class)),
                row(1, "one"),
                row(2, "two"),
                row(3, "three"));
        assertThat(read.values()).containsExactly(1, 3);
    }

    @Test
    void readablesThroughTwoFilters() {
        Probe<Integer> read = read(
                result -> result.filter(segment -> segment instanceof Result.RowSegment)
                        .filter(segment -> !Objects.equals(
                                ((Result.RowSegment) segment).row().get("id"), 1))
                        .map(readable -> readable.get(0, Integer.class)),
                row(1, "one"),
                row(2, "two"),
                row(3, "three"));
        assertThat(read.values()).containsExactly(2, 3);
    }

    @Test
    void updateCounts() {
        assertThat(read(Result::getRowsUpdated, (Result.UpdateCount) () -> 3).values())
                .containsExactly(3L);
    }

    @Test
    void theSumOfUpdateCountsThroughAFilterIsNoMoreThanALongCanHold() {
        assertThat(read(
                                result -> result.filter(segment -> true).getRowsUpdated(),
                                (Result.UpdateCount) () -> 3,
                                row(1, "one"),
                                (Result.UpdateCount) () -> 4)
                        .values())
                .containsExactly(7L);
        assertThat(read(
                                result -> result.filter(segment -> true).getRowsUpdated(),
                                (Result.UpdateCount) () -> Long.MAX_VALUE,
                                (Result.UpdateCount) () -> 1)
                        .values())
                .containsExactly(Long.MAX_VALUE);
    }

    @Test
    void segmentsWithRowsThatEndWithTheScope() {
        AtomicReference<Row> escaped = new AtomicReference<>();
        Probe<Object> read = read(
                result -> result.flatMap(segment -> {
                    if (segment instanceof Result.RowSegment rows) {
                        escaped.set(rows.row());
                        return Mono.justOrEmpty(rows.row().get("id"));
                    }
                    return Mono.just("count " + ((Result.UpdateCount) segment).value());
                }),
                row(1, "one"),
                (Result.UpdateCount) () -> 9);
        assertThat(read.values()).containsExactly(1, "count 9");
        assertThatThrownBy(() -> escaped.get().get("id")).isInstanceOf(ScopeClosedException.class);
        assertThatThrownBy(() -> escaped.get().get("id", Integer.class)).isInstanceOf(ScopeClosedException.class);
    }

    @Test
    void anErrorAmongTheSegmentsIsOneForRowsAndCounts() {
        Told error = new Told("23505", refused);
        assertThat(read(result -> result.map(row -> 1), row(1, "one"), error).error())
                .isSameAs(refused);
        assertThat(read(result -> result.filter(segment -> true).map(row -> 1), row(1, "one"), error)
                        .error())
                .isSameAs(refused);
        assertThat(read(result -> result.filter(segment -> true).getRowsUpdated(), error)
                        .error())
                .isSameAs(refused);
    }

    @Test
    void aWarningAmongTheSegmentsIsNoneThroughAFilter() {
        Told warning = new Told("01000", refused);
        Probe<Integer> read =
                read(result -> result.filter(segment -> true).map(row -> 1), row(1, "one"), warning, row(2, "two"));
        assertThat(read.values()).containsExactly(1, 1);
        assertThat(read.error()).isNull();
    }

    @Test
    @SuppressWarnings("NullAway")
    void aMappingThatReturnsNullIsAnError() {
        assertThat(read(result -> result.map((row, metadata) -> null), row(1, "one"))
                        .error())
                .isInstanceOf(NullPointerException.class)
                .hasMessageContaining("The mapping function returned null");
        assertThat(read(result -> result.flatMap(segment -> null), row(1, "one"))
                        .error())
                .isInstanceOf(NullPointerException.class)
                .hasMessageContaining("returned a null publisher");
    }

    @Test
    void aMappingIsNotCalledAfterItFailed() {
        List<Object> seen = new ArrayList<>();
        IllegalStateException failure = new IllegalStateException("of the mapping");
        Probe<Integer> read = read(
                result -> result.map((row, metadata) -> {
                    seen.add(row.get(0));
                    throw failure;
                }),
                row(1, "one"),
                row(2, "two"));
        assertThat(read.error()).isSameAs(failure);
        assertThat(seen).containsExactly(1);
    }
}
