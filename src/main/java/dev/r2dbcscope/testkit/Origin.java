package dev.r2dbcscope.testkit;

import dev.r2dbcscope.CurrentScope;
import dev.r2dbcscope.ScopePropagationException;
import java.security.CodeSource;
import java.util.List;
import org.jspecify.annotations.Nullable;
import reactor.util.context.ContextView;

/** Who in the application asked for a connection: the scope in the Context, or else what the stack tells. */
final class Origin {

    private static final StackWalker WALKER = StackWalker.getInstance(StackWalker.Option.RETAIN_CLASS_REFERENCE);
    private static final int DEPTH = 128;

    /** What asks on behalf of others. */
    private static final List<String> LIBRARIES =
            List.of("java.", "jdk.", "reactor.", "io.netty.", "io.r2dbc.", "org.springframework.", "org.jooq.");

    private static final String OWN_PACKAGE = "dev.r2dbcscope.";

    private static final @Nullable CodeSource OWN = source(Origin.class);

    private Origin() {}

    /** The site that calls, outside libraries if there is one on the stack. */
    static String here() {
        return WALKER.walk(frames -> frames.limit(DEPTH)
                        .filter(frame -> !isLibrary(frame.getClassName()) && !isOwn(frame))
                        .findFirst())
                .or(() -> WALKER.walk(
                        frames -> frames.filter(frame -> !frame.getClassName().startsWith("java.") && !isOwn(frame))
                                .findFirst()))
                .map(frame -> frame.toStackTraceElement().toString())
                .orElse("unknown");
    }

    /** The scope for which the connection is created, if there is one. */
    static String in(ContextView context, String site) {
        try {
            CurrentScope scope = CurrentScope.from(context);
            return "scope '" + scope.name() + "' assembled at " + scope.origin();
        } catch (ScopePropagationException none) {
            return site;
        }
    }

    private static boolean isLibrary(String type) {
        return LIBRARIES.stream().anyMatch(type::startsWith);
    }

    private static boolean isOwn(StackWalker.StackFrame frame) {
        return frame.getClassName().startsWith(OWN_PACKAGE)
                && OWN != null
                && OWN.equals(source(frame.getDeclaringClass()));
    }

    private static @Nullable CodeSource source(Class<?> type) {
        return type.getProtectionDomain().getCodeSource();
    }
}
