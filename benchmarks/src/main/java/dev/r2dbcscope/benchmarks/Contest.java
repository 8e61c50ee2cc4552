package dev.r2dbcscope.benchmarks;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Ways to do the same work, taken in turns in one run, because a machine that is shared is not the same from minute to minute. */
final class Contest {

    /** One way; what it returns is how many rows it has moved. */
    interface Way {
        long run() throws Exception;
    }

    /** What is not measured, such as emptying a table. */
    interface Preparation {
        void run() throws Exception;
    }

    private final Map<String, Preparation> preparations = new LinkedHashMap<>();
    private final Map<String, Way> ways = new LinkedHashMap<>();
    private final Map<String, List<Double>> rates = new LinkedHashMap<>();

    Contest add(String name, Way way) {
        return add(name, () -> {}, way);
    }

    Contest add(String name, Preparation preparation, Way way) {
        preparations.put(name, preparation);
        ways.put(name, way);
        rates.put(name, new ArrayList<>());
        return this;
    }

    /** Runs each way once without counting, then each of them in every round. */
    Contest run(int rounds) throws Exception {
        for (int round = 0; round <= rounds; round++) {
            for (Map.Entry<String, Way> way : ways.entrySet()) {
                preparations.get(way.getKey()).run();
                long start = System.nanoTime();
                long rows = way.getValue().run();
                double rate = rows * 1e9 / (System.nanoTime() - start);
                if (round > 0) {
                    rates.get(way.getKey()).add(rate);
                }
            }
        }
        return this;
    }

    /** Rows per second. */
    double median(String name) {
        double[] sorted = rates.get(name).stream().mapToDouble(d -> d).sorted().toArray();
        int middle = sorted.length / 2;
        return sorted.length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

    void print() {
        ways.keySet().forEach(name -> {
            double[] sorted =
                    rates.get(name).stream().mapToDouble(d -> d).sorted().toArray();
            System.out.printf(
                    Locale.ROOT,
                    "%-40s median %,10.0f rows/s   least %,10.0f   most %,10.0f%n",
                    name,
                    median(name),
                    sorted[0],
                    sorted[sorted.length - 1]);
        });
    }

    void compare(String one, String other) {
        System.out.printf(Locale.ROOT, "%s / %s = %.2f%n", one, other, median(one) / median(other));
    }
}
