package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Statement;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

class BindingsTest {

    private static List<String> bound(Bindings bindings) {
        List<String> calls = new ArrayList<>();
        bindings.bindTo((Statement) Proxy.newProxyInstance(
                BindingsTest.class.getClassLoader(), new Class<?>[] {Statement.class}, (proxy, method, arguments) -> {
                    calls.add(method.getName() + Arrays.toString(arguments));
                    return proxy;
                }));
        return calls;
    }

    /** A statement may be executed a million times, with other values each time. */
    @Test
    void aParameterHasItsLastValueOnly() {
        Bindings bindings = new Bindings();
        for (int i = 0; i < 3; i++) {
            bindings.add(0, i);
            bindings.addNull("$2", String.class);
        }
        assertThat(bound(bindings)).containsExactly("bind[0, 2]", "bindNull[$2, class java.lang.String]");
    }

    /** The index and the name may mean the same parameter. */
    @Test
    void theLastValueIsBoundLast() {
        Bindings bindings = new Bindings();
        bindings.add(0, "a");
        bindings.add("$1", "b");
        bindings.add(0, "c");
        Bindings copy = bindings.copy();
        bindings.add(0, "d");
        assertThat(bound(copy)).containsExactly("bind[$1, b]", "bind[0, c]");
    }
}
