package dev.r2dbcscope.postgresql;

import dev.r2dbcscope.SqlEffect;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Tells what statements do to their transaction or their session by their first words. */
final class SqlEffects {

    /** As many words as are needed to tell; a statement's text may be long. */
    private static final int WORDS = 4;

    private SqlEffects() {}

    static SqlEffect of(String sql) {
        SqlTokens tokens = new SqlTokens(sql);
        SqlEffect weightiest = SqlEffect.DATA;
        List<String> words = new ArrayList<>(WORDS);
        boolean sets = false;
        for (String token = tokens.next(); token != null; token = tokens.next()) {
            if (token.equals(";")) {
                weightiest = weightier(weightiest, of(words));
                words.clear();
            } else {
                String word = token.toLowerCase(Locale.ROOT);
                if (words.size() < WORDS) {
                    words.add(word);
                }
                sets |= word.equals("set_config");
            }
        }
        weightiest = weightier(weightiest, of(words));
        return sets ? weightier(weightiest, SqlEffect.SESSION) : weightiest;
    }

    private static SqlEffect weightier(SqlEffect one, SqlEffect other) {
        return one.compareTo(other) <= 0 ? one : other;
    }

    private static SqlEffect of(List<String> words) {
        return switch (word(words, 0)) {
            case "begin", "start", "commit", "end", "abort" -> SqlEffect.TRANSACTION;
            case "rollback" -> ofRollback(words);
            case "prepare" -> is(words, 1, "transaction") ? SqlEffect.TRANSACTION : SqlEffect.SESSION;
            case "savepoint", "release" -> SqlEffect.SAVEPOINT;
            case "set" -> ofSet(words);
            case "listen" -> SqlEffect.LISTEN;
            case "reset", "discard", "load", "deallocate" -> SqlEffect.SESSION;
            case "create" -> isTemporary(words) ? SqlEffect.SESSION : SqlEffect.DATA;
            default -> SqlEffect.DATA;
        };
    }

    /** {@code ROLLBACK [WORK | TRANSACTION] TO} */
    private static SqlEffect ofRollback(List<String> words) {
        int at = is(words, 1, "work") || is(words, 1, "transaction") ? 2 : 1;
        return is(words, at, "to") ? SqlEffect.SAVEPOINT : SqlEffect.TRANSACTION;
    }

    /** The characteristics of a session are those of its next transaction. */
    private static SqlEffect ofSet(List<String> words) {
        int at = is(words, 1, "local") || is(words, 1, "session") ? 2 : 1;
        if (is(words, 1, "transaction") || is(words, at, "characteristics")) {
            return SqlEffect.TRANSACTION;
        }
        return is(words, 1, "constraints") ? SqlEffect.DATA : SqlEffect.SESSION;
    }

    private static boolean isTemporary(List<String> words) {
        return words.contains("temp") || words.contains("temporary");
    }

    private static boolean is(List<String> words, int index, String word) {
        return word(words, index).equals(word);
    }

    private static String word(List<String> words, int index) {
        return index < words.size() ? words.get(index) : "";
    }
}
