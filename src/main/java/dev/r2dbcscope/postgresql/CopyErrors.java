package dev.r2dbcscope.postgresql;

import io.r2dbc.postgresql.api.ErrorDetails;
import io.r2dbc.postgresql.api.PostgresqlException;
import io.r2dbc.spi.R2dbcException;
import java.util.Comparator;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * What the server says of a row that it refused, without the values that it quotes.
 *
 * <p>Its message, detail and context may all have values in them, so no text of it is used but names that are known to be names,
 * and the number of the row, which is in the context: {@code COPY orders, line 3, column id: "abc"}, in the
 * server's language.
 */
final class CopyErrors {

    private static final Pattern NUMBER = Pattern.compile("\\d+");
    private static final Pattern WORD_BEFORE_COLUMN = Pattern.compile("^[,\u3001\uff0c]\\s*\\S+\\s+");

    /** Longer numbers are none of a row. */
    private static final int LONGEST_NUMBER = 18;

    private final String table;
    private final String bareTable;
    private final List<String> columns;

    /** Where a row is, as far as the server says it; 0 and {@code null} where it does not. */
    record Place(long row, @Nullable String column) {}

    /**
     * @param table the table as errors name it
     * @param bareTable the name without a schema, as the server's context has it
     */
    CopyErrors(String table, String bareTable, List<String> columns) {
        this.table = table;
        this.bareTable = bareTable;
        this.columns = columns;
    }

    /** The error of a COPY as its subscriber gets it. */
    Throwable told(R2dbcException error) {
        if (!(error instanceof PostgresqlException answer) || !isAboutData(answer.getErrorDetails(), error)) {
            return error;
        }
        ErrorDetails details = answer.getErrorDetails();
        Place place = place(details.getWhere().orElse(""));
        return CopyException.refused(
                problem(error.getSqlState())
                        + details.getConstraintName().map(name -> " " + name).orElse("")
                        + " (SQLSTATE " + error.getSqlState() + "); the server's own words are in the cause",
                table,
                place.row(),
                details.getColumnName().orElse(place.column()),
                details.getConstraintName().orElse(null),
                error);
    }

    private static boolean isAboutData(ErrorDetails details, R2dbcException error) {
        String sqlState = error.getSqlState();
        return "ERROR".equals(details.getSeverityNonLocalized()) && sqlState != null && !sqlState.startsWith("08");
    }

    /** Reads the context, whose entries are lines: those of triggers come before that of COPY, and a value may have lines, too. */
    Place place(String context) {
        String usual = "COPY " + bareTable + ",";
        List<String> lines = context.lines().toList();
        for (String line : lines) {
            if (line.startsWith(usual)) {
                return place(line, usual.length());
            }
        }
        for (String line : lines) {
            int at = line.indexOf(bareTable);
            if (at >= 0 && line.contains("COPY")) {
                return place(line, at + bareTable.length());
            }
        }
        return new Place(0, null);
    }

    private Place place(String line, int from) {
        Matcher number = NUMBER.matcher(line);
        if (!number.find(from) || number.group().length() > LONGEST_NUMBER) {
            return new Place(0, null);
        }
        return new Place(Long.parseLong(number.group()), column(line.substring(number.end())));
    }

    /** A comma, a word, and the name, if the column is told; what follows may be the value. */
    private @Nullable String column(String rest) {
        Matcher word = WORD_BEFORE_COLUMN.matcher(rest);
        if (!word.find()) {
            return null;
        }
        String told = rest.substring(word.end());
        return columns.stream()
                .filter(name -> told.equals(name) || told.startsWith(name + ":") || told.startsWith(name + "\uff1a"))
                .max(Comparator.comparing(String::length))
                .orElse(null);
    }

    private static String problem(@Nullable String sqlState) {
        if (sqlState == null) {
            return "the server refused it";
        }
        return switch (sqlState) {
            case "23505" -> "the row violates the unique constraint";
            case "23503" -> "the row violates the foreign key";
            case "23502" -> "the column must not be null";
            case "23514" -> "the row violates the check constraint";
            case "23P01" -> "the row violates the exclusion constraint";
            case "22001" -> "the text is longer than its column allows";
            case "22003" -> "the number is outside the range of its column";
            case "22008" -> "the date or time is outside the range of its column";
            case "22P02" -> "the text is no value of its column's type";
            case "22P03" -> "the value is not of its column's type; write what the column is, or use CopyFormat.TEXT";
            case "40001", "40P01" -> "the transaction was in the way of another one";
            case "42501" -> "the role lacks the privilege";
            case "42P01" -> "the table does not exist";
            case "42703" -> "a column does not exist";
            default -> "the server refused it";
        };
    }
}
