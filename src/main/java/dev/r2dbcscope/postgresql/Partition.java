package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.RowMetadata;
import io.r2dbc.spi.Statement;
import java.io.Serializable;
import java.util.List;
import java.util.Objects;
import java.util.function.BiFunction;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;

/**
 * A part of what a {@link PartitionedRead} reads, as a value: another process can read it.
 *
 * <p>The partitions of one list overlap nowhere and leave nothing out, whatever happens to the table. But only if they are read
 * on one snapshot are the rows those of one moment; see {@link PartitionedRead#export}.
 *
 * @param index its position among the partitions, from 0
 * @param sql the query, with {@code $1} and so on for the parameters
 * @param parameters what to bind, in order
 * @param snapshot the identifier of an exported snapshot to read it on, or {@code null}
 * @serial exclude
 */
public record Partition(
        int index,
        String sql,
        List<Serializable> parameters,
        @Nullable String snapshot) implements Serializable {

    private static final long serialVersionUID = 1L;

    /**
     * Makes a partition.
     *
     * @param index its position among the partitions, from 0
     * @param sql the query, with {@code $1} and so on for the parameters
     * @param parameters what to bind, in order
     * @param snapshot the identifier of an exported snapshot to read it on, or {@code null}
     */
    public Partition {
        Objects.requireNonNull(sql, "sql");
        parameters = List.copyOf(parameters);
    }

    /**
     * Reads it with a connection, in the transaction and on the snapshot that the connection has.
     *
     * @param connection a connection of PostgreSQL
     * @param fetchSize how many rows to fetch at a time, which needs a transaction to be a bound; 0 for all at once
     * @param mapping makes a value of each row
     * @param <T> the values
     * @return emits the values; fails as any statement does
     */
    public <T> Flux<T> read(Connection connection, int fetchSize, BiFunction<Row, RowMetadata, ? extends T> mapping) {
        Objects.requireNonNull(connection, "connection");
        Objects.requireNonNull(mapping, "mapping");
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement(sql).fetchSize(fetchSize);
                    for (int i = 0; i < parameters.size(); i++) {
                        statement.bind(i, parameters.get(i));
                    }
                    return Flux.from(statement.execute());
                })
                .concatMap(result -> result.map(mapping), 1);
    }

    /**
     * Reads it in a read-only transaction of its own, on its snapshot if it has one. That works on any connection to the same
     * database, of whatever process, as long as the transaction that exported the snapshot is open.
     *
     * <p>Lifetime, endings, demand: as with {@link ConnectionScopes#inTransactionMany}.
     *
     * @param scopes where the connection comes from
     * @param fetchSize how many rows to fetch at a time; 0 for all at once
     * @param mapping makes a value of each row
     * @param <T> the values
     * @return emits the values; fails as any statement does, with SQLSTATE 22023 if the snapshot is not there any more
     */
    public <T> Flux<T> read(ConnectionScopes scopes, int fetchSize, BiFunction<Row, RowMetadata, ? extends T> mapping) {
        Objects.requireNonNull(mapping, "mapping");
        return Snapshot.reading(
                scopes,
                connection -> (snapshot == null
                                ? Flux.<T>empty()
                                : Snapshot.use(connection, snapshot).<T>thenMany(Flux.empty()))
                        .concatWith(read(connection, fetchSize, mapping)));
    }

    /** The same on a snapshot. */
    Partition on(String snapshot) {
        return new Partition(index, sql, parameters, snapshot);
    }

    /** Without the parameters, which are values. */
    @Override
    public String toString() {
        return "Partition[" + index + ", " + sql + (snapshot == null ? "" : ", " + snapshot) + "]";
    }
}
