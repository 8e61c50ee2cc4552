package dev.r2dbcscope.benchmarks;

import java.util.LinkedHashMap;
import java.util.Map;

/** Ways to do the same work, taken in turns in one run, because a machine that is shared is not the same from minute to minute. */
final class Contest {

    /** One way; what it returns is the value that was measured. */
    interface Way {
        double run() throws Exception;
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
    private final Map<String, Way> ways = new LinkedHashMap<>();

    Contest(Report report, String group, String metric) {
        this.report = report;
        this.group = group;
        this.metric = metric;
    }

    Contest add(String side, Way way) {
        return add(side, () -> {}, way);
    }

    Contest add(String side, Preparation preparation, Way way) {
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
            for (Map.Entry<String, Way> way : ways.entrySet()) {
                preparations.get(way.getKey()).run();
                double value = way.getValue().run();
                if (round > 0) {
                    report.add(group, way.getKey(), metric, round, value);
                }
            }
        }
    }
}
