package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Reads a query page by page along a key, without holding a connection between two pages: for consumers that are slow, and for
 * readers that go on where they were. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * <pre>{@code
 * Flux<Order> orders = KeysetRead.ofQuery("select id, note from orders", "id")
 *         .withPageSize(5_000)
 *         .read(scopes, (row, metadata) -> order(row));
 * }</pre>
 *
 * <p>Each page is a statement of its own, {@code ... WHERE key > the last one ORDER BY key LIMIT page size}, and sees what is
 * committed when it runs. So the rows are not those of one moment: a row whose key is behind the page that is being read, and which
 * is inserted, changed or deleted meanwhile, is read as it is then, and one before it is not looked at again. For a table that
 * is written in the order of its key, be aware that a lower key may be committed after a higher one. {@link PartitionedRead}
 * reads one snapshot.
 *
 * <p>The key must be unique and not NULL; the read fails where it is not, instead of losing a row. An index that begins with its
 * columns, in their order, is what makes a page cheap, if PostgreSQL can move the condition on the key inside the query.
 */
public final class KeysetRead {

    private static final int PAGE_SIZE = 10_000;
    private static final String KEY = "r2dbc_scope_key";

    private final String query;
    private final List<Object> parameters;
    private final List<String> key;
    private final int pageSize;

    private KeysetRead(String query, List<Object> parameters, List<String> key, int pageSize) {
        this.query = query;
        this.parameters = parameters;
        this.key = key;
        this.pageSize = pageSize;
    }

    /** Some rows in the order of the key, and the position of the last one; there are no more behind them if it is {@code null}. */
    private record Page<T>(List<T> rows, @Nullable String last) {}

    /** A row of a page. */
    private record Entry<T>(T value, String position) {}

    /**
     * Reads what a query gives, in the order of a key.
     *
     * @param sql a SELECT, with {@code $1} and so on for parameters; becomes part of statements as it is
     * @param key the columns of its result that are the key, as they are, not quoted; at least one
     * @return a read of all its rows
     * @throws IllegalArgumentException if it is not one query, or sorts or limits its rows itself, or there is no key
     */
    public static KeysetRead ofQuery(String sql, String... key) {
        if (!CursorQueries.canRead(Objects.requireNonNull(sql, "sql"), false)) {
            throw new IllegalArgumentException("Only one query that changes nothing can be read in pages: " + sql);
        }
        if (CursorQueries.sortsOrLimits(sql)) {
            throw new IllegalArgumentException(
                    "The key gives the order and the pages; leave ORDER BY, LIMIT and OFFSET out of " + sql);
        }
        if (key.length == 0) {
            throw new IllegalArgumentException("A key needs at least one column");
        }
        List.of(key).forEach(column -> Identifiers.quoted(column, "key"));
        return new KeysetRead(CursorQueries.withoutSemicolon(sql), List.of(), List.of(key), PAGE_SIZE);
    }

    /**
     * Binds the parameters of the query.
     *
     * @param parameters what to bind to {@code $1} and so on; {@link io.r2dbc.spi.Parameters#in(Class)} for NULL
     * @return a copy with those
     */
    public KeysetRead withParameters(Object... parameters) {
        return new KeysetRead(query, List.of(parameters), key, pageSize);
    }

    /**
     * Bounds the rows of a page, which are all in memory, and those of the next one as well.
     *
     * @param pageSize positive; 10,000 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public KeysetRead withPageSize(int pageSize) {
        if (pageSize <= 0) {
            throw new IllegalArgumentException("pageSize must be positive: " + pageSize);
        }
        return new KeysetRead(query, parameters, key, pageSize);
    }

    /**
     * Reads all rows.
     *
     * <p><strong>Lifetime.</strong> Each page is a plain scope, which is over before its first row is emitted; it joins a scope of
     * the same factory that is around it.
     *
     * <p><strong>Endings.</strong> An error comes behind the rows of the pages before. A cancel ends the page that is being read.
     *
     * <p><strong>Demand.</strong> A page is read when the one before is being emitted, so two are in memory.
     *
     * @param scopes where the connections come from
     * @param mapping makes a value of each row
     * @param <T> the values
     * @return emits the values in the order of the key. Fails with {@link IllegalArgumentException} if the key turns out to be
     *     NULL or the same at the end of a page and the beginning of the next one, and as any statement does
     */
    public <T> Flux<T> read(ConnectionScopes scopes, BiFunction<Row, RowMetadata, ? extends T> mapping) {
        Objects.requireNonNull(mapping, "mapping");
        return behind(scopes, null, (row, position) -> mapping.apply(row, row.getMetadata()));
    }

    /**
     * Reads the rows behind a position; otherwise as {@link #read}.
     *
     * @param scopes where the connections come from
     * @param position the position of a row that was read before, whether it is still there or not; {@code null} for all rows
     * @param mapping makes a value of each row and its position, which is the key as a JSON array
     * @param <T> the values
     * @return emits the values in the order of the key
     */
    public <T> Flux<T> behind(
            ConnectionScopes scopes, @Nullable String position, BiFunction<Row, String, ? extends T> mapping) {
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(mapping, "mapping");
        return Flux.defer(() -> new Pages<T>(scopes, position, mapping).read());
    }

    /** One read. What the columns of the key are is asked for before its first page, with the same connection. */
    private final class Pages<T> {

        private final BiFunction<Row, String, ? extends T> mapping;
        private final Mono<Page<T>> next;
        private volatile @Nullable String after;
        private volatile @Nullable String condition;
        private volatile boolean more = true;

        Pages(ConnectionScopes scopes, @Nullable String position, BiFunction<Row, String, ? extends T> mapping) {
            this.mapping = mapping;
            this.after = position;
            this.next = scopes.withConnection(connection -> prepare(connection).then(page(connection)));
        }

        /** A page that is not wanted yet waits outside of its scope. */
        Flux<T> read() {
            return next.doOnNext(page -> {
                        after = page.last();
                        more = page.last() != null;
                    })
                    .flux()
                    .onBackpressureBuffer(1)
                    .repeat(() -> more)
                    .concatMapIterable(Page::rows, 1);
        }

        private Mono<Void> prepare(Connection connection) {
            return Mono.defer(() -> condition == null
                    ? Flux.from(query(connection, typesOfKey(), null, KeysetRead.this::behindPosition))
                            .single()
                            .doOnNext(found -> condition = found)
                            .then()
                    : Mono.empty());
        }

        private Mono<Page<T>> page(Connection connection) {
            return Mono.defer(() -> query(connection, pageQuery(after == null ? "" : condition), after, this::entry)
                    .collectList()
                    .map(this::page));
        }

        private Entry<T> entry(Row row) {
            String position = Objects.requireNonNull(row.get(KEY, String.class));
            return new Entry<>(mapping.apply(row, position), position);
        }

        /** One row more than the page has was asked for, to see whether there is another page. */
        private Page<T> page(List<Entry<T>> entries) {
            List<T> rows = new ArrayList<>(entries.size());
            String before = after;
            for (Entry<T> entry : entries) {
                if (entry.position().equals(before)) {
                    throw unfit("the same in several rows");
                }
                before = entry.position();
                if (rows.size() < pageSize) {
                    rows.add(entry.value());
                }
            }
            return new Page<>(
                    rows, entries.size() > pageSize ? entries.get(pageSize - 1).position() : null);
        }
    }

    private IllegalArgumentException unfit(String problem) {
        return new IllegalArgumentException("The key (" + String.join(", ", key) + ") is " + problem
                + "; choose one that is unique and not NULL for " + query);
    }

    private List<String> quoted() {
        return key.stream()
                .map(column -> "q." + Identifiers.quoted(column, "key"))
                .toList();
    }

    private String columns() {
        return String.join(", ", quoted());
    }

    private String from() {
        return " from (" + query + "\n) as q";
    }

    private String typesOfKey() {
        return quoted().stream()
                .map(column -> "pg_catalog.pg_typeof((select " + column + from() + " limit 0))::text")
                .collect(Collectors.joining(
                        ", ",
                        "select exists (select" + from() + " where "
                                + quoted().stream()
                                        .map(column -> column + " is null")
                                        .collect(Collectors.joining(" or "))
                                + "), ",
                        ""));
    }

    /** The condition that a row is behind the position, which is bound as the last parameter. */
    private String behindPosition(Row row) {
        if (Boolean.TRUE.equals(row.get(0, Boolean.class))) {
            throw unfit("NULL in a row");
        }
        return IntStream.range(0, key.size())
                .mapToObj(i -> "($" + (parameters.size() + 1) + "::text::json->>" + i + ")::"
                        + unbounded(Objects.requireNonNull(row.get(i + 1, String.class))))
                .collect(Collectors.joining(", ", " where (" + columns() + ") > (", ")"));
    }

    /** As the name of a type, {@code character} is one character, and {@code bit} one bit. */
    private static String unbounded(String type) {
        return switch (type) {
            case "character" -> "bpchar";
            case "bit" -> "varbit";
            default -> type;
        };
    }

    private String pageQuery(@Nullable String condition) {
        return "select q.*, pg_catalog.json_build_array(" + columns() + ")::text as " + KEY + from() + condition
                + " order by " + columns() + " limit " + (pageSize + 1L);
    }

    private <R> Flux<R> query(Connection connection, String sql, @Nullable String position, Function<Row, R> mapping) {
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement(sql);
                    for (int i = 0; i < parameters.size(); i++) {
                        statement.bind(i, parameters.get(i));
                    }
                    if (position != null) {
                        statement.bind(parameters.size(), position);
                    }
                    return Flux.from(statement.execute());
                })
                .concatMap(result -> result.map((row, metadata) -> mapping.apply(row)), 1);
    }

    @Override
    public String toString() {
        return "KeysetRead[" + query + " by " + String.join(", ", key) + ", " + pageSize + " rows a page]";
    }
}
