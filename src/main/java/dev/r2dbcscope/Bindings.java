package dev.r2dbcscope;

import io.r2dbc.spi.Statement;
import java.util.LinkedHashMap;
import java.util.Map;

/** What was bound to a statement, so that it can be bound to another one with the same parameters. */
final class Bindings {

    /** In the order in which they were bound last: a parameter may be bound by its index and by its name. */
    private final Map<Object, Object> values;

    private record Null(Class<?> type) {}

    Bindings() {
        this(Map.of());
    }

    private Bindings(Map<Object, Object> values) {
        this.values = new LinkedHashMap<>(values);
    }

    /** Takes notice of a value; the parameter is an {@code Integer} index or a {@code String} name. */
    void add(Object parameter, Object value) {
        values.remove(parameter);
        values.put(parameter, value);
    }

    void addNull(Object parameter, Class<?> type) {
        add(parameter, new Null(type));
    }

    /** A copy that later calls do not change. */
    Bindings copy() {
        return new Bindings(values);
    }

    Statement bindTo(Statement statement) {
        values.forEach((parameter, value) -> bind(statement, parameter, value));
        return statement;
    }

    private static void bind(Statement statement, Object parameter, Object value) {
        if (parameter instanceof Integer index) {
            if (value instanceof Null none) {
                statement.bindNull(index, none.type());
            } else {
                statement.bind(index.intValue(), value);
            }
        } else if (value instanceof Null none) {
            statement.bindNull((String) parameter, none.type());
        } else {
            statement.bind((String) parameter, value);
        }
    }
}
