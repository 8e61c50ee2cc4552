package dev.r2dbcscope.testkit;

import java.security.CodeSource;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Finds the code of the user that is running: the innermost frame outside this library and those that it works with. */
final class CodeSite {

    private static final StackWalker WALKER = StackWalker.getInstance(StackWalker.Option.RETAIN_CLASS_REFERENCE);

    private static final String OWN = "dev.r2dbcscope.";

    private static final List<String> LIBRARIES = List.of(
            "java.",
            "javax.",
            "jdk.",
            "sun.",
            "reactor.",
            "org.reactivestreams.",
            "io.r2dbc.",
            "io.netty.",
            "org.springframework.",
            "org.jooq.",
            "org.junit.",
            "kotlin.",
            "kotlinx.");

    private CodeSite() {}

    /** Class, method, file and line, or {@code null} if only libraries are on the stack. */
    static @Nullable String here() {
        return WALKER.walk(frames -> frames.filter(frame -> isOfTheUser(frame.getDeclaringClass()))
                .findFirst()
                .map(frame -> frame.toStackTraceElement().toString())
                .orElse(null));
    }

    /** The same, or else the thread. */
    static String hereOrThread() {
        String site = here();
        return site == null ? "unknown code on thread " + Thread.currentThread().getName() : site;
    }

    private static boolean isOfTheUser(Class<?> type) {
        String name = type.getName();
        return LIBRARIES.stream().noneMatch(name::startsWith) && !(name.startsWith(OWN) && isOfThisLibrary(type));
    }

    /** Its tests are in the same packages. */
    private static boolean isOfThisLibrary(Class<?> type) {
        return Objects.equals(source(type), source(CodeSite.class));
    }

    private static @Nullable CodeSource source(Class<?> type) {
        return type.getProtectionDomain().getCodeSource();
    }
}
