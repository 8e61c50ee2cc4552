package dev.r2dbcscope;

import java.util.Objects;
import java.util.regex.Pattern;

/**
 * The names of savepoints that code inside a scope sets by way of the SPI. Drivers make them part of SQL text as they are
 * (r2dbc-postgresql does), so a name that is more than one name would be a statement of whoever chose it.
 */
final class SavepointNames {

    /** A plain identifier, or one between the quotes of one database or the other. */
    private static final Pattern NAME =
            Pattern.compile("[\\p{L}\\p{N}_][\\p{L}\\p{N}_$]*|\"(?:[^\"\\x00]|\"\")+\"|`(?:[^`\\x00]|``)+`");

    private SavepointNames() {}

    /** Throws {@link IllegalArgumentException} if it is something else than a name. */
    static void require(String name) {
        if (!NAME.matcher(Objects.requireNonNull(name, "name")).matches()) {
            throw new IllegalArgumentException(
                    "name must consist of letters, digits, underscores and dollar signs, or stand between quotes: \""
                            + name + "\"");
        }
    }
}
