package dev.r2dbcscope.postgresql;

import io.r2dbc.postgresql.api.ErrorDetails;
import io.r2dbc.postgresql.api.PostgresqlException;
import io.r2dbc.spi.R2dbcException;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * What the server says of a row that it refused, without the values that it quotes.
 *
 * <p>Its message, detail and context may all have values in them, so that no text of it is used but names that are known here
 * to be names, and the number of the row, which is in the context: {@code COPY orders, line 3, column id: "abc"}, in the
 * server's language.
 */
final class CopyErrors {

    private final String table;
    private final List<String> columns;
    private final Pattern position;

    /**
     * @param shown the table as errors name it
     * @param table its bare name, as the server names it
     */
    CopyErrors(String shown, String table, List<String> columns) {
        this.table = shown;
        this.columns = columns;
        this.position =
                Pattern.compile("^.{0,20}?" + Pattern.quote(table) + "\\S{0,3}\\P{N}{1,20}?(\\d+)", Pattern.MULTILINE);
    }

    /** The error of a COPY as its subscriber gets it. */
    Throwable told(R2dbcException error) {
        if (!(error instanceof PostgresqlException answer) || !isAboutData(answer.getErrorDetails(), error)) {
            return error;
        }
        ErrorDetails details = answer.getErrorDetails();
        String where = details.getWhere().orElse("");
        Matcher found = position.matcher(where);
        boolean placed = found.find();
        String column = details.getColumnName().orElse(null);
        if (column == null && placed) {
            column = column(where.substring(found.end()));
        }
        return CopyException.refused(
                problem(error.getSqlState()) + constraint(details) + " (SQLSTATE " + error.getSqlState()
                        + "); the server's own words are in the cause",
                table,
                placed ? number(found.group(1)) : 0,
                column,
                details.getConstraintName().orElse(null),
                error);
    }

    private static boolean isAboutData(ErrorDetails details, R2dbcException error) {
        String sqlState = error.getSqlState();
        return "ERROR".equals(details.getSeverityNonLocalized()) && sqlState != null && !sqlState.startsWith("08");
    }

    private static long number(String digits) {
        return digits.length() > 18 ? 0 : Long.parseLong(digits);
    }

    /** The column at the beginning of what follows the number: a comma, a word, its name, and a colon or the end. */
    private @Nullable String column(String rest) {
        String longest = null;
        for (String name : columns) {
            int at = rest.indexOf(name);
            boolean there = at > 0
                    && at <= 20
                    && (at + name.length() == rest.length()
                            || !Character.isLetterOrDigit(rest.charAt(at + name.length())));
            if (there && (longest == null || name.length() > longest.length())) {
                longest = name;
            }
        }
        return longest;
    }

    private static String constraint(ErrorDetails details) {
        return details.getConstraintName().map(name -> " " + name).orElse("");
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
