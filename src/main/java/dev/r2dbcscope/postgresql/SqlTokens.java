package dev.r2dbcscope.postgresql;

import org.jspecify.annotations.Nullable;

/**
 * The words and signs of a statement, without its comments; constants and quoted identifiers are one sign each. Lexical rules:
 * PostgreSQL documentation, "SQL Syntax", 4.1, with {@code standard_conforming_strings} on.
 */
final class SqlTokens {

    /** Stands for a constant or a quoted identifier. */
    static final String QUOTED = "'";

    private final String sql;
    private int position;
    private int start;

    SqlTokens(String sql) {
        this.sql = sql;
    }

    /** Where the last one begins. */
    int start() {
        return start;
    }

    /** The next word, or sign of one character; {@code null} at the end. */
    @Nullable
    String next() {
        skipBlanks();
        if (position >= sql.length()) {
            return null;
        }
        start = position;
        char c = sql.charAt(position);
        if (c == '\'' || c == '"') {
            skipQuoted(c, false);
            return QUOTED;
        }
        if (isWordStart(c)) {
            return word();
        }
        if (c == '$' && skipDollarQuoted()) {
            return QUOTED;
        }
        position++;
        return String.valueOf(c);
    }

    private String word() {
        int from = position;
        while (position < sql.length() && isWordPart(sql.charAt(position))) {
            position++;
        }
        String word = sql.substring(from, position);
        if (word.equalsIgnoreCase("e") && position < sql.length() && sql.charAt(position) == '\'') {
            skipQuoted('\'', true);
            return QUOTED;
        }
        return word;
    }

    private void skipBlanks() {
        while (position < sql.length()) {
            if (Character.isWhitespace(sql.charAt(position))) {
                position++;
            } else if (sql.startsWith("--", position)) {
                skipLine();
            } else if (sql.startsWith("/*", position)) {
                skipComment();
            } else {
                return;
            }
        }
    }

    private void skipLine() {
        while (position < sql.length() && sql.charAt(position) != '\n' && sql.charAt(position) != '\r') {
            position++;
        }
    }

    /** Comments nest. */
    private void skipComment() {
        int depth = 0;
        do {
            if (sql.startsWith("/*", position)) {
                depth++;
                position += 2;
            } else if (sql.startsWith("*/", position)) {
                depth--;
                position += 2;
            } else {
                position++;
            }
        } while (depth > 0 && position < sql.length());
    }

    private void skipQuoted(char quote, boolean escapes) {
        position++;
        while (position < sql.length()) {
            char c = sql.charAt(position);
            position++;
            if (escapes && c == '\\') {
                position++;
            } else if (c == quote) {
                if (position < sql.length() && sql.charAt(position) == quote) {
                    position++;
                } else {
                    return;
                }
            }
        }
    }

    private boolean skipDollarQuoted() {
        int end = position + 1;
        while (end < sql.length() && isWordPart(sql.charAt(end)) && sql.charAt(end) != '$') {
            end++;
        }
        boolean isTag = end < sql.length()
                && sql.charAt(end) == '$'
                && (end == position + 1 || isWordStart(sql.charAt(position + 1)));
        if (!isTag) {
            return false;
        }
        String tag = sql.substring(position, end + 1);
        int close = sql.indexOf(tag, end + 1);
        position = close < 0 ? sql.length() : close + tag.length();
        return true;
    }

    private static boolean isWordStart(char c) {
        return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80;
    }

    private static boolean isWordPart(char c) {
        return isWordStart(c) || c >= '0' && c <= '9' || c == '$';
    }
}
