package dev.r2dbcscope.benchmarks;

import java.io.File;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Runs the parts that are named, or all of them, each in a JVM of its own. */
@Command(
        name = "benchmarks",
        mixinStandardHelpOptions = true,
        description =
                "Compares R2DBC Scope with its peers. Prints a table for each part, and writes raw values and plots.")
public final class Benchmarks implements Callable<Integer> {

    private static final List<Part> PARTS = List.of(
            new OperatorCost(),
            new SelectBenchmark(),
            new TransactionsBenchmark(),
            new StreamingBenchmark(),
            new NdjsonBenchmark(),
            new CancelBenchmark(),
            new FanOutBenchmark(),
            new CopyInBenchmark(),
            new UnnestWriterBenchmark(),
            new PagingBenchmark(),
            new NestedReadBenchmark());

    @Parameters(
            paramLabel = "part",
            description = "What to run; everything if none is named. --list tells what there is.")
    private List<String> names = List.of();

    @Option(names = "--rounds", defaultValue = "5", description = "How often each side is measured (${DEFAULT-VALUE}).")
    private int rounds;

    @Option(names = "--quick", description = "A small part of the work, to see that it runs.")
    private boolean quick;

    @Option(names = "--results", defaultValue = "results", description = "Where to write (${DEFAULT-VALUE}).")
    private Path results;

    @Option(names = "--list", description = "Tells the parts and ends.")
    private boolean list;

    @Option(names = "--here", hidden = true)
    private boolean here;

    public static void main(String[] args) {
        System.exit(new CommandLine(new Benchmarks()).execute(args));
    }

    @Override
    public Integer call() throws Exception {
        if (list) {
            PARTS.forEach(part -> System.out.printf("%-14s %s%n", part.name(), part.question()));
            return 0;
        }
        List<Part> chosen = new ArrayList<>();
        for (String name : names) {
            Part part = PARTS.stream()
                    .filter(p -> p.name().equals(name))
                    .findFirst()
                    .orElse(null);
            if (part == null) {
                System.err.println("There is no part '" + name + "'; --list tells what there is.");
                return 2;
            }
            chosen.add(part);
        }
        int worst = 0;
        for (Part part : chosen.isEmpty() ? PARTS : chosen) {
            worst = Math.max(worst, here ? run(part) : runInJvm(part));
        }
        return worst;
    }

    private int run(Part part) throws Exception {
        System.out.printf("%n== %s: %s%n", part.name(), part.question());
        Environment environment = new Environment();
        Report report = new Report(part);
        part.run(new Extent(quick ? 1 : rounds, quick), report);
        report.print(System.out);
        environment.lines().forEach(line -> System.out.println("  " + line));
        report.write(results, environment);
        return 0;
    }

    private int runInJvm(Part part) throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(part.jvmOptions());
        command.add("-cp");
        command.add(System.getProperty("java.class.path")
                .replace(File.pathSeparator + File.pathSeparator, File.pathSeparator));
        command.add(Benchmarks.class.getName());
        command.add("--here");
        command.add("--rounds=" + rounds);
        command.add("--results=" + results);
        if (quick) {
            command.add("--quick");
        }
        command.add(part.name());
        int code = new ProcessBuilder(command).inheritIO().start().waitFor();
        if (code != 0) {
            System.err.println("The part '" + part.name() + "' has failed.");
        }
        return code;
    }
}
