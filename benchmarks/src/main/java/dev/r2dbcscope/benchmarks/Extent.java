package dev.r2dbcscope.benchmarks;

/**
 * How much is measured.
 *
 * @param rounds how many times each side is measured, one after the other
 * @param quick whether to do a small part of the work only, to see that it runs: its figures say nothing
 */
record Extent(int rounds, boolean quick) {

    /** A number of rows, calls or whatever is counted: a hundredth of it, but no less than 100, if it is to be quick. */
    int of(int usual) {
        return quick ? Math.max(Math.min(usual, 100), usual / 100) : usual;
    }
}
