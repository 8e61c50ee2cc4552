package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Statement;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;

/**
 * What an advisory lock is on, and how: the key and the form, but not the level.
 *
 * @param value the number, or both numbers of a pair, the first one in the upper half
 * @param pair whether it is a pair; those have a key space of their own
 * @param shared whether others may hold it as well
 */
record LockKey(long value, boolean pair, boolean shared) {

    LockKey asShared() {
        return new LockKey(value, pair, true);
    }

    /** The function in words, without the key: it is a value. */
    String words(String verb) {
        return "pg_" + verb + (shared ? "_shared" : "");
    }

    /** A call of one of the functions with this key, with the rest of the statement behind it. */
    Statement call(Connection connection, String verb, String rest) {
        String sql = "select pg_catalog." + words(verb) + (pair ? "($1, $2)" : "($1)") + rest;
        return bind(connection.createStatement(sql));
    }

    /** Whether the database's session holds it, which does not say how often. */
    Statement isHeld(Connection connection) {
        String upper = pair ? "$1" : "(($1 >> 32) & 4294967295)";
        String lower = pair ? "$2" : "($1 & 4294967295)";
        return bind(
                connection.createStatement("select exists (select from pg_catalog.pg_locks where locktype = 'advisory'"
                        + " and granted and pid = pg_catalog.pg_backend_pid() and mode = '"
                        + (shared ? "ShareLock" : "ExclusiveLock") + "' and objsubid = " + (pair ? 2 : 1)
                        + " and classid::bigint = " + unsigned(upper) + " and objid::bigint = " + unsigned(lower)
                        + ")"));
    }

    /** The functions that wait return {@code void}, which is a row with an empty text. */
    static Flux<Boolean> answers(Statement statement) {
        return Flux.from(statement.execute()).flatMap(result -> result.map(row -> !isFalse(row.get(0))));
    }

    private static boolean isFalse(@Nullable Object answer) {
        return Boolean.FALSE.equals(answer);
    }

    private static String unsigned(String number) {
        return "(" + number + "::bigint & 4294967295)";
    }

    private Statement bind(Statement statement) {
        return pair ? statement.bind(0, (int) (value >>> 32)).bind(1, (int) value) : statement.bind(0, value);
    }
}
