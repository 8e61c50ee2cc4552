package dev.r2dbcscope.benchmarks;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/** The versions of the libraries in the jar, which the build has listed. */
final class Versions {

    private static final Map<String, String> ALL = read();

    private Versions() {}

    /** Lines of {@code group:artifact:type:version:scope}; a classifier may stand before the version. */
    private static Map<String, String> read() {
        Map<String, String> versions = new HashMap<>();
        try (InputStream in = Versions.class.getResourceAsStream("/dependencies.txt")) {
            if (in != null) {
                new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8))
                        .lines()
                        .map(line -> line.trim().split("[: ]"))
                        .filter(parts -> parts.length >= 5)
                        .forEach(parts -> versions.put(parts[1], parts[3]));
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return versions;
    }

    /** The version of an artifact, or {@code null} if it is not among them. */
    static String of(String artifact) {
        return ALL.get(artifact);
    }
}
