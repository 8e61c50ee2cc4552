package dev.r2dbcscope;

import java.util.List;
import java.util.Set;
import java.util.function.Predicate;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The name and the assembly site of a scope.
 *
 * <p>The site is the first stack frame outside this library and Reactor, found without filling in a stack trace.
 * Formatting is left to those who ask.
 */
final class ScopeLabel {

    private static final StackWalker WALKER = StackWalker.getInstance();

    private static final Set<String> OWN_CLASSES =
            Set.of(ScopeLabel.class.getName(), ConnectionScopes.class.getName(), CurrentScope.class.getName());

    /** Packages that open scopes on behalf of whoever calls them. */
    private static final List<String> OWN_PACKAGES = List.of(
            ScopeLabel.class.getPackageName() + ".postgresql.", ScopeLabel.class.getPackageName() + ".testkit.");

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

    private static StackWalker.@Nullable StackFrame assemblySite(Stream<StackWalker.StackFrame> frames) {
        Predicate<StackWalker.StackFrame> internal = frame -> {
            String type = frame.getClassName();
            return type.startsWith("reactor.core.")
                    || type.startsWith("java.")
                    || OWN_PACKAGES.stream().anyMatch(type::startsWith)
                    || OWN_CLASSES.contains(type);
        };
        return frames.dropWhile(internal).findFirst().orElse(null);
    }
}
