package dev.r2dbcscope.postgresql;

import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * What becomes of a row whose key is in the table already: {@code INSERT ... ON CONFLICT}. Immutable and thread-safe: every
 * {@code with} method returns a copy.
 *
 * <pre>{@code
 * OnConflict.doUpdate("id")                                                   // all other columns that are written
 * OnConflict.doUpdate("id").withUpdated("price", "changed_at")                // these columns only
 * OnConflict.doUpdate("id").withSet("hits", "target.hits + excluded.hits")    // an SQL expression
 * OnConflict.doNothing("id")
 * }</pre>
 */
public final class OnConflict {

    private final boolean updates;
    private final List<String> key;
    private final @Nullable List<String> updated;
    private final Map<String, String> set;
    private final @Nullable String condition;
    private final Duplicates duplicates;

    private OnConflict(
            boolean updates,
            List<String> key,
            @Nullable List<String> updated,
            Map<String, String> set,
            @Nullable String condition,
            Duplicates duplicates) {
        this.updates = updates;
        this.key = key;
        this.updated = updated;
        this.set = set;
        this.condition = condition;
        this.duplicates = duplicates;
    }

    /**
     * Updates the row that is there. Without {@link #withUpdated} and {@link #withSet}, each written column that is not part of
     * the key gets the new value.
     *
     * @param key the columns of a unique index or primary key, at least one; all of them must be among the written ones
     * @return what to do
     * @throws IllegalArgumentException if there is no column
     */
    public static OnConflict doUpdate(String... key) {
        List<String> columns = List.of(key);
        if (columns.isEmpty()) {
            throw new IllegalArgumentException("DO UPDATE needs the columns of the key");
        }
        return new OnConflict(true, columns, null, Map.of(), null, Duplicates.KEEP_LAST);
    }

    /**
     * Leaves the row that is there as it is. Of several new rows with the same key the first one is inserted.
     *
     * @param key the columns of a unique index or primary key; none for a conflict with whatever index
     * @return what to do
     */
    public static OnConflict doNothing(String... key) {
        return new OnConflict(false, List.of(key), null, Map.of(), null, Duplicates.KEEP_FIRST);
    }

    /**
     * Chooses the columns that get the new row's value.
     *
     * @param columns columns that are written
     * @return a copy that updates those, and what {@link #withSet} says
     * @throws IllegalStateException after {@link #doNothing}
     */
    public OnConflict withUpdated(String... columns) {
        requireUpdate();
        return new OnConflict(true, key, List.of(columns), set, condition, duplicates);
    }

    /**
     * Adds a column that gets the value of an SQL expression.
     *
     * @param column a column of the table
     * @param expression becomes part of the statement as it is, so it must not come from outside the program. {@code target}
     *     is the row that is there, {@code excluded} the new one.
     * @return a copy that sets it, too, instead of giving it the new row's value
     * @throws IllegalStateException after {@link #doNothing}
     */
    public OnConflict withSet(String column, String expression) {
        requireUpdate();
        Map<String, String> more = new LinkedHashMap<>(set);
        more.put(Objects.requireNonNull(column, "column"), Objects.requireNonNull(expression, "expression"));
        return new OnConflict(true, key, updated, more, condition, duplicates);
    }

    /**
     * Updates only rows for which a condition is true; the others stay as they are, and do not count as written.
     *
     * @param condition an SQL condition that becomes part of the statement as it is, so it must not come from outside the
     *     program. {@code target} is the row that is there, {@code excluded} the new one.
     * @return a copy with that condition
     * @throws IllegalStateException after {@link #doNothing}
     */
    public OnConflict withCondition(String condition) {
        requireUpdate();
        return new OnConflict(true, key, updated, set, Objects.requireNonNull(condition, "condition"), duplicates);
    }

    /**
     * Chooses what becomes of new rows with the same key in one statement.
     *
     * @param duplicates {@link Duplicates#KEEP_LAST} by default
     * @return a copy with that choice
     * @throws IllegalStateException after {@link #doNothing}, of which the first one is always inserted
     */
    public OnConflict withDuplicates(Duplicates duplicates) {
        requireUpdate();
        return new OnConflict(true, key, updated, set, condition, Objects.requireNonNull(duplicates, "duplicates"));
    }

    private void requireUpdate() {
        if (!updates) {
            throw new IllegalStateException("DO NOTHING updates nothing");
        }
    }

    boolean updates() {
        return updates;
    }

    List<String> key() {
        return key;
    }

    boolean isConditional() {
        return condition != null;
    }

    Duplicates duplicates() {
        return duplicates;
    }

    /** The clause at the end of an INSERT whose table has the alias target. */
    String clause(Collection<String> written) {
        for (String column : key) {
            if (updates && !written.contains(column)) {
                throw new IllegalStateException("The column \"" + column + "\" of the key is not written");
            }
        }
        String target = key.isEmpty() ? "" : "(" + SqlNames.quoteAll(key) + ") ";
        if (!updates) {
            return " on conflict " + target + "do nothing";
        }
        return " on conflict " + target + "do update set " + assignments(written)
                + (condition == null ? "" : " where " + condition);
    }

    /** What MERGE does with a row that is there. */
    String matched(Collection<String> written) {
        return "when matched" + (condition == null ? "" : " and (" + condition + ")") + " then update set "
                + assignments(written);
    }

    private String assignments(Collection<String> written) {
        Map<String, String> all = new LinkedHashMap<>();
        for (String column : updated != null ? updated : set.isEmpty() ? rest(written) : List.<String>of()) {
            if (!written.contains(column)) {
                throw new IllegalStateException("The column \"" + column + "\" to update is not written");
            }
            all.put(column, "excluded." + Identifiers.quoted(column, "column"));
        }
        all.putAll(set);
        if (all.isEmpty()) {
            throw new IllegalStateException(
                    "All written columns are part of the key, so there is nothing to update; use doNothing");
        }
        return all.entrySet().stream()
                .map(entry -> Identifiers.quoted(entry.getKey(), "column") + " = " + entry.getValue())
                .collect(Collectors.joining(", "));
    }

    private List<String> rest(Collection<String> written) {
        List<String> rest = new ArrayList<>(written);
        rest.removeAll(key);
        return rest;
    }

    @Override
    public String toString() {
        return "OnConflict[" + (updates ? "DO UPDATE " : "DO NOTHING ") + key + ", " + duplicates + "]";
    }
}
