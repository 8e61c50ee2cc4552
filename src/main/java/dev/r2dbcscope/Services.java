package dev.r2dbcscope;

import java.util.List;
import java.util.Objects;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;

/** Loads what optional libraries add to the scopes. */
final class Services {

    private Services() {}

    static <T> List<T> load(Class<T> type) {
        return ServiceLoader.load(type, Services.class.getClassLoader()).stream()
                .map(Services::get)
                .filter(Objects::nonNull)
                .toList();
    }

    /** A service whose library is not on the class path is none. */
    private static <T> @Nullable T get(ServiceLoader.Provider<T> provider) {
        try {
            return provider.get();
        } catch (LinkageError | ServiceConfigurationError e) {
            return null;
        }
    }
}
