package dev.r2dbcscope.jcstress;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Runs every jcstress test of the project for a moment, in one compilation mode and one fork each. The long form, in
 * all the modes that the JVM offers, is {@code mvn -Pjcstress verify}.
 */
@Tag("jcstress")
final class QuickJcstressTest {

    private static final Pattern RESULTS = Pattern.compile(
            "Results: (\\d+) planned; (\\d+) passed, (\\d+) failed, (\\d+) soft errs, (\\d+) hard errs");

    /** Some 13 s for jcstress to probe the machine, and about 3 s for each fork. */
    private static final long LIMIT_IN_SECONDS = 480;

    @TempDir
    private Path directory;

    @Test
    void noForbiddenOutcomeShowsUp() throws IOException, InterruptedException {
        Path log = directory.resolve("log");
        Process process = new ProcessBuilder(command())
                .directory(directory.toFile())
                .redirectErrorStream(true)
                .redirectOutput(log.toFile())
                .start();
        boolean ended;
        try {
            ended = process.waitFor(LIMIT_IN_SECONDS, TimeUnit.SECONDS);
        } finally {
            process.descendants().forEach(ProcessHandle::destroyForcibly);
            process.destroyForcibly();
        }

        String output = Files.readString(log);
        assertThat(ended).as("ended within %d s: %s", LIMIT_IN_SECONDS, output).isTrue();
        MatchResult results = RESULTS.matcher(output)
                .results()
                .reduce((first, last) -> last)
                .orElseThrow(() -> new AssertionError(output));
        System.out.println("jcstress: " + results.group());
        assertThat(process.exitValue()).as(output).isZero();
        assertThat(Integer.parseInt(results.group(2)))
                .as(output)
                .isPositive()
                .isEqualTo(Integer.parseInt(results.group(1)));
    }

    private static List<String> command() {
        return List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-cp",
                System.getProperty("java.class.path"),
                "org.openjdk.jcstress.Main",
                "-m",
                "quick",
                "-f",
                "1",
                "-fsm",
                "1",
                "-iters",
                "1",
                "-time",
                "200",
                "-sc",
                "false",
                // a fork measures how much memory so many samples take before it begins
                "-strideSize",
                "64",
                "-strideCount",
                "8",
                "-jvmArgs",
                "-Xmx256m");
    }
}
