package dev.r2dbcscope.etl;

import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.postgresql.AdvisoryLock;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.Statement;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import java.util.UUID;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * The table in which jobs keep how far they have got, one row for each partition of each job. It must be in the database that the
 * job writes to, because it is changed in the same transactions. Immutable and thread-safe.
 *
 * <p>{@link #create} creates it, or run {@link #ddl()} as part of your migrations. The role of the job needs SELECT, INSERT and
 * UPDATE on it.
 */
public final class Checkpoints {

    /** Of the table's form. */
    private static final int VERSION = 1;

    private static final String DEFAULT_TABLE = "r2dbc_scope_checkpoints";
    private static final String COLUMNS = "part, position, rows_done, chunks, finished, changed_at, version";
    private static final String UNDEFINED_TABLE = "42P01";
    private static final String UNDEFINED_COLUMN = "42703";

    private final String table;

    private Checkpoints(String table) {
        this.table = table;
    }

    /**
     * Uses the table {@code r2dbc_scope_checkpoints}, which is looked for in the search path.
     *
     * @return the checkpoints in that table
     */
    public static Checkpoints defaults() {
        return inTable(DEFAULT_TABLE);
    }

    /**
     * Uses a table that is looked for in the search path.
     *
     * @param table its name as it is, not quoted
     * @return the checkpoints in that table
     * @throws IllegalArgumentException if the name is empty
     */
    public static Checkpoints inTable(String table) {
        return new Checkpoints(quoted(table, "table"));
    }

    /**
     * Uses a table of a schema.
     *
     * @param schema the name of the schema as it is, not quoted
     * @param table the name of the table as it is, not quoted
     * @return the checkpoints in that table
     * @throws IllegalArgumentException if a name is empty
     */
    public static Checkpoints inTable(String schema, String table) {
        return new Checkpoints(quoted(schema, "schema") + "." + quoted(table, "table"));
    }

    private static String quoted(String name, String parameter) {
        if (Objects.requireNonNull(name, parameter).isEmpty() || name.indexOf('\0') >= 0) {
            throw new IllegalArgumentException(parameter + " must not be empty or have the character NUL");
        }
        return '"' + name.replace("\"", "\"\"") + '"';
    }

    /**
     * Returns the statement that creates the table, version 1 of its form: {@code job} and {@code part} are its key, {@code run}
     * is who may change the row.
     *
     * @return a statement that does nothing if there is such a table
     */
    public String ddl() {
        return "create table if not exists " + table + " ("
                + "job text not null, part int not null, position text, rows_done bigint not null default 0,"
                + " chunks bigint not null default 0, finished boolean not null default false, run uuid not null,"
                + " changed_at timestamptz not null default now(), version int not null default " + VERSION
                + ", primary key (job, part))";
    }

    /**
     * Creates the table if it is not there.
     *
     * @param scopes where the connection comes from
     * @return completes when it is there
     */
    public Mono<Void> create(ConnectionScopes scopes) {
        // without the lock, two that create it at once may fail
        return AdvisoryLock.of("r2dbc-scope checkpoints")
                .forTransaction()
                .during(scopes, connection -> update(connection, ddl(), statement -> statement))
                .then();
    }

    /**
     * Reads how far a job has got.
     *
     * @param scopes where the connection comes from
     * @param job the job's name
     * @return emits a checkpoint for each of its partitions, in their order; none if it has never run. Fails with {@link
     *     CheckpointException} if there is no table
     */
    public Flux<Checkpoint> of(ConnectionScopes scopes, String job) {
        Objects.requireNonNull(job, "job");
        return scopes.withConnectionMany(connection -> read(connection, job, null, ""));
    }

    /**
     * Forgets a job, so that it begins anew the next time. A job that is running is ended by that, with its next chunk.
     *
     * @param scopes where the connection comes from
     * @param job the job's name
     * @return emits whether there was one
     */
    public Mono<Boolean> forget(ConnectionScopes scopes, String job) {
        Objects.requireNonNull(job, "job");
        return scopes.inTransaction(connection ->
                        update(connection, "delete from " + table + " where job = $1", s -> s.bind(0, job)))
                .map(count -> count > 0);
    }

    /** Says where a run goes on that has lost its connections, unless it has lost the job as well. */
    Mono<List<Checkpoint>> reclaim(Connection connection, String job, int partitions, UUID run) {
        return read(connection, job, run, " for update")
                .collectList()
                .flatMap(found ->
                        found.size() == partitions ? Mono.just(found) : Mono.error(JobRunningException.takenOver(job)));
    }

    /**
     * Makes a run the only one that may go on with a job, and says where. What an earlier run may still be committing is waited
     * for.
     */
    Mono<List<Checkpoint>> claim(Connection connection, String job, int partitions, UUID run) {
        return read(connection, job, null, " for update").collectList().flatMap(found -> {
            if (!found.isEmpty() && found.size() != partitions) {
                return Mono.error(new CheckpointException(
                        "Job \"" + job + "\" was begun with " + found.size() + " partitions and has " + partitions
                                + " now; let it finish with as many as before, give it another name, or forget it",
                        null));
            }
            return update(
                            connection,
                            "insert into " + table + " (job, part, run) select $1, part, $2 from"
                                    + " generate_series(0, $3 - 1) part on conflict (job, part) do update set run = $2",
                            s -> s.bind(0, job).bind(1, run).bind(2, partitions))
                    .thenMany(read(connection, job, run, ""))
                    .collectList();
        });
    }

    /** Notes that a chunk is committed, if the rest of its transaction is. */
    Mono<Void> advance(Connection connection, String job, int partition, UUID run, Chunk<?> chunk) {
        return change(
                connection,
                job,
                "position = $4, rows_done = $5, chunks = $6, changed_at = now()"
                        + " where job = $1 and part = $2 and run = $3 and chunks = $6 - 1",
                s -> s.bind(0, job)
                        .bind(1, partition)
                        .bind(2, run)
                        .bind(3, Objects.requireNonNull(chunk.lastPosition()))
                        .bind(4, chunk.lastRow())
                        .bind(5, chunk.number()));
    }

    /** Notes that a source has no more. */
    Mono<Void> finish(Connection connection, String job, int partition, UUID run) {
        return change(
                connection,
                job,
                "finished = true, changed_at = now() where job = $1 and part = $2 and run = $3",
                s -> s.bind(0, job).bind(1, partition).bind(2, run));
    }

    private Mono<Void> change(Connection connection, String job, String what, UnaryOperator<Statement> binding) {
        return update(connection, "update " + table + " set " + what, binding)
                .flatMap(count -> count == 1 ? Mono.empty() : Mono.error(JobRunningException.takenOver(job)));
    }

    private Flux<Checkpoint> read(Connection connection, String job, @Nullable UUID run, String lock) {
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement("select " + COLUMNS + " from " + table
                            + " where job = $1" + (run == null ? "" : " and run = $2") + " order by part" + lock);
                    statement.bind(0, job);
                    return Flux.from((run == null ? statement : statement.bind(1, run)).execute());
                })
                .concatMap(result -> result.map((row, metadata) -> checkpoint(row)))
                .onErrorMap(R2dbcException.class, this::told);
    }

    private Checkpoint checkpoint(Row row) {
        int version = value(row, "version", Integer.class);
        if (version != VERSION) {
            throw new CheckpointException(
                    "The table " + table + " has checkpoints of version " + version
                            + ", and this library writes version " + VERSION
                            + "; use the version of the library that wrote them, or another table",
                    null);
        }
        return new Checkpoint(
                value(row, "part", Integer.class),
                row.get("position", String.class),
                value(row, "rows_done", Long.class),
                value(row, "chunks", Long.class),
                value(row, "finished", Boolean.class),
                value(row, "changed_at", Instant.class));
    }

    private static <V> V value(Row row, String column, Class<V> type) {
        return Objects.requireNonNull(row.get(column, type), column);
    }

    private Throwable told(R2dbcException error) {
        return UNDEFINED_TABLE.equals(error.getSqlState()) || UNDEFINED_COLUMN.equals(error.getSqlState())
                ? new CheckpointException(
                        "There is no table " + table
                                + " of checkpoints; create it with Checkpoints.create(scopes), or by " + ddl(),
                        error)
                : error;
    }

    private static Mono<Long> update(Connection connection, String sql, UnaryOperator<Statement> binding) {
        return Flux.defer(() ->
                        Flux.from(binding.apply(connection.createStatement(sql)).execute()))
                .concatMap(Result::getRowsUpdated)
                .reduce(0L, Long::sum);
    }

    @Override
    public String toString() {
        return "Checkpoints[" + table + "]";
    }
}
