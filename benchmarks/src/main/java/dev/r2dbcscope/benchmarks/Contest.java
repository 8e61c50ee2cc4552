package dev.r2dbcscope.benchmarks;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiConsumer;

/** Ways to do the same work, taken in turns in one run, because a machine that is shared is not the same from minute to minute. */
final class Contest {

    /** One way; what it returns is the value that was measured. */
    interface Way {
        double run() throws Exception;
    }

    /** One way that tells more than the contest's metric: it gives further values, each by the name of its metric. */
    interface DetailedWay {
        double run(BiConsumer<String, Double> details) throws Exception;
    }

    /** Work that is measured by how much of it is done in a second: returns how much was done, such as rows moved. */
    interface Work {
        long run() throws Exception;
    }

    /** What is not measured, such as emptying a table. */
    interface Preparation {
        void run() throws Exception;
    }

    private final Report report;
    private final String group;
    private final String metric;
    private final Map<String, Preparation> preparations = new LinkedHashMap<>();
    private final Map<String, DetailedWay> ways = new LinkedHashMap<>();

    Contest(Report report, String group, String metric) {
        this.report = report;
        this.group = group;
        this.metric = metric;
    }

    Contest add(String side, Way way) {
        return add(side, () -> {}, way);
    }

    Contest add(String side, Preparation preparation, Way way) {
        return addDetailed(side, preparation, details -> way.run());
    }

    Contest addDetailed(String side, DetailedWay way) {
        return addDetailed(side, () -> {}, way);
    }

    Contest addDetailed(String side, Preparation preparation, DetailedWay way) {
        preparations.put(side, preparation);
        ways.put(side, way);
        return this;
    }

    /** Measures how much of the work is done in a second. */
    static Way perSecond(Work work) {
        return () -> {
            long start = System.nanoTime();
            long done = work.run();
            return done * 1e9 / (System.nanoTime() - start);
        };
    }

    /** Runs each way once without counting, then each of them in every round. */
    void run(int rounds) throws Exception {
        for (int round = 0; round <= rounds; round++) {
            for (Map.Entry<String, DetailedWay> way : ways.entrySet()) {
                preparations.get(way.getKey()).run();
                Map<String, Double> details = new LinkedHashMap<>();
                double value = way.getValue().run(details::put);
                if (round > 0) {
                    report.add(group, way.getKey(), metric, round, value);
                    for (Map.Entry<String, Double> detail : details.entrySet()) {
                        report.add(group, way.getKey(), detail.getKey(), round, detail.getValue());
                    }
                }
            }
        }
    }
}
