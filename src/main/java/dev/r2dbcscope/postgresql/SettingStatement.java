package dev.r2dbcscope.postgresql;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Readable;
import io.r2dbc.spi.Statement;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.StringJoiner;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Session settings in one statement. {@code set_config} is what {@code SET} does as a function, so keys and values are bound;
 * with {@code NULL} it does what {@code RESET} does. PostgreSQL evaluates a select list from left to right, and undoes all of
 * it if one call fails.
 *
 * <p>The functions are called by their full names: a search path may put others before them. The text depends on the number
 * of settings alone, so the driver prepares it once for each connection and number.
 */
final class SettingStatement {

    private SettingStatement() {}

    /** Sets them; emits the former values, or none for local ones, which need none. */
    static Mono<Map<String, Optional<String>>> apply(
            Connection connection, Map<String, String> settings, boolean local) {
        List<String> keys = inOrder(settings.keySet());
        List<String> former = local ? List.of() : keys;
        String sql = select(columns(former.size(), "pg_catalog.current_setting($%1$d, true)"), setting(keys, local));
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement(sql);
                    for (int i = 0; i < keys.size(); i++) {
                        statement.bind(2 * i, keys.get(i)).bind(2 * i + 1, settings.get(keys.get(i)));
                    }
                    return Flux.from(statement.execute());
                })
                .flatMap(result -> result.map(row -> values(former, row)))
                .single();
    }

    /** The same as text without parameters, local to a transaction; {@code null} if a value cannot be part of one. */
    static @Nullable String literal(Map<String, String> settings) {
        StringJoiner calls = new StringJoiner(", ", "SELECT ", "");
        for (String key : inOrder(settings.keySet())) {
            String value = Objects.requireNonNull(settings.get(key));
            if (key.indexOf('\0') >= 0 || value.indexOf('\0') >= 0) {
                return null;
            }
            calls.add("pg_catalog.set_config(" + quoted(key) + ", " + quoted(value) + ", true)");
        }
        return calls.toString();
    }

    /** A constant with escapes means the same whatever {@code standard_conforming_strings} says. */
    private static String quoted(String text) {
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'";
    }

    /** Sets them back, in the opposite order. */
    static Mono<Void> restore(Connection connection, Map<String, Optional<String>> former) {
        List<String> keys = new ArrayList<>(inOrder(former.keySet()));
        Collections.reverse(keys);
        String sql = select(List.of(), setting(keys, false));
        return Flux.defer(() -> {
                    Statement statement = connection.createStatement(sql);
                    for (int i = 0; i < keys.size(); i++) {
                        statement.bind(2 * i, keys.get(i));
                        bind(statement, 2 * i + 1, former.getOrDefault(keys.get(i), Optional.empty()));
                    }
                    return Flux.from(statement.execute());
                })
                .flatMap(result -> result.map(row -> true))
                .then();
    }

    private static void bind(Statement statement, int index, Optional<String> value) {
        if (value.isPresent()) {
            statement.bind(index, value.get());
        } else {
            statement.bindNull(index, String.class);
        }
    }

    /** Another role may not have the privileges for the rest, and another user begins without a role. */
    private static List<String> inOrder(Collection<String> keys) {
        return keys.stream()
                .sorted(Comparator.comparing(SettingStatement::rank))
                .toList();
    }

    private static int rank(String key) {
        return switch (key) {
            case "role" -> 2;
            case "session_authorization" -> 1;
            default -> 0;
        };
    }

    private static List<String> setting(List<String> keys, boolean local) {
        return columns(keys.size(), "pg_catalog.set_config($%1$d, $%2$d, " + local + ")");
    }

    private static List<String> columns(int count, String column) {
        return IntStream.range(0, count)
                .mapToObj(i -> column.formatted(2 * i + 1, 2 * i + 2))
                .toList();
    }

    private static String select(List<String> first, List<String> then) {
        return java.util.stream.Stream.concat(first.stream(), then.stream())
                .collect(Collectors.joining(", ", "select ", ""));
    }

    private static Map<String, Optional<String>> values(List<String> keys, Readable row) {
        Map<String, Optional<String>> values = new LinkedHashMap<>();
        for (int i = 0; i < keys.size(); i++) {
            values.put(keys.get(i), Optional.ofNullable(row.get(i, String.class)));
        }
        return values;
    }
}
