package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.KeysetRead;
import io.r2dbc.pool.ConnectionPool;
import io.r2dbc.pool.ConnectionPoolConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionConfiguration;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import java.util.List;
import java.util.Objects;
import java.util.stream.IntStream;

/** A process that copies the table {@code killed_source} to {@code killed_target}, says so for each chunk, and may be killed. */
final class KilledJob {

    static final int ROWS = 40_000;
    static final int PARTITIONS = 2;

    private KilledJob() {}

    private record Item(long id, String note) {}

    public static void main(String[] args) {
        ConnectionPool pool = new ConnectionPool(ConnectionPoolConfiguration.builder(
                        new PostgresqlConnectionFactory(PostgresqlConnectionConfiguration.builder()
                                .host("localhost")
                                .port(Integer.parseInt(args[0]))
                                .username("postgres")
                                .password("postgres")
                                .database("postgres")
                                .build()))
                .initialSize(0)
                .maxSize(4)
                .build());
        job(ConnectionScopes.of(pool), Boolean.parseBoolean(args[1]))
                .run(ConnectionScopes.of(pool))
                .doOnNext(chunk -> say("chunk " + chunk.partition() + " " + chunk.number()))
                .blockLast();
        pool.disposeLater().block();
        say("done");
    }

    private static EtlJob<Item> job(ConnectionScopes source, boolean takeover) {
        CopyIn<Item> copy = CopyIn.<Item>into("killed_target")
                .column("id", CopyType.BIGINT, Item::id)
                .column("note", CopyType.TEXT, Item::note);
        List<Source<Item>> partitions = IntStream.range(0, PARTITIONS)
                .mapToObj(i -> Source.<Item>of(
                        KeysetRead.ofQuery(
                                        "select id, note from killed_source where id % " + PARTITIONS + " = " + i, "id")
                                .withPageSize(1_000),
                        source,
                        row -> new Item(
                                Objects.requireNonNull(row.get("id", Long.class)),
                                Objects.requireNonNull(row.get("note", String.class)))))
                .toList();
        return EtlJob.ofPartitions(
                        "killed",
                        partitions,
                        ChunkWriter.to(ChunkSink.of(copy)).withMaxRows(500).withConcurrency(PARTITIONS))
                .withTakeover(takeover);
    }

    private static void say(String words) {
        System.out.println(words);
        System.out.flush();
    }
}
