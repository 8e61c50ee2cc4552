package dev.r2dbcscope.benchmarks;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** The program psql, which tells how long it took. */
final class Psql {

    private static final Pattern TIMING = Pattern.compile("Time: ([0-9.]+) ms");

    private Psql() {}

    static boolean isThere() throws InterruptedException {
        try {
            Process process = new ProcessBuilder("psql", "--version").start();
            process.getInputStream().readAllBytes();
            return process.waitFor() == 0;
        } catch (IOException e) {
            return false;
        }
    }

    /** Runs a query whose rows go nowhere; returns the seconds that it says the query took, without its own start. */
    static double read(Server server, String sql, String... options) throws Exception {
        return timed(server.port(), "\\o /dev/null\n" + sql + ";", options);
    }

    /** Runs a command; returns the seconds that it says the command took. */
    static double timed(int port, String input, String... options) throws Exception {
        List<String> command = Stream.concat(
                        Stream.of("psql", "-X", "-A", "-t", "-h", "localhost", "-p", String.valueOf(port)),
                        Stream.concat(Stream.of("-U", "postgres", "-d", "postgres"), Stream.of(options)))
                .toList();
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().put("PGPASSWORD", "postgres");
        Process process = builder.start();
        process.getOutputStream().write(("\\timing on\n" + input + "\n").getBytes(StandardCharsets.UTF_8));
        process.getOutputStream().close();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        Matcher timing = TIMING.matcher(output);
        if (process.waitFor() != 0 || !timing.find()) {
            throw new IllegalStateException("psql said: " + output);
        }
        return Double.parseDouble(timing.group(1)) / 1000;
    }
}
