package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.function.BiFunction;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.function.Executable;
import org.reactivestreams.tck.TestEnvironment;
import org.testng.ITestResult;
import org.testng.TestListenerAdapter;
import org.testng.TestNG;

/** A verification of the Reactive Streams TCK, each of whose tests is a test of JUnit. */
public final class TckTests {

    /** There is nothing to test, or a Mono has too few elements for it. */
    private static final List<String> EXPECTED_SKIPS =
            List.of("Not verified by this TCK.", "Unable to run this test, as required elements nr: ");

    /** How long the TCK waits for what must come: it only has to be long enough for a slow machine. */
    private static final long PATIENCE_MILLIS = 60_000;

    /** How long it waits for what must not come, which every run takes. */
    private static final long SILENCE_MILLIS = 25;

    private TckTests() {}

    public static TestEnvironment environment() {
        return new TestEnvironment(PATIENCE_MILLIS, SILENCE_MILLIS, SILENCE_MILLIS);
    }

    /**
     * Runs it.
     *
     * @param verification a class that TestNG can make
     * @param atLeast how many of its tests must pass
     * @param afterwards what must be true then
     */
    public static Stream<DynamicTest> of(Class<?> verification, int atLeast, Executable afterwards) {
        TestListenerAdapter results = new TestListenerAdapter();
        TestNG testng = new TestNG(false);
        testng.setVerbose(0);
        testng.setTestClasses(new Class<?>[] {verification});
        testng.addListener(results);
        testng.run();

        DynamicTest ran = DynamicTest.dynamicTest("runs, and leaves nothing behind", () -> {
            assertThat(results.getPassedTests()).hasSizeGreaterThan(atLeast);
            afterwards.execute();
        });
        return Stream.of(
                        Stream.of(ran),
                        tests(
                                results.getPassedTests(),
                                (result, cause) ->
                                        () -> assertThat(result.isSuccess()).isTrue()),
                        tests(results.getFailedTests(), (result, cause) -> () -> {
                            throw cause;
                        }),
                        tests(results.getSkippedTests(), (result, cause) -> () -> skip(cause)))
                .flatMap(tests -> tests);
    }

    /** The TCK also skips its optional tests when they fail. */
    private static void skip(Throwable cause) throws Throwable {
        String reason = String.valueOf(cause.getMessage());
        if (EXPECTED_SKIPS.stream().noneMatch(reason::startsWith)) {
            throw cause;
        }
        Assumptions.abort(reason);
    }

    private static Stream<DynamicTest> tests(
            List<ITestResult> results, BiFunction<ITestResult, Throwable, Executable> test) {
        return results.stream()
                .map(result -> DynamicTest.dynamicTest(result.getName(), test.apply(result, result.getThrowable())));
    }
}
