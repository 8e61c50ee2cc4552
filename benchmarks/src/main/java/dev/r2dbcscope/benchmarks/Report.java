package dev.r2dbcscope.benchmarks;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.Stream;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.CategoryChart;
import org.knowm.xchart.CategoryChartBuilder;
import org.knowm.xchart.style.Styler.LegendPosition;

/** All that one part has measured: as a table, as raw values, and as plots. */
final class Report {

    private final Part part;
    private final List<Measurement> measurements = new ArrayList<>();
    private final List<String> notes = new ArrayList<>();

    Report(Part part) {
        this.part = part;
    }

    void add(String group, String side, String metric, int round, double value) {
        measurements.add(new Measurement(group, side, metric, round, value));
    }

    /** Something that the values do not say, such as a side that did not come to an end. */
    void note(String note) {
        notes.add(note);
    }

    double median(String group, String side, String metric) {
        double[] sorted = of(group, side, metric).sorted().toArray();
        if (sorted.length == 0) {
            return Double.NaN;
        }
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    private java.util.stream.DoubleStream of(String group, String side, String metric) {
        return measurements.stream()
                .filter(m -> m.group().equals(group)
                        && m.side().equals(side)
                        && m.metric().equals(metric))
                .mapToDouble(Measurement::value);
    }

    private Set<String> distinct(Function<Measurement, String> of) {
        Set<String> all = new LinkedHashSet<>();
        measurements.forEach(m -> all.add(of.apply(m)));
        return all;
    }

    /** Medians, the least and the greatest value, and the ratio of the median to that of the group's first side. */
    void print(PrintStream out) {
        for (String metric : distinct(Measurement::metric)) {
            for (String group : distinct(Measurement::group)) {
                String first = null;
                for (String side : distinct(Measurement::side)) {
                    double[] sorted = of(group, side, metric).sorted().toArray();
                    if (sorted.length == 0) {
                        continue;
                    }
                    if (first == null) {
                        first = side;
                        out.printf("%n%s: %s%n", group, metric);
                    }
                    double median = median(group, side, metric);
                    out.printf(
                            Locale.ROOT,
                            "  %-44s %14s   %14s to %-14s x %.2f%n",
                            side,
                            figure(median),
                            figure(sorted[0]),
                            figure(sorted[sorted.length - 1]),
                            median / median(group, first, metric));
                }
            }
        }
        notes.forEach(note -> out.println("  " + note));
    }

    private static String figure(double value) {
        return String.format(Locale.ROOT, Math.abs(value) < 100 ? "%.2f" : "%,.0f", value);
    }

    /** Writes {@code name.csv}, and a plot for each metric. */
    void write(Path directory, Environment environment) throws IOException {
        Files.createDirectories(directory);
        List<String> lines = new ArrayList<>();
        lines.add("# " + part.question());
        environment.lines().forEach(line -> lines.add("# " + line));
        notes.forEach(note -> lines.add("# " + note));
        lines.add("part,group,side,metric,round,value");
        measurements.forEach(m -> lines.add(Stream.of(
                        part.name(),
                        m.group(),
                        m.side(),
                        m.metric(),
                        String.valueOf(m.round()),
                        String.valueOf(m.value()))
                .map(Report::quoted)
                .reduce((a, b) -> a + "," + b)
                .orElseThrow()));
        Files.write(directory.resolve(part.name() + ".csv"), lines);
        for (String metric : distinct(Measurement::metric)) {
            plot(directory, metric);
        }
    }

    private static String quoted(String value) {
        return value.matches("[^,\"\\n]*") ? value : '"' + value.replace("\"", "\"\"") + '"';
    }

    private void plot(Path directory, String metric) throws IOException {
        List<String> groups = distinct(Measurement::group).stream()
                .filter(group -> measurements.stream()
                        .anyMatch(m -> m.group().equals(group) && m.metric().equals(metric)))
                .toList();
        CategoryChart chart = new CategoryChartBuilder()
                .width(300 + 220 * groups.size())
                .height(500)
                .title(part.question())
                .yAxisTitle(metric + ", median")
                .build();
        chart.getStyler().setLegendPosition(LegendPosition.OutsideE);
        chart.getStyler().setPlotGridVerticalLinesVisible(false);
        for (String side : distinct(Measurement::side)) {
            List<Double> medians =
                    groups.stream().map(group -> median(group, side, metric)).toList();
            if (medians.stream().anyMatch(median -> !Objects.equals(median, Double.NaN))) {
                chart.addSeries(
                        side,
                        groups,
                        medians.stream()
                                .map(median -> median.isNaN() ? 0.0 : median)
                                .toList());
            }
        }
        String file = directory
                .resolve(part.name() + "-"
                        + Arrays.stream(metric.split("[^A-Za-z0-9]+"))
                                .filter(word -> !word.isEmpty())
                                .reduce((a, b) -> a + "-" + b)
                                .orElse("plot"))
                .toString();
        BitmapEncoder.saveBitmap(chart, file, BitmapEncoder.BitmapFormat.PNG);
    }
}
