package dev.r2dbcscope.benchmarks;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Where and when something was measured. */
final class Environment {

    /** Whose versions matter: the artifact, and a class of it whose jar's manifest tells the version. */
    private static final List<String> LIBRARIES = List.of(
            "reactor-core",
            "r2dbc-postgresql",
            "r2dbc-pool",
            "r2dbc-scope",
            "spring-r2dbc",
            "postgresql",
            "jooq",
            "vertx-pg-client",
            "HikariCP");

    private final Instant started = Instant.now().truncatedTo(ChronoUnit.SECONDS);
    private final double loadBefore = load();

    private static double load() {
        return ManagementFactory.getOperatingSystemMXBean().getSystemLoadAverage();
    }

    /** One fact in each. */
    List<String> lines() {
        List<String> lines = new ArrayList<>();
        lines.add("started " + started);
        lines.add(String.format(
                Locale.ROOT, "load average %.2f before, %.2f after (includes what was measured)", loadBefore, load()));
        lines.add(Runtime.getRuntime().availableProcessors() + " processors, " + processor() + ", heap of at most "
                + (Runtime.getRuntime().maxMemory() >> 20) + " MB");
        lines.add(System.getProperty("os.name") + " " + System.getProperty("os.version") + ", "
                + System.getProperty("java.vm.name") + " " + System.getProperty("java.runtime.version"));
        lines.add(LIBRARIES.stream()
                .map(Environment::version)
                .filter(Objects::nonNull)
                .collect(Collectors.joining(", ")));
        return lines;
    }

    private static String processor() {
        try (Stream<String> info = Files.lines(Path.of("/proc/cpuinfo"))) {
            return info.filter(line -> line.startsWith("model name"))
                    .map(line -> line.substring(line.indexOf(':') + 1).trim())
                    .findFirst()
                    .orElse(System.getProperty("os.arch"));
        } catch (IOException notLinux) {
            return System.getProperty("os.arch");
        }
    }

    private static String version(String artifact) {
        String version = Versions.of(artifact);
        return version == null ? null : artifact + " " + version;
    }
}
