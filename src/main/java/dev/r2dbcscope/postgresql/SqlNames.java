package dev.r2dbcscope.postgresql;

import java.util.Collection;
import java.util.Locale;
import java.util.Objects;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Lists of names, and names of types, that become part of a statement's text and nothing more than that. */
final class SqlNames {

    private static final String PART = "(?:\"(?:[^\"\\x00]|\"\")+\"|[\\p{L}_][\\p{L}\\p{N}_$]*)";
    private static final Pattern TYPE = Pattern.compile(PART + "(?:(?: |\\.)" + PART + ")*");

    private SqlNames() {}

    static String quoteAll(Collection<String> names) {
        return names.stream().map(name -> Identifiers.quoted(name, "name")).collect(Collectors.joining(", "));
    }

    /**
     * The name of the type of an array's elements. Types that mean "of length 1" without a length are replaced by those of any
     * length: a cast to them would cut values off, while storing a value that is too long is an error.
     */
    static String type(String type) {
        String name = Objects.requireNonNull(type, "type").strip().replaceAll("\\s+", " ");
        if (!TYPE.matcher(name).matches()) {
            throw new IllegalArgumentException("\"" + type + "\" is not the name of a type; leave out the length or"
                    + " precision, because that of the table's column applies");
        }
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "char", "character" -> "bpchar";
            case "bit" -> "bit varying";
            default -> name;
        };
    }
}
