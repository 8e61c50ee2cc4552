package dev.r2dbcscope;

import java.time.Duration;
import org.jspecify.annotations.Nullable;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;
import reactor.util.retry.Retry;

/**
 * The attempts at one transaction, for one subscriber.
 *
 * <p>Each is a scope of its own, whose exit is over before its error comes here. The waits are on the parallel scheduler;
 * nothing is held during them.
 */
final class Attempts extends Retry {

    private final RetryPolicy policy;
    private final ScopeLabel label;
    private volatile @Nullable Session latest;

    Attempts(RetryPolicy policy, ScopeLabel label) {
        this.policy = policy;
        this.label = label;
    }

    /** Takes notice of the session of an attempt that begins. */
    void beginning(Session session) {
        latest = session;
    }

    /** An {@code onErrorContinue} downstream must not swallow the error that ends the attempts. */
    @Override
    public Publisher<?> generateCompanion(Flux<RetrySignal> failures) {
        return failures.concatMap(this::after).onErrorStop();
    }

    private Mono<Long> after(RetrySignal failed) {
        Throwable error = failed.failure();
        Session session = latest;
        if (session == null || !isRetried(error, session)) {
            return Mono.error(error);
        }
        if (failed.totalRetries() >= policy.maxRetries()) {
            error.addSuppressed(new ScopeRolledBackException(
                    "The transaction was rolled back in each of " + (failed.totalRetries() + 1) + " attempts, the most"
                            + " that its retry policy allows; shorten the transaction, or allow more retries",
                    label,
                    null));
            return Mono.error(error);
        }
        int attempt = (int) failed.totalRetries() + 1;
        Duration backoff = policy.backoff(attempt);
        session.report().retrying(attempt, backoff, error);
        return Mono.delay(backoff, Schedulers.parallel());
    }

    private boolean isRetried(Throwable error, Session session) {
        Throwable reason = session.abortReason().behind(error);
        return policy.retries(error) || reason != null && policy.retries(reason);
    }
}
