package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.ConnectionScopes;
import io.r2dbc.spi.Connection;
import java.util.List;
import java.util.Objects;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Writes rows by COPY into a table where some of them may be already: they are copied into a temporary table, and written
 * from there by one statement. Immutable and thread-safe.
 *
 * <pre>{@code
 * CopyIn<Price> prices = CopyIn.<Price>into("prices")
 *         .column("id", CopyType.BIGINT, Price::id)
 *         .column("amount", CopyType.NUMERIC, Price::amount);
 * Mono<Long> written = CopyUpsert.of(prices, OnConflict.doUpdate("id")).write(scopes, rows);
 * }</pre>
 *
 * <p>That is one statement for all rows, so {@link OnConflict#withDuplicates duplicates} are found among all of them; rows whose
 * key holds NULL are no duplicates. For a few thousand rows {@link UnnestWriter} has fewer round trips.
 *
 * @param <T> a row
 * @see UnnestWriter for batches, which may read their source on the same connection
 */
public final class CopyUpsert<T> {

    private static final Pattern MAJOR = Pattern.compile("(\\d{1,4})");

    private final CopyIn<T> copy;
    private final OnConflict onConflict;

    private CopyUpsert(CopyIn<T> copy, OnConflict onConflict) {
        this.copy = copy;
        this.onConflict = onConflict;
    }

    /**
     * Makes an upsert of a COPY.
     *
     * @param copy the table, its columns, and how their values are written
     * @param onConflict what becomes of rows whose key is in the table already
     * @param <T> a row
     * @return the upsert
     * @throws IllegalStateException if what is to be done on a conflict does not fit the columns
     */
    public static <T> CopyUpsert<T> of(CopyIn<T> copy, OnConflict onConflict) {
        Objects.requireNonNull(copy, "copy");
        Objects.requireNonNull(onConflict, "onConflict").clause(copy.columns());
        return new CopyUpsert<>(copy, onConflict);
    }

    /**
     * Writes rows in one transaction, which joins the current one by the rules of {@link ConnectionScopes#inTransaction}.
     *
     * @param scopes where the connection comes from
     * @param rows the rows, subscribed to inside the transaction
     * @return as {@link #write(Connection, Publisher)}, after the commit if it has not joined
     */
    public Mono<Long> write(ConnectionScopes scopes, Publisher<? extends T> rows) {
        Objects.requireNonNull(rows, "rows");
        return scopes.inTransaction(connection -> write(connection, rows));
    }

    /**
     * Writes rows with a connection that is in a transaction, to which the temporary table belongs.
     *
     * <p>Endings and demand are those of {@link CopyIn#write(Connection, Publisher)}; an error leaves the transaction unusable.
     *
     * @param connection the connection of a scope, in a transaction
     * @param rows the rows, subscribed to once for each subscription
     * @return emits the number of rows that were inserted or updated. Fails with {@link IllegalStateException} outside a
     *     transaction, with {@link CopyException} if a row cannot be copied, with {@link BulkWriteException} if the table does
     *     not accept them, and with the source's, the driver's or the scope's error otherwise.
     */
    public Mono<Long> write(Connection connection, Publisher<? extends T> rows) {
        Objects.requireNonNull(connection, "connection");
        Objects.requireNonNull(rows, "rows");
        return Mono.defer(() -> {
            Staging<T> staging = Staging.of(copy);
            return staging.fill(connection, rows, "the upsert of " + copy.table(), null)
                    .flatMap(copied -> upsert(connection, staging.table(), staging.position())
                            .onErrorMap(e -> BulkWriteException.ofServer(copy.table(), 1, copied, e)))
                    .delayUntil(written -> staging.drop(connection));
        });
    }

    /**
     * MERGE costs the server about two thirds of what INSERT ... ON CONFLICT does, but fails on a key that another transaction
     * inserts at the same time. Then INSERT does it all over. Since MERGE fails on a key that comes twice as well, sorting for
     * duplicates is left to that INSERT; under a condition it would not always fail.
     */
    private Mono<Long> upsert(Connection connection, String temporary, String position) {
        String insert = insert(select(temporary, position));
        if (!onConflict.updates() || !knowsMerge(connection)) {
            return Staging.execute(connection, insert);
        }
        return Flux.defer(() -> Flux.from(connection
                        .createStatement(mergeOr(insert, temporary, position))
                        .execute()))
                .concatMap(result -> result.map((row, metadata) -> row.get(0, Long.class)))
                .single();
    }

    /** A block of code, because the driver does not read how many rows a MERGE has written. */
    private String mergeOr(String insert, String temporary, String position) {
        String count = "get diagnostics r2dbc_scope_written = row_count; ";
        // without rows, the INSERT checks that there is a unique index of the key
        String block = "\n#variable_conflict use_column\ndeclare r2dbc_scope_written bigint; begin "
                + insert("select " + columns() + " from " + temporary + " limit 0") + "; begin "
                + merge(onConflict.isConditional() ? "(" + select(temporary, position) + ")" : temporary) + "; " + count
                + "exception when unique_violation or cardinality_violation then " + insert + "; " + count + "end; "
                + "perform pg_catalog.set_config('r2dbc_scope.written', r2dbc_scope_written::text, true); end ";
        return Staging.block(block) + "; select pg_catalog.current_setting('r2dbc_scope.written')::bigint";
    }

    private static boolean knowsMerge(Connection connection) {
        Matcher major = MAJOR.matcher(connection.getMetadata().getDatabaseVersion());
        return major.lookingAt() && Integer.parseInt(major.group(1)) >= 15;
    }

    private String columns() {
        return SqlNames.quoteAll(copy.columns());
    }

    private String insert(String select) {
        return "insert into " + copy.table() + " as target (" + columns() + ") " + select
                + onConflict.clause(copy.columns());
    }

    private String merge(String source) {
        String same = onConflict.key().stream()
                .map(column -> Identifiers.quoted(column, "column"))
                .map(column -> "target." + column + " = excluded." + column)
                .collect(Collectors.joining(" and "));
        String values = copy.columns().stream()
                .map(column -> "excluded." + Identifiers.quoted(column, "column"))
                .collect(Collectors.joining(", "));
        return "merge into " + copy.table() + " as target using " + source + " as excluded on " + same + " "
                + onConflict.matched(copy.columns()) + " when not matched then insert (" + columns() + ") values ("
                + values + ")";
    }

    private String select(String temporary, String position) {
        String columns = columns();
        Duplicates duplicates = onConflict.duplicates();
        if (!onConflict.updates()) {
            return "select " + columns + " from " + temporary + " order by " + position;
        }
        if (duplicates == Duplicates.FAIL) {
            return "select " + columns + " from " + temporary;
        }
        String key = SqlNames.quoteAll(onConflict.key()) + ", " + unlessKnown(onConflict.key(), position);
        return "select distinct on (" + key + ") " + columns + " from " + temporary + " order by " + key + ", "
                + position + (duplicates == Duplicates.KEEP_LAST ? " desc" : "");
    }

    /** DISTINCT takes NULLs for equal, which a unique index does not. */
    private static String unlessKnown(List<String> key, String position) {
        return key.stream()
                .map(column -> Identifiers.quoted(column, "column") + " is null")
                .collect(Collectors.joining(" or ", "case when ", " then " + position + " end"));
    }

    @Override
    public String toString() {
        return "CopyUpsert[" + copy + ", " + onConflict + "]";
    }
}
