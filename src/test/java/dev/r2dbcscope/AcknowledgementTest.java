package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import io.r2dbc.spi.Result;
import java.lang.reflect.Proxy;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.test.publisher.TestPublisher;

/** Waiting for a statement without rows, and for its results. */
class AcknowledgementTest {

    private final TestPublisher<Result> statement = TestPublisher.create();
    private final TestPublisher<Long> counts = TestPublisher.create();
    private final Probe<Void> probe = Probe.unbounded();
    private final IllegalStateException first = new IllegalStateException("first");
    private final IllegalStateException second = new IllegalStateException("second");

    private static Result counting(Publisher<Long> rowsUpdated) {
        return (Result) Proxy.newProxyInstance(
                AcknowledgementTest.class.getClassLoader(),
                new Class<?>[] {Result.class},
                (proxy, method, arguments) -> rowsUpdated);
    }

    private void start() {
        new Acknowledgement(statement.flux()).subscribe(probe);
        statement.next(counting(counts));
    }

    @Test
    void completesWithTheLastOfTheStatementAndItsResults() {
        start();
        statement.complete();
        assertThat(probe.isTerminated()).isFalse();
        counts.complete();
        assertThat(probe.isCompleted()).isTrue();
    }

    @Test
    void anErrorThatTheStatementAndItsResultShareIsToldOnce() {
        start();
        counts.error(first);
        statement.error(first);
        assertThat(probe.error()).isSameAs(first);
        assertThat(probe.drops().errors()).isEmpty();
        probe.assertSound();
    }

    @Test
    void anotherErrorIsNotLost() {
        start();
        counts.error(first);
        statement.error(second);
        assertThat(probe.error()).isSameAs(first);
        assertThat(probe.drops().errors()).containsExactly(second);
        probe.assertSound();
    }

    @Test
    void anErrorAfterTheCancelConcernsNobody() {
        TestPublisher<Result> deaf = TestPublisher.createNoncompliant(TestPublisher.Violation.CLEANUP_ON_TERMINATE);
        new Acknowledgement(deaf.flux()).subscribe(probe);
        probe.cancel();
        deaf.error(first);
        assertThat(probe.isTerminated()).isFalse();
        assertThat(probe.drops().errors()).isEmpty();
    }

    @Test
    void aCancelReachesTheStatementAndTheResultThatIsBeingRead() {
        start();
        probe.cancel();
        statement.assertCancelled();
        counts.assertCancelled();
    }
}
