package dev.r2dbcscope.postgresql;

import java.util.Objects;

/** Names in SQL text. */
final class Identifiers {

    private Identifiers() {}

    /** A name between quotes, so that it means what it says whatever characters it has. */
    static String quoted(String name, String parameter) {
        if (Objects.requireNonNull(name, parameter).isEmpty() || name.indexOf('\0') >= 0) {
            throw new IllegalArgumentException(parameter + " must not be empty or have the character NUL");
        }
        return '"' + name.replace("\"", "\"\"") + '"';
    }
}
