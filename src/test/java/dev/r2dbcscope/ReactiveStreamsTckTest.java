package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.BiFunction;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.DynamicContainer;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.reactivestreams.Publisher;
import org.reactivestreams.tck.PublisherVerification;
import org.reactivestreams.tck.TestEnvironment;
import org.testng.ITestResult;
import org.testng.TestListenerAdapter;
import org.testng.TestNG;
import org.testng.annotations.Factory;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** The Reactive Streams TCK, for every form of a scope: each of its tests is a test here. */
class ReactiveStreamsTckTest {

    /** There is nothing to test, or a Mono has too few elements for it. */
    private static final List<String> EXPECTED_SKIPS =
            List.of("Not verified by this TCK.", "Unable to run this test, as required elements nr: ");

    /** How long the TCK waits for what must come: it only has to be long enough for a slow machine. */
    private static final long PATIENCE_MILLIS = 60_000;

    /** How long it waits for what must not come, which every run takes. */
    private static final long SILENCE_MILLIS = 25;

    /** The forms that the TCK, which makes its own instances, is to run for. */
    private static Form form = new Form(Form.Shape.WITH_CONNECTION, false);

    private static ProbeConnectionFactory database = ProbeConnectionFactory.of();

    @TestFactory
    Stream<DynamicContainer> everyForm() {
        return Form.all().map(each -> DynamicContainer.dynamicContainer(each.toString(), tck(each)));
    }

    private static Stream<DynamicTest> tck(Form each) {
        form = each;
        database = ProbeConnectionFactory.of().forgetful();
        each.stage(database);
        TestListenerAdapter results = new TestListenerAdapter();
        TestNG testng = new TestNG(false);
        testng.setVerbose(0);
        testng.setTestClasses(new Class<?>[] {Verification.class});
        testng.addListener(results);
        testng.run();

        ProbeConnectionFactory used = database;
        DynamicTest ran = DynamicTest.dynamicTest("runs, and closes every connection", () -> {
            assertThat(results.getPassedTests()).hasSizeGreaterThan(each.shape().mono ? 10 : 20);
            Await.until(() -> used.live() == 0, () -> used.live() + " connections left open");
            assertThat(used.violations()).isEmpty();
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
            List<ITestResult> results,
            BiFunction<ITestResult, Throwable, org.junit.jupiter.api.function.Executable> test) {
        return results.stream()
                .map(result -> DynamicTest.dynamicTest(result.getName(), test.apply(result, result.getThrowable())));
    }

    /** Where its subscriber would be refused to wait for its queue, a signal would be lost that every scope has given. */
    @Test
    void itsOwnSubscriberMayWaitForItsQueueOnANonBlockingThread() throws Throwable {
        TestEnvironment environment = new TestEnvironment(PATIENCE_MILLIS, SILENCE_MILLIS, SILENCE_MILLIS);
        Object blocks = new Object() {
            @Override
            public String toString() { // which the queue asks for
                try {
                    new CountDownLatch(1).await(1, TimeUnit.MILLISECONDS);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
                return "an element";
            }
        };
        TestEnvironment.ManualSubscriber<Object> subscriber =
                environment.newManualSubscriber(Flux.just(blocks).publishOn(Schedulers.parallel()));

        assertThat(subscriber.requestNextElement()).isSameAs(blocks);
        environment.verifyNoAsyncErrorsNoDelay();
    }

    /** Not found by the build itself, which looks at top-level classes only. */
    public static final class Verification extends PublisherVerification<Integer> {

        private final Form form;
        private final ProbeConnectionFactory database;

        public Verification(Form form, ProbeConnectionFactory database) {
            super(new TestEnvironment(PATIENCE_MILLIS, SILENCE_MILLIS, SILENCE_MILLIS));
            this.form = form;
            this.database = database;
        }

        @Factory
        public static Object[] ofTheForm() {
            return new Object[] {new Verification(ReactiveStreamsTckTest.form, ReactiveStreamsTckTest.database)};
        }

        @Override
        public Publisher<Integer> createPublisher(long elements) {
            return form.shape()
                    .of(ConnectionScopes.of(database), c -> Flux.range(1, (int) Math.min(elements, Integer.MAX_VALUE)));
        }

        @Override
        public Publisher<Integer> createFailedPublisher() {
            return form.shape()
                    .of(ConnectionScopes.of(database), c -> Mono.error(new IllegalStateException("as wanted")));
        }

        @Override
        public long maxElementsFromPublisher() {
            return form.shape().mono ? 1 : Long.MAX_VALUE - 1; // the maximum would mean that it never completes
        }
    }
}
