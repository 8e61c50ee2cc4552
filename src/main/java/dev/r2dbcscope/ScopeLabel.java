package dev.r2dbcscope;

import java.util.Set;
import java.util.Spliterator;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The name and the assembly site of a scope.
 *
 * <p>The site is the first stack frame outside this library and Reactor, found without filling in a stack trace.
 * Formatting is left to those who ask.
 */
final class ScopeLabel {

    private static final StackWalker WALKER = StackWalker.getInstance(StackWalker.Option.RETAIN_CLASS_REFERENCE);

    /** Those of this library. In a jar with everything in it, other code has the same protection domain. */
    static final Set<String> PACKAGES = Set.of(
            "dev.r2dbcscope",
            "dev.r2dbcscope.etl",
            "dev.r2dbcscope.pool",
            "dev.r2dbcscope.postgresql",
            "dev.r2dbcscope.testkit");

    private static final ClassValue<Boolean> INTERNAL = new ClassValue<>() {
        @Override
        protected Boolean computeValue(Class<?> type) {
            return isInternal(type);
        }
    };

    private final @Nullable String name;
    private final StackWalker.@Nullable StackFrame site;

    private ScopeLabel(@Nullable String name, StackWalker.@Nullable StackFrame site) {
        this.name = name;
        this.site = site;
    }

    static ScopeLabel here(@Nullable String name) {
        return new ScopeLabel(name, WALKER.walk(ScopeLabel::assemblySite));
    }

    String name() {
        if (name != null) {
            return name;
        }
        if (site == null) {
            return "unnamed";
        }
        String type = site.getClassName();
        return type.substring(type.lastIndexOf('.') + 1) + "." + site.getMethodName();
    }

    String origin() {
        return site == null ? "unknown" : site.toStackTraceElement().toString();
    }

    @Override
    public String toString() {
        return "scope '" + name() + "' assembled at " + origin();
    }

    /** Whether a class opens scopes on behalf of whoever calls it. The tests of this library share its packages. */
    static boolean isInternal(Class<?> type) {
        String name = type.getName();
        return name.startsWith("reactor.core.")
                || name.startsWith("java.")
                || PACKAGES.contains(type.getPackageName())
                        && type.getProtectionDomain() == ScopeLabel.class.getProtectionDomain();
    }

    private static StackWalker.@Nullable StackFrame assemblySite(Stream<StackWalker.StackFrame> frames) {
        Search search = new Search();
        Spliterator<StackWalker.StackFrame> all = frames.spliterator();
        while (search.site == null && all.tryAdvance(search)) {
            // the search looks at one more frame
        }
        return search.site;
    }

    /** Every scope is assembled somewhere, and a pipeline of stream operators for it is not for free. */
    private static final class Search implements Consumer<StackWalker.StackFrame> {

        private StackWalker.@Nullable StackFrame site;

        @Override
        public void accept(StackWalker.StackFrame frame) {
            if (!INTERNAL.get(frame.getDeclaringClass())) {
                site = frame;
            }
        }
    }
}
