package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Iterator;
import java.util.List;
import java.util.ServiceConfigurationError;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;

/** What is found of optional libraries, and what a broken one is allowed to spoil. */
class ServicesTest {

    private final AtomicInteger asked = new AtomicInteger();

    /** A class path that is answered for by the given suppliers, one after the other; without an end if it has none. */
    private Iterator<String> classPath(List<Supplier<String>> services) {
        return new Iterator<>() {

            @Override
            public boolean hasNext() {
                return services.isEmpty() || asked.get() < services.size();
            }

            @Override
            public String next() {
                int number = asked.getAndIncrement();
                if (services.isEmpty()) {
                    throw new ServiceConfigurationError("unreadable");
                }
                return services.get(number).get();
            }
        };
    }

    @Test
    void loadsTheDialectsThatAreRegistered() {
        assertThat(Services.load(Dialect.class)).hasAtLeastOneElementOfType(NotingDialect.class);
        assertThat(Services.load(ServicesTest.class)).isEmpty();
    }

    @Test
    void oneThatCannotBeLoadedDoesNotHideThoseBehindIt() {
        List<Supplier<String>> services = List.of(
                () -> "first",
                () -> {
                    throw new ServiceConfigurationError("stale");
                },
                () -> {
                    throw new NoClassDefFoundError("its library");
                },
                () -> "last");
        assertThat(Services.loadable(classPath(services))).containsExactly("first", "last");
    }

    @Test
    void aClassPathThatCannotBeReadIsAskedAThousandTimesAndNotForEver() {
        assertThat(Services.loadable(classPath(List.of()))).isEmpty();
        assertThat(asked).hasValue(1_000);
    }
}
