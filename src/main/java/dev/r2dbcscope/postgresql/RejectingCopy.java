package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Readable;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Writes rows by COPY, and leaves out those that the table does not accept, instead of failing. Immutable and thread-safe.
 *
 * <pre>{@code
 * Mono<RejectingCopy.Outcome> outcome =
 *         scopes.inTransaction(connection -> RejectingCopy.of(copy).write(connection, rows));
 * }</pre>
 *
 * <p>The rows are copied into a temporary table, and from there inserted by the server. When the INSERT fails at a row, those
 * before it are inserted again without it, and the rest after it; so a row is inserted twice at most, however many are rejected.
 * Where an error is only found at the end of a statement, as a violated foreign key is, each row of that statement is
 * inserted by itself. Without rejects it takes the server about half as long again as a plain {@link CopyIn}, which it needs
 * to have its rows in a temporary table first.
 *
 * <p>Rejected are rows with an error of SQLSTATE class 22 (data), 23 (constraints), 44 (a view's check option) and P0 (what
 * triggers raise); deferred constraints are checked at once. So are rows that PostgreSQL cannot store, and which are not even
 * sent, such as one with the character NUL in a text, with SQLSTATE 22023. Other errors are errors of the whole, and so is a
 * value that the type of its column, a domain, does not allow.
 *
 * @param <T> the type of the rows
 */
public final class RejectingCopy<T> {

    /** Invalid parameter value, of class 22 as all that is about data. */
    private static final String CANNOT_BE_SENT = "22023";

    private final CopyIn<T> copy;

    private RejectingCopy(CopyIn<T> copy) {
        this.copy = copy;
    }

    /**
     * What became of the rows.
     *
     * @param written how many the server wrote
     * @param rejected the others, in their order
     */
    public record Outcome(long written, List<RejectedRow> rejected) {

        /**
         * Makes one.
         *
         * @param written how many the server wrote
         * @param rejected the others, in their order
         */
        public Outcome {
            rejected = List.copyOf(rejected);
        }
    }

    /**
     * Makes one of a COPY.
     *
     * @param copy the table, its columns, and how their values are written
     * @param <T> the type of the rows
     * @return the copy that leaves rows out
     */
    public static <T> RejectingCopy<T> of(CopyIn<T> copy) {
        return new RejectingCopy<>(Objects.requireNonNull(copy, "copy"));
    }

    /**
     * Writes rows with a connection that is in a transaction, to which the temporary table belongs.
     *
     * <p>Endings and demand are those of {@link CopyIn#write(Connection, Publisher)}. All rejected rows are in memory at the end,
     * so choose how many rows to write at once.
     *
     * @param connection the connection of a scope, in a transaction
     * @param rows the rows, subscribed to once for each subscription
     * @return emits what became of them. Fails with {@link IllegalStateException} outside a transaction, with {@link
     *     CopyException} if a row cannot be copied, and with the source's, the driver's or the scope's error otherwise; the
     *     transaction is unusable then
     */
    public Mono<Outcome> write(Connection connection, Publisher<? extends T> rows) {
        Objects.requireNonNull(connection, "connection");
        Objects.requireNonNull(rows, "rows");
        return Mono.defer(() -> {
            Staging<T> staging = Staging.of(copy);
            List<RejectedRow> unsent = new ArrayList<>();
            return staging.fill(connection, rows, "the copy into " + copy.table(), row -> unsent.add(unsent(row)))
                    .then(insert(connection, staging))
                    .map(outcome -> merged(outcome, unsent))
                    .delayUntil(outcome -> staging.drop(connection));
        });
    }

    private Mono<Outcome> insert(Connection connection, Staging<T> staging) {
        String rejects = "pg_temp." + Identifiers.quoted(staging.name() + "_rejects", "name");
        String counter = "pg_temp." + Identifiers.quoted(staging.name() + "_counter", "name");
        String sql = "create temporary table " + bare(rejects)
                + " (row_number bigint, state text, message text, detail text, column_name text, constraint_name text)"
                + " on commit drop; create temporary sequence " + bare(counter) + "; "
                + Staging.block(code(staging, rejects, counter))
                + "; select 0::bigint, null::text, pg_catalog.current_setting('r2dbc_scope.written'), null::text, null::text,"
                + " null::text union all select * from " + rejects + " order by 1; drop table " + rejects
                + "; drop sequence " + counter;
        return Flux.defer(() -> Flux.from(connection.createStatement(sql).execute()))
                .concatMap(result -> result.map(RejectingCopy::row))
                .collectList()
                .map(all -> new Outcome(Long.parseLong(all.get(0).message()), all.subList(1, all.size())));
    }

    private static RejectedRow unsent(CopyException error) {
        return new RejectedRow(
                error.row(), CANNOT_BE_SENT, String.valueOf(error.getMessage()), null, error.column(), null);
    }

    /** The server has counted only the rows that it got. */
    private static Outcome merged(Outcome outcome, List<RejectedRow> unsent) {
        List<RejectedRow> all =
                new ArrayList<>(unsent.size() + outcome.rejected().size());
        int before = 0;
        for (RejectedRow row : outcome.rejected()) {
            while (before < unsent.size() && unsent.get(before).row() <= row.row() + before) {
                all.add(unsent.get(before++));
            }
            all.add(row.behind(before));
        }
        all.addAll(unsent.subList(before, unsent.size()));
        return new Outcome(outcome.written(), all);
    }

    private static String bare(String temporary) {
        return temporary.substring(temporary.indexOf('.') + 1);
    }

    private static RejectedRow row(Readable row) {
        @Nullable Long number = row.get(0, Long.class);
        @Nullable String state = row.get(1, String.class);
        @Nullable String message = row.get(2, String.class);
        return new RejectedRow(
                number == null ? 0 : number,
                state == null ? "" : state,
                message == null ? "" : message,
                known(row.get(3, String.class)),
                known(row.get(4, String.class)),
                known(row.get(5, String.class)));
    }

    /** PL/pgSQL has nothing for what it does not know. */
    private static @Nullable String known(@Nullable String text) {
        return text == null || text.isEmpty() ? null : text;
    }

    /**
     * A sequence tells which row the INSERT has come to, because it is the one thing that is not rolled back. The subquery sorts
     * before the sequence is asked, and gives the INSERT one row after the other.
     */
    private String code(Staging<T> staging, String rejects, String counter) {
        String position = staging.position();
        String into =
                "insert into " + copy.table() + " (" + staging.columns() + ") select " + staging.columns() + " from ";
        String from = into + staging.table() + " where " + position;
        String count = "get diagnostics r2dbc_scope_count = row_count;"
                + " r2dbc_scope_written := r2dbc_scope_written + r2dbc_scope_count; ";
        String blame =
                "get stacked diagnostics r2dbc_scope_state = returned_sqlstate, r2dbc_scope_message = message_text,"
                        + " r2dbc_scope_detail = pg_exception_detail, r2dbc_scope_column = column_name,"
                        + " r2dbc_scope_constraint = constraint_name;"
                        + " if left(r2dbc_scope_state, 2) not in ('22', '23', '44', 'P0') then raise; end if; ";
        String reject = "insert into " + rejects + " values (%s, r2dbc_scope_state, r2dbc_scope_message,"
                + " r2dbc_scope_detail, r2dbc_scope_column, r2dbc_scope_constraint); ";
        return "\n#variable_conflict use_column\ndeclare r2dbc_scope_at bigint := 1; r2dbc_scope_last bigint;"
                + " r2dbc_scope_bad bigint; r2dbc_scope_count bigint;"
                + " r2dbc_scope_written bigint := 0; r2dbc_scope_sorted boolean := false; r2dbc_scope_state text;"
                + " r2dbc_scope_message text; r2dbc_scope_detail text; r2dbc_scope_column text;"
                + " r2dbc_scope_constraint text; begin set constraints all immediate; "
                + "select max(" + position + ") into r2dbc_scope_last from " + staging.table() + "; "
                + "while r2dbc_scope_at <= r2dbc_scope_last loop "
                // all that is left
                + "begin perform pg_catalog.setval('" + counter.replace("'", "''") + "', r2dbc_scope_at, false); "
                + into + "(select * from " + staging.table() + " where " + position + " >= r2dbc_scope_at order by "
                + position + " offset 0) staged where pg_catalog.nextval('" + counter.replace("'", "''")
                + "') is not null; " + count + "exit; exception when others then " + blame + "end; "
                + "r2dbc_scope_bad := pg_catalog.currval('" + counter.replace("'", "''") + "'); "
                + "if not r2dbc_scope_sorted then alter table " + staging.table() + " add primary key (" + position
                + "); r2dbc_scope_sorted := true; end if; "
                // all before the one that it has come to, which is to blame if they are good together
                + "begin " + from + " >= r2dbc_scope_at and " + position + " < r2dbc_scope_bad order by " + position
                + "; "
                + count + String.format(reject, "r2dbc_scope_bad")
                // or each by itself
                + "exception when others then for r2dbc_scope_row in r2dbc_scope_at .. r2dbc_scope_bad loop begin "
                + from + " = r2dbc_scope_row; " + count + "exception when others then " + blame
                + String.format(reject, "r2dbc_scope_row") + "end; end loop; end; "
                + "r2dbc_scope_at := r2dbc_scope_bad + 1; end loop; "
                + "perform pg_catalog.set_config('r2dbc_scope.written', r2dbc_scope_written::text, true); end ";
    }

    @Override
    public String toString() {
        return "RejectingCopy[" + copy + "]";
    }
}
