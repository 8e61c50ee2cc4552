package dev.r2dbcscope.testkit;

/**
 * Decides what goes wrong in a {@link ProbeConnectionFactory}, call by call.
 *
 * @see SeededFaults
 */
@FunctionalInterface
public interface ProbeFaults {

    /**
     * Called when a step is subscribed to.
     *
     * @param call the step
     * @return what happens to it; {@link ProbeFault#none()} for nothing
     */
    ProbeFault at(ProbeCall call);

    /**
     * Called before a row is delivered; no row has a fault by default.
     *
     * @param statement the statement that returns the row
     * @param row the row's number in its result, counted from 0
     * @return what happens to it; {@link ProbeFault#none()} for nothing
     */
    default ProbeFault atRow(ProbeCall statement, long row) {
        return ProbeFault.none();
    }
}
