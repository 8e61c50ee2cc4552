package dev.r2dbcscope.postgresql;

import java.util.Locale;
import java.util.Set;

/**
 * Tells which statements {@code DECLARE CURSOR} takes: one {@code SELECT}, {@code VALUES}, {@code TABLE} or {@code WITH} that
 * changes nothing. A statement that is refused by the server aborts the transaction, so in doubt the answer is no.
 */
final class CursorQueries {

    private static final Set<String> QUERIES = Set.of("select", "values", "table", "with");
    private static final Set<String> CHANGES = Set.of("insert", "update", "delete", "merge");

    private static final Set<String> LOCKS = Set.of("update", "no", "share", "key");

    private static final Set<String> SORTS = Set.of("order", "limit", "offset", "fetch");

    private CursorQueries() {}

    /** Whether it is such a statement; a holdable cursor takes none that locks rows. */
    static boolean canRead(String sql, boolean holdable) {
        SqlTokens tokens = new SqlTokens(sql);
        String before = "";
        boolean first = true;
        boolean with = false;
        for (String token = tokens.next(); token != null; token = tokens.next()) {
            String word = token.toLowerCase(Locale.ROOT);
            if (first) {
                if (word.equals("(")) {
                    continue;
                }
                if (!QUERIES.contains(word)) {
                    return false;
                }
                first = false;
                with = word.equals("with");
            } else if (word.equals(";")) {
                return tokens.next() == null;
            } else if (word.equals("into")
                    || with && CHANGES.contains(word) && !isPartOfAName(before) && !locks(before)
                    || holdable && before.equals("for") && LOCKS.contains(word)) {
                return false;
            }
            before = word;
        }
        return !first;
    }

    /** Whether the outermost query sorts or cuts off its rows. */
    static boolean sortsOrLimits(String sql) {
        SqlTokens tokens = new SqlTokens(sql);
        String before = "";
        int depth = 0;
        for (String token = tokens.next(); token != null; token = tokens.next()) {
            String word = token.toLowerCase(Locale.ROOT);
            if (word.equals("(") || word.equals(")")) {
                depth += word.equals("(") ? 1 : -1;
            } else if (depth == 0 && SORTS.contains(word) && !isPartOfAName(before) && !before.equals("as")) {
                return true;
            }
            before = word;
        }
        return false;
    }

    /** {@code t.update} */
    private static boolean isPartOfAName(String before) {
        return before.equals(".");
    }

    /** {@code FOR UPDATE} and {@code FOR NO KEY UPDATE}. */
    private static boolean locks(String before) {
        return before.equals("for") || before.equals("key");
    }

    /** The statement without what ends it. */
    static String withoutSemicolon(String sql) {
        SqlTokens tokens = new SqlTokens(sql);
        for (String token = tokens.next(); token != null; token = tokens.next()) {
            if (token.equals(";")) {
                return sql.substring(0, tokens.start());
            }
        }
        return sql;
    }
}
