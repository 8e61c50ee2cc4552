package dev.r2dbcscope.benchmarks;

import java.util.List;

/** One question that the benchmarks answer. It runs in a JVM of its own. */
interface Part {

    /** One word, which selects it on the command line and names its files. */
    String name();

    /** What is compared, in a sentence. */
    String question();

    /** Options of the JVM it runs in, such as the size of the heap. */
    default List<String> jvmOptions() {
        return List.of();
    }

    /** Measures, and tells the report all that it has measured. */
    void run(Extent extent, Report report) throws Exception;
}
