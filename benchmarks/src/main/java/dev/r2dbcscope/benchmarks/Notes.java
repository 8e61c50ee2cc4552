package dev.r2dbcscope.benchmarks;

import java.util.concurrent.ThreadLocalRandom;

/** The table from which single rows are read. */
final class Notes {

    static final String SELECT = "select note from notes where id = $1";

    private static final int ROWS = 100_000;

    private Notes() {}

    static void create(Server server) {
        server.execute("create table notes (id int primary key, note text)");
        server.execute("insert into notes select i, 'note ' || i from generate_series(1, " + ROWS + ") i");
        server.execute("vacuum analyze notes");
    }

    static int anyId() {
        return ThreadLocalRandom.current().nextInt(ROWS) + 1;
    }

    /** The note, if it is that of the id. */
    static String require(int id, String note) {
        if (!("note " + id).equals(note)) {
            throw new IllegalStateException("The note of " + id + " is '" + note + "'");
        }
        return note;
    }
}
