package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.Statement;
import java.io.Serializable;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * What is read, and where it can be split.
 *
 * @param from a table, or a query in parentheses
 * @param columns what is selected of it
 * @param parameters those of the query
 * @param key the column to split by, quoted; {@code null} for the blocks of the table
 * @param ordered whether each partition is read in the order of its key
 */
record PartitionPlan(
        String from,
        String columns,
        List<Serializable> parameters,
        @Nullable String key,
        boolean ordered) {

    /** One range, of which either end may be open. */
    private record Range(@Nullable String from, @Nullable String to) {}

    /** Holds a table where it is, until the end of the transaction: what a snapshot shows does not survive TRUNCATE. */
    Mono<Void> hold(Connection connection) {
        return Flux.from(query(connection, "select from " + from + " as q limit 0", row -> true))
                .then();
    }

    /** The partitions by the state of the table that the connection sees; at most one more than asked for, for NULL. */
    Mono<List<Partition>> partitions(Connection connection, int count) {
        return key == null ? byBlocks(connection, count) : byKey(connection, key, count);
    }

    private Mono<List<Partition>> byKey(Connection connection, String key, int count) {
        return query(
                        connection,
                        "select pg_catalog.pg_typeof((select q." + key + " from " + from + " as q limit 0))::text",
                        row -> KeyType.of(String.valueOf(row.get(0, String.class))))
                .single()
                .flatMap(type -> query(connection, ends(type, key), row -> ranges(type, row, count))
                        .single());
    }

    private String ends(KeyType type, String key) {
        return "select " + end(type, key, "asc") + ", " + end(type, key, "desc") + ", exists (select from " + from
                + " as q where q." + key + " is null)";
    }

    private String end(KeyType type, String key, String order) {
        return "(select " + type.expression("e.k") + " from (select q." + key + " as k from " + from + " as q where "
                + type.condition("q." + key) + " order by 1 " + order + " limit 1) as e)";
    }

    private List<Partition> ranges(KeyType type, Row row, int count) {
        String min = row.get(0, String.class);
        String max = row.get(1, String.class);
        List<String> splits =
                min == null || max == null ? List.of() : type.split(type.parse(min), type.parse(max), count);
        boolean nulls = Boolean.TRUE.equals(row.get(2, Boolean.class));
        return partitions("q." + key, type.sqlName(), splits, nulls);
    }

    /** Blocks behind the last one that there is now belong to the last partition, and so do those of other relations' rows. */
    private Mono<List<Partition>> byBlocks(Connection connection, int count) {
        String size = "select coalesce((select max(pg_catalog.pg_relation_size(relid)) from"
                + " pg_catalog.pg_partition_tree('" + from.replace("'", "''") + "'::regclass)),"
                + " pg_catalog.pg_relation_size('" + from.replace("'", "''") + "'::regclass))"
                + " / current_setting('block_size')::bigint";
        return query(connection, size, row -> {
                    Long found = row.get(0, Long.class);
                    BigDecimal blocks = BigDecimal.valueOf(found == null ? 0 : found);
                    List<String> splits = blocks.signum() == 0
                            ? List.of()
                            : KeyType.BIGINT.split(BigDecimal.ZERO, blocks.subtract(BigDecimal.ONE), count);
                    return partitions(
                            "q.ctid",
                            "tid",
                            splits.stream().map(block -> "(" + block + ",0)").toList(),
                            false);
                })
                .single();
    }

    private List<Partition> partitions(String key, String type, List<String> splits, boolean nulls) {
        List<Partition> partitions = new ArrayList<>();
        for (int i = 0; i <= splits.size(); i++) {
            Range range = new Range(i == 0 ? null : splits.get(i - 1), i == splits.size() ? null : splits.get(i));
            partitions.add(partition(i, key, type, range));
        }
        if (nulls && !splits.isEmpty()) {
            partitions.add(new Partition(partitions.size(), select() + " where " + key + " is null", parameters, null));
        }
        return partitions;
    }

    private String select() {
        return "select " + columns + " from " + from + " as q";
    }

    /** Without a condition if both ends are open, so that it has the rows whose key is NULL as well. */
    private Partition partition(int index, String key, String type, Range range) {
        List<Serializable> all = new ArrayList<>(parameters);
        StringBuilder sql = new StringBuilder(select());
        String glue = " where ";
        if (range.from() != null) {
            all.add(range.from());
            sql.append(glue)
                    .append(key)
                    .append(" >= $")
                    .append(all.size())
                    .append("::")
                    .append(type);
            glue = " and ";
        }
        if (range.to() != null) {
            all.add(range.to());
            sql.append(glue)
                    .append(key)
                    .append(" < $")
                    .append(all.size())
                    .append("::")
                    .append(type);
        }
        if (ordered && this.key != null) {
            sql.append(" order by ").append(key);
        }
        return new Partition(index, sql.toString(), all, null);
    }

    private <T> Flux<T> query(Connection connection, String sql, Function<Row, T> mapping) {
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement(sql);
                    for (int i = 0; i < parameters.size(); i++) {
                        statement.bind(i, parameters.get(i));
                    }
                    return Flux.from(statement.execute());
                })
                .concatMap(result -> result.map((row, metadata) -> mapping.apply(row)));
    }
}
