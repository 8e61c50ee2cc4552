package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.postgresql.KeysetRead;
import io.r2dbc.spi.Row;
import java.util.Objects;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;

/**
 * Rows that can be read from a position on, always in the same order. Immutable and thread-safe.
 *
 * <p>A job that is resumed asks for what is behind the last row that it has committed. So what is before a position must not
 * change any more, or the change does not matter: rows that appear there later are not read.
 *
 * @param <T> the type of the rows
 */
public final class Source<T> {

    private final Function<@Nullable String, ? extends Publisher<Positioned<T>>> behind;
    private final boolean joins;

    private Source(Function<@Nullable String, ? extends Publisher<Positioned<T>>> behind, boolean joins) {
        this.behind = behind;
        this.joins = joins;
    }

    /**
     * Reads a publisher whose rows come in the same order each time it is subscribed to, such as the lines of a file. The
     * position of a row is its number, from 1; to go on behind one, the rows up to it are read again and dropped.
     *
     * @param rows the rows
     * @param <T> the type of the rows
     * @return the source
     */
    public static <T> Source<T> of(Publisher<? extends T> rows) {
        Objects.requireNonNull(rows, "rows");
        return new Source<>(position -> skip(rows, position == null ? 0 : number(position)), false);
    }

    private static long number(String position) {
        try {
            return Long.parseLong(position);
        } catch (NumberFormatException e) {
            throw new IllegalArgumentException(
                    "The position to go on at is not the number of a row; was the job begun with another kind of source?",
                    e);
        }
    }

    private static <T> Flux<Positioned<T>> skip(Publisher<? extends T> rows, long before) {
        return Flux.from(rows)
                .<Positioned<T>>index((index, row) -> new Positioned<>(row, Long.toString(index + 1)))
                .skip(before);
    }

    /**
     * Reads something that can go on by itself.
     *
     * @param behind makes the rows behind a position, and all of them for {@code null}
     * @param position the position of a row, by which it is found again
     * @param <T> the type of the rows
     * @return the source
     */
    public static <T> Source<T> of(
            Function<@Nullable String, ? extends Publisher<? extends T>> behind, Function<? super T, String> position) {
        Objects.requireNonNull(behind, "behind");
        Objects.requireNonNull(position, "position");
        return new Source<>(
                last -> Flux.from(behind.apply(last)).map(row -> new Positioned<>(row, position.apply(row))), false);
    }

    /**
     * Reads a query page by page along a key, which is the position; no connection is held between two pages.
     *
     * <p>A job that writes with the same connection factory reads its pages with the connection it writes with, between two chunks:
     * one connection suffices.
     *
     * @param read the query
     * @param scopes where the connections come from
     * @param mapping makes a row of what the query gives
     * @param <T> the type of the rows
     * @return the source
     */
    public static <T> Source<T> of(
            KeysetRead read, ConnectionScopes scopes, Function<? super Row, ? extends T> mapping) {
        Objects.requireNonNull(read, "read");
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(mapping, "mapping");
        return new Source<>(
                last -> read.behind(scopes, last, (row, position) -> new Positioned<>(mapping.apply(row), position)),
                true);
    }

    /**
     * Changes the rows on their way: maps, drops or looks something up for them, which must keep their order and positions.
     *
     * <pre>{@code
     * Source<Line> lines = orders.transform(rows -> names.join(scopes, rows, row -> row.row().customer())
     *         .map(match -> match.row().with(new Line(match.row().row(), match.found()))));
     * }</pre>
     *
     * @param transformation what becomes of the rows behind a position
     * @param <R> the type of the rows then
     * @return a source of these
     */
    public <R> Source<R> transform(
            Function<? super Flux<Positioned<T>>, ? extends Publisher<Positioned<R>>> transformation) {
        Objects.requireNonNull(transformation, "transformation");
        return new Source<>(position -> transformation.apply(behind(position)), joins);
    }

    /**
     * Makes another row of each.
     *
     * @param mapping makes it
     * @param <R> the type of the rows then
     * @return a source of these
     */
    public <R> Source<R> map(Function<? super T, ? extends R> mapping) {
        Objects.requireNonNull(mapping, "mapping");
        return transform(rows -> rows.map(row -> row.with(mapping.apply(row.row()))));
    }

    /** Whether it may use the connection of the job, which holds it between two statements only. */
    boolean joins() {
        return joins;
    }

    /**
     * Reads the rows behind a position.
     *
     * @param position the position of a row of this source, or {@code null} for all rows
     * @return emits them
     */
    public Flux<Positioned<T>> behind(@Nullable String position) {
        return Flux.defer(() -> behind.apply(position));
    }
}
