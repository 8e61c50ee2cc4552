package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Statement;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;

/**
 * Reads a query as lines of JSON (NDJSON) that PostgreSQL has rendered: the program does not look into the rows, it only passes
 * their bytes on. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * <pre>{@code
 * Flux<ByteBuffer> export =
 *         JsonLines.ofQuery("select id, note from orders").byKey("id").read(reads);
 * }</pre>
 *
 * <p>A line is what {@code row_to_json} makes of a row, in UTF-8, with {@code \n} behind it; line breaks and tabs that a
 * column of type {@code json} has between its values become spaces. Columns of the same name are members of the same name. The
 * buffers are pieces of the body of an HTTP response: each holds whole lines, at most {@link #withRows} of them. Their bytes
 * are not bounded, so choose fewer for rows of a megabyte; PostgreSQL makes no value of a gigabyte.
 *
 * <ul>
 *   <li><strong>Without a key</strong> each line is a row that the driver reads. Any query will do, and its order is kept.
 *   <li><strong>{@link #byKey By a key}</strong> each piece is one row, which the server has put together, so that the driver
 *       has next to nothing to do. That takes a query whose rows an index finds by the key, and PostgreSQL 12.
 * </ul>
 *
 * <p>Both have the first piece at once: of 1,000,000 rows of 127 bytes on PostgreSQL 18, within some 10 ms. Grouping any query
 * by row numbers sorts it on the server, and had the first piece after 2.5 s of 2.9.
 */
public final class JsonLines {

    private static final int ROWS = 256;

    /** Of a read by key; without one a page is a piece. */
    private static final int PIECES_A_PAGE = 4;

    /** Cannot be part of JSON; {@code \n} can, between two values. */
    private static final byte END_OF_ROW = 0x1e;

    private static final ByteBuffer NOTHING = ByteBuffer.allocate(0).asReadOnlyBuffer();

    private final String query;
    private final List<Object> parameters;
    private final @Nullable String key;
    private final int rows;

    private JsonLines(String query, List<Object> parameters, @Nullable String key, int rows) {
        this.query = query;
        this.parameters = parameters;
        this.key = key;
        this.rows = rows;
    }

    /**
     * Reads what a query gives, in its order.
     *
     * @param sql a SELECT, VALUES or TABLE, with {@code $1} and so on for parameters; becomes part of a statement as it is
     * @param parameters what to bind, in order; {@link io.r2dbc.spi.Parameters#in(Class)} for NULL
     * @return a read of all its rows
     * @throws IllegalArgumentException if it is not one query, or one that changes data
     */
    public static JsonLines ofQuery(String sql, Object... parameters) {
        if (!CursorQueries.canRead(Objects.requireNonNull(sql, "sql"), false)) {
            throw new IllegalArgumentException("Only one query that changes nothing can be read as JSON: " + sql);
        }
        return new JsonLines(CursorQueries.withoutSemicolon(sql), List.of(parameters), null, ROWS);
    }

    /**
     * Reads in the order of a key, and has the server put together the lines of each piece.
     *
     * <p>The query runs once for each piece, with a condition on the key around it, which PostgreSQL must be able to move
     * inside, to an index that begins with the key: the primary key of the table that the rows are from. It cannot for the
     * result of an aggregate function, and not where a LIMIT or a volatile function is in between; {@code EXPLAIN SELECT * FROM
     * (query) q WHERE key >= ... ORDER BY key LIMIT 256} says so. The lines are right then, too, but each piece costs as much as
     * the whole query: with a condition that no index could serve, a million rows took 350 s instead of 2 s.
     *
     * @param column the name of a column of the result as it is, not quoted, whose values are unique and not NULL
     * @return a copy that reads so
     * @throws IllegalArgumentException if the query sorts or limits its rows itself
     */
    public JsonLines byKey(String column) {
        if (CursorQueries.sortsOrLimits(query)) {
            throw new IllegalArgumentException(
                    "The key gives the order and the pieces; leave ORDER BY, LIMIT and OFFSET out of " + query);
        }
        return new JsonLines(query, parameters, Identifiers.quoted(column, "column"), rows);
    }

    /**
     * Bounds the lines of a piece. Up to four pieces are read ahead, up to sixteen {@linkplain #byKey by key}.
     *
     * @param rows positive; 256 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public JsonLines withRows(int rows) {
        if (rows <= 0) {
            throw new IllegalArgumentException("rows must be positive: " + rows);
        }
        return new JsonLines(query, parameters, key, rows);
    }

    /**
     * Reads the lines in one transaction, which joins the current one by the rules of {@link
     * ConnectionScopes#inTransactionMany}. Scopes whose transactions are {@linkplain
     * dev.r2dbcscope.TransactionOptions#withReadOnly read-only} fit best.
     *
     * <p><strong>Lifetime.</strong> The connection is opened at the subscription, and held until the last piece was taken: as
     * long as a slow client needs. It is given back before completion, after an error, and after a cancel.
     *
     * @param scopes where the connection comes from
     * @return as {@link #read(Connection)}
     */
    public Flux<ByteBuffer> read(ConnectionScopes scopes) {
        return scopes.inTransactionMany(this::read);
    }

    /**
     * Reads the lines with a connection.
     *
     * <p><strong>Endings.</strong> An error of a row ends the read after some of the pieces before it; a cancel closes the
     * cursor.
     *
     * <p><strong>Demand.</strong> No more than the pieces that {@link #withRows} speaks of is read beyond the demand, if the
     * connection is that of a scope and in a transaction.
     *
     * @param connection a connection of PostgreSQL
     * @return emits the pieces, none if there are no rows. Each is a heap buffer that belongs to its subscriber. Fails with the
     *     driver's error, or with {@link IllegalArgumentException} if the key turns out to be NULL, or the same at the end of
     *     one piece and the beginning of the next
     */
    public Flux<ByteBuffer> read(Connection connection) {
        Objects.requireNonNull(connection, "connection");
        if (key == null) {
            return rows(
                            connection,
                            "select row_to_json(scope_row.*) from (" + query + "\n) scope_row",
                            rows,
                            row -> Objects.requireNonNull(row.get(0, ByteBuffer.class)))
                    .buffer(rows)
                    .map(JsonLines::join);
        }
        return rows(connection, blocks(key), PIECES_A_PAGE, this::block).filter(ByteBuffer::hasRemaining);
    }

    private Flux<ByteBuffer> rows(
            Connection connection, String sql, int fetchSize, Function<? super Readable, ByteBuffer> mapping) {
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement(sql).fetchSize(fetchSize);
                    for (int i = 0; i < parameters.size(); i++) {
                        statement.bind(i, parameters.get(i));
                    }
                    return Flux.from(statement.execute());
                })
                .concatMap(result -> result.map(mapping::apply), 1);
    }

    /**
     * Finds the first key of each block when it is needed, as many rows behind that of the one before as a block has, and its
     * rows from there on. So no row is lost or doubled if the last key of a block is less than the first of the next one.
     */
    private String blocks(String quoted) {
        String column = "scope_row." + quoted;
        String from = " from scope_query scope_row where " + column + " >= scope_block.";
        return "with recursive scope_query as not materialized (" + query + "\n), scope_block (first, next) as ("
                + "select (select " + column + " from scope_query scope_row order by " + column + " limit 1), (select "
                + column + " from scope_query scope_row order by " + column + " offset " + rows + " limit 1)"
                + " union all select next, (select " + column + from + "next order by " + column + " offset " + rows
                + " limit 1) from scope_block where next is not null)"
                + " select piece.lines, case when piece.torn then 'the same in several rows' end"
                + " from scope_block cross join lateral ("
                + "select string_agg(line, E'\\x1e' order by key) || E'\\x1e' as lines,"
                + " bool_or(key >= scope_block.next) as torn from ("
                + "select row_to_json(scope_row.*)::text as line, " + column + " as key" + from + "first order by "
                + column
                + " limit " + rows + ") scope_line) piece"
                + " union all select null, 'NULL in a row' where exists (select from scope_query scope_row where "
                + column + " is null)";
    }

    private ByteBuffer block(Readable row) {
        String trouble = row.get(1, String.class);
        if (trouble != null) {
            throw new IllegalArgumentException("The key " + key + " is " + trouble
                    + "; choose one that is unique and not NULL, or read without a key: " + query);
        }
        String lines = row.get(0, String.class);
        return lines == null ? NOTHING : lines(lines.getBytes(StandardCharsets.UTF_8));
    }

    private static ByteBuffer join(List<ByteBuffer> rows) {
        byte[] joined =
                new byte[rows.stream().mapToInt(row -> row.remaining() + 1).sum()];
        int end = 0;
        for (ByteBuffer row : rows) {
            int size = row.remaining();
            row.get(joined, end, size);
            end += size;
            joined[end++] = END_OF_ROW;
        }
        return lines(joined);
    }

    /** Within a string of JSON they are escaped: a raw line break is white space, and no other control character is there. */
    private static ByteBuffer lines(byte[] rows) {
        for (int i = 0; i < rows.length; i++) {
            byte b = rows[i];
            if (b < ' ' && b >= 0) {
                rows[i] = b == END_OF_ROW ? (byte) '\n' : (byte) ' ';
            }
        }
        return ByteBuffer.wrap(rows);
    }

    @Override
    public String toString() {
        return "JsonLines[" + query + (key == null ? "" : " by " + key) + ", " + rows + " rows a piece]";
    }
}
