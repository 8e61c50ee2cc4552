package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.DriverTurn;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * A temporary table of one transaction, with the columns that a COPY writes and none of the target's constraints, which the
 * INSERT from here into the target is to meet.
 *
 * @param copy what is written here instead of into its own table
 * @param name the bare name
 */
record Staging<T>(CopyIn<T> copy, String name) {

    private static final AtomicLong NUMBER = new AtomicLong();

    static <T> Staging<T> of(CopyIn<T> copy) {
        return new Staging<>(copy, "r2dbc_scope_staging_" + NUMBER.incrementAndGet());
    }

    /** The table, as SQL. */
    String table() {
        return "pg_temp." + Identifiers.quoted(name, "name");
    }

    /** The columns of the target, as SQL. */
    String columns() {
        return SqlNames.quoteAll(copy.columns());
    }

    /** A column that numbers the rows from 1, as SQL: with a name that none of the others has. */
    String position() {
        String position = "r2dbc_scope_position";
        List<String> others = copy.columns();
        while (others.contains(position)) {
            position += "_";
        }
        return Identifiers.quoted(position, "name");
    }

    /** Creates the table, and writes the rows into it, except those that cannot be sent, if somebody takes them. */
    Mono<Long> fill(
            Connection connection,
            Publisher<? extends T> rows,
            String what,
            @Nullable Consumer<CopyException> leftOut) {
        return DriverTurn.take(connection, what, turn -> Mono.just(turn.isInTransaction()))
                .flatMap(inside -> inside
                        ? execute(connection, create())
                        : Mono.error(new IllegalStateException("For " + what
                                + " by COPY a transaction is needed, to which its temporary table belongs; use"
                                + " ConnectionScopes.inTransaction, or write(scopes, rows)")))
                .then(copy.writeInto(connection, rows, table(), name, leftOut));
    }

    private String create() {
        return "create temporary table " + Identifiers.quoted(name, "name") + " on commit drop as select " + columns()
                + " from " + copy.table() + " with no data; alter table " + table() + " add column " + position()
                + " bigint generated always as identity (cache 1000)";
    }

    Mono<Long> drop(Connection connection) {
        return execute(connection, "drop table " + table());
    }

    /** Code between tags that it does not contain. */
    static String block(String code) {
        StringBuilder tag = new StringBuilder("$scope$");
        while (code.contains(tag)) {
            tag.insert(1, 'x');
        }
        return "do " + tag + code + tag;
    }

    static Mono<Long> execute(Connection connection, String sql) {
        return Flux.defer(() -> Flux.from(connection.createStatement(sql).execute()))
                .concatMap(Result::getRowsUpdated)
                .reduce(0L, Long::sum);
    }
}
