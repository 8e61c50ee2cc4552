package dev.r2dbcscope;

import io.r2dbc.spi.Statement;
import java.util.Arrays;

/** What was bound to a statement, so that it can be bound to another one with the same parameters. */
final class Bindings {

    private static final int FEW = 4;

    private Object[] parameters = new Object[FEW];
    private Object[] values = new Object[FEW];
    private int count;

    private record Null(Class<?> type) {}

    /** Takes notice of a value; the parameter is an {@code Integer} index or a {@code String} name. */
    void add(Object parameter, Object value) {
        if (count == parameters.length) {
            parameters = Arrays.copyOf(parameters, 2 * count);
            values = Arrays.copyOf(values, 2 * count);
        }
        parameters[count] = parameter;
        values[count++] = value;
    }

    void addNull(Object parameter, Class<?> type) {
        add(parameter, new Null(type));
    }

    /** A copy that later calls do not change. */
    Bindings copy() {
        Bindings copy = new Bindings();
        copy.parameters = parameters.clone();
        copy.values = values.clone();
        copy.count = count;
        return copy;
    }

    Statement bindTo(Statement statement) {
        for (int i = 0; i < count; i++) {
            bind(statement, parameters[i], values[i]);
        }
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
