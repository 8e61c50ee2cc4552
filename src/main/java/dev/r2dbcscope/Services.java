package dev.r2dbcscope;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;

/** Loads what optional libraries add to the scopes. */
final class Services {

    private static final int MOST = 1_000;

    private Services() {}

    /** A service that cannot be loaded is none: its library is not on the class path, or its registration is stale. */
    static <T> List<T> load(Class<T> type) {
        return loadable(
                ServiceLoader.load(type, Services.class.getClassLoader()).iterator());
    }

    static <T> List<T> loadable(Iterator<T> found) {
        List<T> services = new ArrayList<>();
        for (int i = 0; i < MOST && addNext(found, services); i++) {
            // the iterator goes on behind one that failed; a class path that cannot be read fails every time
        }
        return List.copyOf(services);
    }

    /** Says whether there may be more. */
    private static <T> boolean addNext(Iterator<T> found, List<T> services) {
        try {
            if (!found.hasNext()) {
                return false;
            }
            services.add(found.next());
        } catch (LinkageError | ServiceConfigurationError e) {
            return true;
        }
        return true;
    }
}
