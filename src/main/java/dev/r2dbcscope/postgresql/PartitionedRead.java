package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import java.io.Serializable;
import java.util.List;
import java.util.Objects;
import java.util.function.BiFunction;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Reads a table or a query in parts, with several connections at once, all on one snapshot: the rows are those of one moment,
 * as if one statement had read them. Immutable and thread-safe: every {@code with} method returns a copy.
 *
 * <pre>{@code
 * Flux<Order> orders = PartitionedRead.ofTable("orders")
 *         .byKey("id")
 *         .withPartitions(16)
 *         .withConnections(4)
 *         .read(scopes, (row, metadata) -> order(row));
 * }</pre>
 *
 * <p>A key that is a number, a date, a timestamp or a uuid is split into ranges of equal width between its least and its greatest
 * value; rows whose key is NULL are a partition of their own, so there may be one more than asked for. More partitions than
 * connections even out ranges that hold different numbers of rows. Without a key a table is split by its blocks, which are
 * equally large whatever the keys are like. No row is read twice, and none is left out.
 */
public final class PartitionedRead {

    private final PartitionPlan plan;
    private final int partitions;
    private final int connections;
    private final int fetchSize;

    private PartitionedRead(PartitionPlan plan, int partitions, int connections, int fetchSize) {
        this.plan = plan;
        this.partitions = partitions;
        this.connections = connections;
        this.fetchSize = fetchSize;
    }

    private static PartitionedRead of(PartitionPlan plan) {
        return new PartitionedRead(plan, 4, 4, 1_000);
    }

    /**
     * Reads a table, by its blocks unless {@link #byKey} says otherwise.
     *
     * @param table its name as it is, not quoted; looked for in the search path
     * @return a read of all its columns
     */
    public static PartitionedRead ofTable(String table) {
        return of(new PartitionPlan(Identifiers.quoted(table, "table"), "*", List.of(), null, false));
    }

    /**
     * Reads a table of a schema, by its blocks unless {@link #byKey} says otherwise.
     *
     * @param schema the name of the schema as it is, not quoted
     * @param table the name of the table as it is, not quoted
     * @return a read of all its columns
     */
    public static PartitionedRead ofTable(String schema, String table) {
        return of(new PartitionPlan(
                Identifiers.quoted(schema, "schema") + "." + Identifiers.quoted(table, "table"),
                "*",
                List.of(),
                null,
                false));
    }

    /**
     * Reads what a query gives. Each partition runs the query with a condition around it, which PostgreSQL moves inside where it
     * can; a query whose result is not the same every time it runs on one snapshot cannot be read in parts.
     *
     * @param sql a SELECT, with {@code $1} and so on for parameters; becomes part of statements as it is
     * @param key the column of its result to split by, as it is, not quoted
     * @param parameters what to bind, in order
     * @return a read of all its columns
     */
    public static PartitionedRead ofQuery(String sql, String key, Serializable... parameters) {
        Objects.requireNonNull(sql, "sql");
        return of(new PartitionPlan("(" + sql + ")", "*", List.of(parameters), Identifiers.quoted(key, "key"), false));
    }

    /**
     * Splits by ranges of a column.
     *
     * @param column its name as it is, not quoted; an index that begins with it is what makes each partition cheap
     * @return a copy that is split so
     */
    public PartitionedRead byKey(String column) {
        return with(new PartitionPlan(
                plan.from(), plan.columns(), plan.parameters(), Identifiers.quoted(column, "column"), plan.ordered()));
    }

    /**
     * Chooses the columns to read.
     *
     * @param columns their names as they are, not quoted; all of them by default
     * @return a copy that reads those
     * @throws IllegalArgumentException if there is none
     */
    public PartitionedRead withColumns(String... columns) {
        if (columns.length == 0) {
            throw new IllegalArgumentException("A read needs at least one column");
        }
        return with(new PartitionPlan(
                plan.from(), SqlNames.quoteAll(List.of(columns)), plan.parameters(), plan.key(), plan.ordered()));
    }

    /**
     * Emits the rows in the order of the key, or in that of the blocks without one. Of the partitions behind the one whose turn it
     * is, {@code fetchSize} rows each are read ahead.
     *
     * @param ordered {@code false} by default: rows are emitted as they come
     * @return a copy that does or does not
     */
    public PartitionedRead withOrder(boolean ordered) {
        return with(new PartitionPlan(plan.from(), plan.columns(), plan.parameters(), plan.key(), ordered));
    }

    /**
     * Says into how many partitions to split.
     *
     * @param partitions positive; 4 by default. There are fewer if there are fewer different keys, or fewer blocks
     * @return a copy with that number
     * @throws IllegalArgumentException if it is zero or negative
     */
    public PartitionedRead withPartitions(int partitions) {
        return new PartitionedRead(plan, positive(partitions, "partitions"), connections, fetchSize);
    }

    /**
     * Bounds the connections. One suffices; the others help where they can be had.
     *
     * @param connections positive; 4 by default
     * @return a copy with that bound
     * @throws IllegalArgumentException if it is zero or negative
     */
    public PartitionedRead withConnections(int connections) {
        return new PartitionedRead(plan, partitions, positive(connections, "connections"), fetchSize);
    }

    /**
     * Says how many rows to fetch at a time, with each connection.
     *
     * @param fetchSize positive; 1,000 by default
     * @return a copy with that number
     * @throws IllegalArgumentException if it is zero or negative
     */
    public PartitionedRead withFetchSize(int fetchSize) {
        return new PartitionedRead(plan, partitions, connections, positive(fetchSize, "fetchSize"));
    }

    private PartitionedRead with(PartitionPlan plan) {
        return new PartitionedRead(plan, partitions, connections, fetchSize);
    }

    private static int positive(int value, String name) {
        if (value <= 0) {
            throw new IllegalArgumentException(name + " must be positive: " + value);
        }
        return value;
    }

    /**
     * Reads the rows.
     *
     * <p><strong>Lifetime.</strong> The first connection begins a read-only transaction, takes the snapshot and reads as well;
     * each of the others is a scope of its own that takes over the snapshot. A connection goes back as soon as no partition is
     * left for it. They are transactions of their own, so they do not see what a transaction around them has written; inside a
     * plain scope of the same factory its connection is the only one.
     *
     * <p><strong>Endings.</strong> An error of one partition ends all of them, and is emitted when all connections were given
     * back. A cancel ends all of them, too. A connection other than the first that cannot be had (the pool has none within the
     * acquire timeout, or would not have one for ever) is done without.
     *
     * <p><strong>Demand.</strong> At most two fetch sizes of rows for each connection are read ahead. The functions are called
     * by several threads at once.
     *
     * @param scopes where the connections come from
     * @param mapping makes a value of each row
     * @param <T> the values
     * @return emits the values
     */
    public <T> Flux<T> read(ConnectionScopes scopes, BiFunction<Row, RowMetadata, ? extends T> mapping) {
        Objects.requireNonNull(scopes, "scopes");
        Objects.requireNonNull(mapping, "mapping");
        return Flux.defer(() -> new PartitionCrew<T>(
                        scopes, this, partition -> connection -> partition.read(connection, fetchSize, mapping))
                .read());
    }

    /**
     * Splits without reading, for partitions that are read on whatever snapshots.
     *
     * @param connection a connection of PostgreSQL
     * @return emits the partitions
     */
    public Mono<List<Partition>> partitions(Connection connection) {
        return plan.partitions(Objects.requireNonNull(connection, "connection"), partitions);
    }

    /**
     * Splits without reading, for partitions that are read on the snapshot of the connection's transaction, perhaps by other
     * processes: {@link Partition#read(ConnectionScopes, int, BiFunction)}. They can take it over only while that transaction is
     * open, which should have isolation level REPEATABLE READ.
     *
     * @param connection a connection of PostgreSQL in a transaction
     * @return emits the partitions with the snapshot; fails with SQLSTATE 25P01 outside a transaction
     */
    public Mono<List<Partition>> export(Connection connection) {
        return Snapshot.export(Objects.requireNonNull(connection, "connection"))
                .flatMap(snapshot -> partitions(connection)
                        .map(all -> all.stream().map(one -> one.on(snapshot)).toList()));
    }

    PartitionPlan plan() {
        return plan;
    }

    int connections() {
        return connections;
    }

    int fetchSize() {
        return fetchSize;
    }

    @Override
    public String toString() {
        @Nullable String key = plan.key();
        return "PartitionedRead[" + plan.from() + (key == null ? " by blocks" : " by " + key) + ", " + partitions
                + " partitions, " + connections + " connections, fetch size " + fetchSize
                + (plan.ordered() ? ", ordered" : "") + "]";
    }
}
