package dev.r2dbcscope.benchmarks;

/**
 * One value that was measured.
 *
 * @param group what was done, such as {@code "8 callers"}: the sides of one group are compared with each other
 * @param side who did it, such as {@code "DatabaseClient"}
 * @param metric what the value is, with its unit, such as {@code "rows/s"}
 * @param round in which round, from 1
 * @param value the value
 */
record Measurement(String group, String side, String metric, int round, double value) {}
