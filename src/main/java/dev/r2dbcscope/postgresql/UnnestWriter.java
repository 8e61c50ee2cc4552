package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import java.util.function.IntFunction;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Writes rows in batches, by {@code INSERT ... SELECT ... FROM unnest(...)}: one statement of always the same text for
 * thousands of rows, with one array for each column. Immutable and thread-safe: every method returns a copy.
 *
 * <pre>{@code
 * UnnestWriter<Price> writer = UnnestWriter.<Price>into("prices")
 *         .column("id", "bigint", Price::id)
 *         .column("amount", "numeric", Price::amount)
 *         .column("changed_at", "timestamptz", Price::changedAt)
 *         .withOnConflict(OnConflict.doUpdate("id"));
 *
 * Mono<Long> written = writer.write(scopes, prices);
 * }</pre>
 *
 * <p>The batches are plain statements, so the source of the rows may read from the same connection, if it leaves it in time:
 * by pages ({@link io.r2dbc.spi.Statement#fetchSize fetch size} in a transaction), or no more rows than the scope may read
 * ahead.
 *
 * <p>The values that a column's function returns are written as text that the column's type reads. Known are {@code null},
 * strings, numbers, {@code Boolean}, {@code Character}, {@code UUID}, the dates and times of {@code java.time} (which
 * PostgreSQL rounds to microseconds; the greatest and the least of each class with a date stand for {@code infinity} and
 * {@code -infinity}), {@code Duration} and {@code Period} (for {@code interval}), {@code byte[]} and {@code
 * ByteBuffer} (for {@code bytea}), enums by their names, the driver's {@code Json}, {@code InetAddress}; and collections and
 * arrays of these for columns of an array type, such as {@code "int[]"}. For other types a string serves that the type can
 * read.
 *
 * @param <T> a row
 */
public final class UnnestWriter<T> {

    private static final int DEFAULT_BATCH_SIZE = 10_000;

    private final String table;
    private final List<Column<T>> columns;
    private final @Nullable OnConflict onConflict;
    private final int batchSize;

    private UnnestWriter(String table, List<Column<T>> columns, @Nullable OnConflict onConflict, int batchSize) {
        this.table = table;
        this.columns = columns;
        this.onConflict = onConflict;
        this.batchSize = batchSize;
    }

    /** A column: its name, the type of what {@code unnest} takes apart, the cast after that, and where its values are from. */
    record Column<T>(String name, String unnested, String cast, Function<? super T, ?> value) {}

    /** What the batches need to know. */
    record Plan<T>(
            String table,
            String sql,
            List<Column<T>> columns,
            int[] keyColumns,
            Duplicates duplicates,
            int batchSize) {}

    /**
     * Writes into a table.
     *
     * @param table its name as it is, not quoted; looked for in the search path
     * @param <T> a row
     * @return a writer without columns
     */
    public static <T> UnnestWriter<T> into(String table) {
        return new UnnestWriter<>(Identifiers.quoted(table, "table"), List.of(), null, DEFAULT_BATCH_SIZE);
    }

    /**
     * Writes into a table of a schema.
     *
     * @param schema the name of the schema as it is, not quoted
     * @param table the name of the table as it is, not quoted
     * @param <T> a row
     * @return a writer without columns
     */
    public static <T> UnnestWriter<T> into(String schema, String table) {
        return new UnnestWriter<>(
                Identifiers.quoted(schema, "schema") + "." + Identifiers.quoted(table, "table"),
                List.of(),
                null,
                DEFAULT_BATCH_SIZE);
    }

    /**
     * Adds a column.
     *
     * @param name its name as it is, not quoted
     * @param type the name of its type without a length or precision, such as {@code bigint}, {@code varchar}, {@code numeric},
     *     {@code "MySchema"."MyType"}; with {@code []} behind it for an array of whatever dimensions
     * @param value what the column gets from a row; called once for each row, on the thread that emits it
     * @return a copy with that column, too
     * @throws IllegalArgumentException if the column is there already, or the type is not a type's name
     */
    public UnnestWriter<T> column(String name, String type, Function<? super T, ?> value) {
        if (names().contains(Objects.requireNonNull(name, "name"))) {
            throw new IllegalArgumentException("The column \"" + name + "\" is there already");
        }
        Identifiers.quoted(name, "name");
        String stripped = Objects.requireNonNull(type, "type").strip();
        boolean array = stripped.endsWith("[]");
        String element = SqlNames.type(array ? stripped.replaceAll("(?:\\s*\\[])+$", "") : stripped);
        // the elements of an array of boxes are separated by semicolons
        boolean asText = array || element.equalsIgnoreCase("box");
        List<Column<T>> more = new ArrayList<>(columns);
        more.add(new Column<>(
                name,
                asText ? "text" : element,
                asText ? "::" + element + (array ? "[]" : "") : "",
                Objects.requireNonNull(value, "value")));
        return new UnnestWriter<>(table, List.copyOf(more), onConflict, batchSize);
    }

    /**
     * Says what becomes of rows whose key is in the table already.
     *
     * @param onConflict what; without this, such a row fails the write
     * @return a copy that does it
     */
    public UnnestWriter<T> withOnConflict(OnConflict onConflict) {
        return new UnnestWriter<>(table, columns, Objects.requireNonNull(onConflict, "onConflict"), batchSize);
    }

    /**
     * Bounds the rows of one statement. A batch of long rows ends earlier, at about four million characters.
     *
     * @param batchSize the bound, positive; 10,000 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public UnnestWriter<T> withBatchSize(int batchSize) {
        if (batchSize <= 0) {
            throw new IllegalArgumentException("batchSize must be positive: " + batchSize);
        }
        return new UnnestWriter<>(table, columns, onConflict, batchSize);
    }

    /**
     * Writes rows with a connection. A batch is collected while the one before is being written; no more than that is asked of
     * the source.
     *
     * <p>Each batch is a statement of its own, so outside a transaction the batches before a failure stay written. When the
     * subscriber cancels, the source is cancelled, and no further batch is sent.
     *
     * @param connection the connection of a scope, or any other one of PostgreSQL
     * @param rows the rows, subscribed to once for each subscription
     * @return emits the number of rows that were inserted or updated, which are fewer than the source's if some were left out
     *     or already there. Fails with the source's error, with {@link BulkWriteException} if rows cannot be written, and with
     *     the driver's or the scope's error otherwise.
     * @throws IllegalStateException if there is no column, or what is to be done on a conflict does not fit the columns
     */
    public Mono<Long> write(Connection connection, Publisher<? extends T> rows) {
        Objects.requireNonNull(connection, "connection");
        Flux<? extends T> source = Flux.from(Objects.requireNonNull(rows, "rows"));
        Plan<T> plan = plan();
        return new FluxUnnestBatches<>(source, plan)
                .concatMap(batch -> insert(connection, plan, batch), 1)
                .reduce(0L, Long::sum);
    }

    /**
     * Writes rows in one transaction, which joins the current one by the rules of {@link ConnectionScopes#inTransaction}.
     * All of them are written, or none.
     *
     * @param scopes where the connection comes from
     * @param rows the rows, subscribed to inside the transaction
     * @return as {@link #write(Connection, Publisher)}, after the commit if it has not joined
     * @throws IllegalStateException if there is no column, or what is to be done on a conflict does not fit the columns
     */
    public Mono<Long> write(ConnectionScopes scopes, Publisher<? extends T> rows) {
        Objects.requireNonNull(rows, "rows");
        plan();
        return scopes.inTransaction(connection -> write(connection, rows));
    }

    private static <T> Mono<Long> insert(Connection connection, Plan<T> plan, UnnestBatch<T> batch) {
        return Flux.defer(() -> Flux.from(
                        batch.bindTo(connection.createStatement(plan.sql())).execute()))
                .concatMap(Result::getRowsUpdated)
                .reduce(0L, Long::sum)
                .onErrorMap(e -> BulkWriteException.ofServer(plan.table(), batch.firstRow(), batch.lastRow(), e));
    }

    private List<String> names() {
        return columns.stream().map(Column::name).toList();
    }

    Plan<T> plan() {
        if (columns.isEmpty()) {
            throw new IllegalStateException("A writer into " + table + " needs at least one column");
        }
        List<String> names = names();
        List<String> key = onConflict == null || !onConflict.updates() ? List.of() : onConflict.key();
        Duplicates duplicates = onConflict == null ? Duplicates.FAIL : onConflict.duplicates();
        int[] keyColumns = key.stream().mapToInt(names::indexOf).toArray();
        return new Plan<>(table, sql(), columns, keyColumns, duplicates, batchSize);
    }

    /** The arrays are bound as text: PostgreSQL then reads them by the type that the cast names. */
    private String sql() {
        String arrays = each(i -> "$" + (i + 1) + "::" + columns.get(i).unnested() + "[]");
        String values = each(i -> "u.c" + i + columns.get(i).cast());
        return "insert into " + table + (onConflict == null ? "" : " as target") + " ("
                + SqlNames.quoteAll(names()) + ") select " + values + " from unnest(" + arrays + ") as u("
                + each(i -> "c" + i) + ")"
                + (onConflict == null ? "" : onConflict.clause(names()));
    }

    private String each(IntFunction<String> part) {
        return IntStream.range(0, columns.size()).mapToObj(part).collect(Collectors.joining(", "));
    }

    @Override
    public String toString() {
        return "UnnestWriter[" + table + names() + ", " + batchSize + (onConflict == null ? "" : ", " + onConflict)
                + "]";
    }
}
