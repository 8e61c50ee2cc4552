package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.DriverTurn;
import io.r2dbc.postgresql.api.PostgresqlConnection;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Wrapped;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Scheduler;
import reactor.core.scheduler.Schedulers;
import reactor.util.context.Context;

/**
 * Writes rows into a table by {@code COPY ... FROM STDIN}, the fastest way that PostgreSQL has.
 *
 * <pre>{@code
 * CopyIn<Order> orders = CopyIn.<Order>into("orders")
 *         .column("id", CopyType.BIGINT, Order::id)
 *         .column("note", CopyType.TEXT, Order::note);
 * Mono<Long> written = scopes.inTransaction(connection -> orders.write(connection, rows));
 * }</pre>
 *
 * <ul>
 *   <li><strong>All or nothing.</strong> A COPY is one statement: in a transaction its rows are part of it, otherwise they are
 *       committed with its last one.
 *   <li><strong>Demand.</strong> The source is asked for a bounded number of rows at once, and for more only as they are sent, so
 *       a server that is slower than the source slows it down. The memory that is needed does not depend on the number of
 *       rows. What is sent last may wait for more rows of a slow source.
 *   <li><strong>Endings.</strong> Emits how many rows the server wrote and completes after the server has confirmed them: in a transaction, they are
 *       durable after its COMMIT. When the source or the encoder fails, the subscriber gets that error; when the server refuses a row,
 *       a {@link CopyException}, and the source is cancelled. When the subscriber cancels, or the scope ends for another reason,
 *       the source is cancelled and the server told that the COPY has failed. In each of these cases none of its rows is
 *       written, and the connection takes no further statement and is destroyed at the end of the scope, because the driver does not
 *       keep it in a known state.
 *   <li><strong>Types.</strong> In {@link CopyFormat#BINARY} the server does not convert, and takes any value of the right length as one
 *       of its column's type. So the types of the columns are asked for before, which is one round trip, and a value of
 *       another type fails with a {@link CopyException} that says what the column is; {@link CopyType} says what fits. Columns of
 *       types that it does not know are not checked. In {@link CopyFormat#TEXT} the server converts, and nothing is asked.
 *   <li><strong>Time.</strong> The server looks at its {@code statement_timeout} during a COPY only when data arrives, so it does not
 *       end one whose source stalls; {@link dev.r2dbcscope.ScopeOptions#withMaxHold} and
 *       {@link dev.r2dbcscope.ScopeOptions#withMaxIdle} do.
 *   <li><strong>The connection</strong> is busy until the COPY has ended. A source that queries it fails with
 *       {@link IllegalStateException}; one that reads from another scope, another connection, is fine.
 * </ul>
 *
 * <p>Rows that a trigger skips are not counted. Text is sent as UTF-8. Immutable and thread-safe: every method that configures it returns a copy.
 *
 * @param <T> the type of the rows
 */
public final class CopyIn<T> {

    private static final int PREFETCH = 256;
    private static final int CHUNK_SIZE = 64 * 1024;

    private final @Nullable String schema;
    private final String table;
    private final List<String> columns;
    private final List<Column<T, ?>> typed;
    private final @Nullable RowEncoder<? super T> encoder;
    private final CopyFormat format;
    private final int prefetch;

    private record Column<T, V>(CopyType<V> type, Function<? super T, ? extends @Nullable V> value) {
        void encode(T row, CopyRow to) {
            to.write(type, value.apply(row));
        }
    }

    /** What became of a COPY whose failure, if it failed, is not the database's. */
    private record Written(long count, @Nullable Throwable failure) {
        Mono<Long> answer() {
            return failure == null ? Mono.just(count) : Mono.error(failure);
        }
    }

    private CopyIn(
            @Nullable String schema,
            String table,
            List<String> columns,
            List<Column<T, ?>> typed,
            @Nullable RowEncoder<? super T> encoder,
            CopyFormat format,
            int prefetch) {
        this.schema = schema;
        this.table = table;
        this.columns = columns;
        this.typed = typed;
        this.encoder = encoder;
        this.format = format;
        this.prefetch = prefetch;
    }

    // what is written ------------------------------------------------------------------------------------------------

    /**
     * Writes into a table that is found by the search path.
     *
     * @param table the table's name, as it is and not quoted
     * @param <T> the type of the rows
     * @return a writer without columns
     * @throws IllegalArgumentException if the name is empty
     */
    public static <T> CopyIn<T> into(String table) {
        Identifiers.quoted(table, "table");
        return new CopyIn<>(null, table, List.of(), List.of(), null, CopyFormat.BINARY, PREFETCH);
    }

    /**
     * Writes into a table of a given schema.
     *
     * @param schema the schema's name, as it is and not quoted
     * @param table the table's name, as it is and not quoted
     * @param <T> the type of the rows
     * @return a writer without columns
     * @throws IllegalArgumentException if a name is empty
     */
    public static <T> CopyIn<T> into(String schema, String table) {
        Identifiers.quoted(schema, "schema");
        return CopyIn.<T>into(table).withTable(schema, table);
    }

    /**
     * Adds a column. Columns of the table that are not added get their defaults.
     *
     * @param name the column's name, as it is and not quoted
     * @param type the column's type
     * @param value gets the column's value of a row; {@code null} for NULL
     * @param <V> the Java type of the value
     * @return a copy with that column
     * @throws IllegalArgumentException if the name is empty, or there is such a column already
     * @throws IllegalStateException if an encoder was set with {@link #columns}
     */
    public <V> CopyIn<T> column(String name, CopyType<V> type, Function<? super T, ? extends @Nullable V> value) {
        Identifiers.quoted(name, "name");
        Objects.requireNonNull(type, "type");
        Objects.requireNonNull(value, "value");
        if (encoder != null) {
            throw new IllegalStateException("The columns of COPY " + shownTable() + " were given with their encoder");
        }
        if (columns.contains(name)) {
            throw new IllegalArgumentException("name must not be a column twice: " + name);
        }
        List<Column<T, ?>> more = new ArrayList<>(typed);
        more.add(new Column<>(type, value));
        return new CopyIn<>(schema, table, plus(columns, name), List.copyOf(more), null, format, prefetch);
    }

    private static List<String> plus(List<String> names, String name) {
        List<String> more = new ArrayList<>(names);
        more.add(name);
        return List.copyOf(more);
    }

    /**
     * Sets all columns and what writes them: for rows whose columns are not known as functions, and for primitive values
     * without boxing.
     *
     * @param encoder writes a row's columns in the given order
     * @param names the columns' names, as they are and not quoted
     * @return a copy with these columns instead of others
     * @throws IllegalArgumentException if there is none, or one is empty or given twice
     */
    public CopyIn<T> columns(RowEncoder<? super T> encoder, String... names) {
        Objects.requireNonNull(encoder, "encoder");
        List<String> all = List.of(names);
        all.forEach(name -> Identifiers.quoted(name, "name"));
        if (all.isEmpty() || all.stream().distinct().count() < all.size()) {
            throw new IllegalArgumentException("names must not be empty or have one twice: " + all);
        }
        return new CopyIn<>(schema, table, all, List.of(), encoder, format, prefetch);
    }

    /**
     * Sets the table.
     *
     * @param table the table's name, found by the search path, as it is and not quoted
     * @return a copy that writes the same columns into that table
     * @throws IllegalArgumentException if the name is empty
     */
    public CopyIn<T> withTable(String table) {
        Identifiers.quoted(table, "table");
        return new CopyIn<>(null, table, columns, typed, encoder, format, prefetch);
    }

    /**
     * Sets the table.
     *
     * @param schema the schema's name, as it is and not quoted
     * @param table the table's name, as it is and not quoted
     * @return a copy that writes the same columns into that table
     * @throws IllegalArgumentException if a name is empty
     */
    public CopyIn<T> withTable(String schema, String table) {
        Identifiers.quoted(schema, "schema");
        Identifiers.quoted(table, "table");
        return new CopyIn<>(schema, table, columns, typed, encoder, format, prefetch);
    }

    /**
     * Sets how values are sent.
     *
     * @param format the format; {@link CopyFormat#BINARY} by default
     * @return a copy with that format
     */
    public CopyIn<T> withFormat(CopyFormat format) {
        Objects.requireNonNull(format, "format");
        return new CopyIn<>(schema, table, columns, typed, encoder, format, prefetch);
    }

    /**
     * Sets how many rows the source is asked for at once; as many may be kept until they are encoded.
     *
     * @param prefetch the number, positive; 256 by default
     * @return a copy with that number
     * @throws IllegalArgumentException if it is zero or negative
     */
    public CopyIn<T> withPrefetch(int prefetch) {
        if (prefetch <= 0) {
            throw new IllegalArgumentException("prefetch must be positive: " + prefetch);
        }
        return new CopyIn<>(schema, table, columns, typed, encoder, format, prefetch);
    }

    /**
     * Returns the columns.
     *
     * @return their names, in the order in which they are written
     */
    public List<String> columns() {
        return columns;
    }

    /**
     * Returns the table.
     *
     * @return its name as SQL: quoted, with its schema if one was given
     */
    public String table() {
        String name = Identifiers.quoted(table, "table");
        return schema == null ? name : Identifiers.quoted(schema, "schema") + "." + name;
    }

    // writing --------------------------------------------------------------------------------------------------------

    /**
     * Writes rows in a transaction, or in the current one if there is one.
     *
     * @param scopes opens or joins the transaction
     * @param rows the rows, subscribed to when the connection is there
     * @return writes each time it is subscribed to and emits how many rows the server wrote; see the class for its endings
     * @throws IllegalStateException if no column was given
     */
    public Mono<Long> write(ConnectionScopes scopes, Publisher<? extends T> rows) {
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(rows, "rows");
        requireColumns();
        return scopes.inTransaction(connection -> write(connection, rows));
    }

    /**
     * Writes rows on the connection of a scope.
     *
     * @param connection a connection that a scope has handed out, of r2dbc-postgresql
     * @param rows the rows, subscribed to when it is their turn
     * @return writes each time it is subscribed to and emits how many rows the server wrote; see the class for its endings.
     *     Fails with {@link IllegalArgumentException} if the connection does not belong to a scope, and with {@link
     *     UnsupportedOperationException} if it is another driver's.
     * @throws IllegalStateException if no column was given
     */
    public Mono<Long> write(Connection connection, Publisher<? extends T> rows) {
        Objects.requireNonNull(connection, "connection");
        Objects.requireNonNull(rows, "rows");
        return writeInto(connection, rows, table(), table, null);
    }

    /**
     * Writes into another table with the same columns, whose errors name this one.
     *
     * @param into the other table, quoted
     * @param name its bare name
     * @param leftOut gets the rows that cannot be sent; if there is none, they fail the COPY
     */
    Mono<Long> writeInto(
            Connection connection,
            Publisher<? extends T> rows,
            String into,
            String name,
            @Nullable Consumer<CopyException> leftOut) {
        requireColumns();
        CopyErrors errors = new CopyErrors(shownTable(), name, columns);
        return Mono.defer(() -> DriverTurn.<Written>take(
                        connection, "COPY " + shownTable(), turn -> copy(turn, rows, into, leftOut)))
                .onErrorMap(R2dbcException.class, errors::told)
                .flatMap(Written::answer);
    }

    private void requireColumns() {
        if (columns.isEmpty()) {
            throw new IllegalStateException("COPY " + shownTable() + " has no columns; give it some with column(...)");
        }
    }

    private Mono<Written> copy(
            DriverTurn turn, Publisher<? extends T> rows, String into, @Nullable Consumer<CopyException> leftOut) {
        PostgresqlConnection driver = Unwrapped.postgresql(turn.connection());
        turn.cancellable();
        return row(driver, into)
                .doOnNext(row -> row.leaveOut(leftOut))
                .doOnError(error -> turn.condemn())
                .flatMap(row -> turn.isLeft() ? Mono.empty() : copy(turn, driver, row, rows, into));
    }

    /** What the rows are written to. Only the binary format has to know what the columns are. */
    private Mono<CopyRow> row(Connection driver, String into) {
        return format == CopyFormat.BINARY
                ? ColumnTypes.of(driver, into, columns).map(types -> new BinaryCopyRow(shownTable(), columns, types))
                : Mono.fromSupplier(() -> new TextCopyRow(shownTable(), columns));
    }

    private Mono<Written> copy(
            DriverTurn turn, PostgresqlConnection driver, CopyRow row, Publisher<? extends T> rows, String into) {
        Scheduler scheduler = ((Wrapped<?>) driver).unwrap(Scheduler.class);
        return Mono.deferContextual(context -> {
            CopyFeed<T> feed = new CopyFeed<>(
                    rows, rowEncoder(), row, prefetch, CHUNK_SIZE, turn.left(), turn.within(Context.of(context)));
            turn.progress(feed::progress);
            // the driver does not expect its COPY to fail on another thread while it handles the server's answer
            return driver.copyIn(sql(into))
                    .fromMany(feed.publishOn(scheduler == null ? Schedulers.immediate() : scheduler, false, 8)
                            .filter(chunk -> !feed.isClosed()))
                    .build()
                    .doOnTerminate(feed::close)
                    .map(count -> new Written(count, null))
                    .onErrorResume(error -> {
                        turn.condemn();
                        if (feed.isAbandoned()) {
                            return Mono.empty(); // what has failed is what was to
                        }
                        Throwable own = feed.failure();
                        return own == null ? Mono.error(error) : Mono.just(new Written(0, own));
                    });
        });
    }

    private RowEncoder<? super T> rowEncoder() {
        if (encoder != null) {
            return encoder;
        }
        List<Column<T, ?>> all = typed;
        return (row, to) -> {
            for (int i = 0; i < all.size(); i++) {
                all.get(i).encode(row, to);
            }
        };
    }

    private String sql(String into) {
        return "COPY " + into
                + columns.stream()
                        .map(name -> Identifiers.quoted(name, "name"))
                        .collect(Collectors.joining(", ", " (", ")"))
                + " FROM STDIN (FORMAT " + (format == CopyFormat.BINARY ? "binary" : "text") + ", ENCODING 'UTF8')";
    }

    private String shownTable() {
        return schema == null ? table : schema + "." + table;
    }

    @Override
    public String toString() {
        return "CopyIn[" + sql(table()) + "]";
    }
}
