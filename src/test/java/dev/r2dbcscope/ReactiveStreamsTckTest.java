package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicContainer;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.reactivestreams.Publisher;
import org.reactivestreams.tck.PublisherVerification;
import org.reactivestreams.tck.TestEnvironment;
import org.testng.annotations.Factory;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** The Reactive Streams TCK, for every form of a scope: each of its tests is a test here. */
class ReactiveStreamsTckTest {

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
        ProbeConnectionFactory used = database;
        return TckTests.of(Verification.class, each.shape().mono ? 10 : 20, () -> {
            Await.until(() -> used.live() == 0, () -> used.live() + " connections left open");
            assertThat(used.violations()).isEmpty();
        });
    }

    /** Where its subscriber would be refused to wait for its queue, a signal would be lost that every scope has given. */
    @Test
    void itsOwnSubscriberMayWaitForItsQueueOnANonBlockingThread() throws Throwable {
        TestEnvironment environment = TckTests.environment();
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
            super(TckTests.environment());
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
