package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.util.RaceTestUtils;

/** What a cancel meets between two attempts, and between the COMMIT and the elements that were held back for it. */
@Tag("race")
class RetryRaceTest {

    private static final TransactionOptions OPTIONS = TransactionOptions.defaults()
            .withRetry(RetryPolicy.serialization(1).withBackoff(Duration.ofNanos(1), Duration.ofNanos(1)))
            .withEmitAfterCommit(3);

    @Test
    void leavesNothingOpenWhenCancelRacesTheEndOfAnAttempt() {
        for (int i = 0; i < Settling.RACES; i++) {
            Step<Integer> first = new Step<>();
            AtomicInteger calls = new AtomicInteger();
            ProbeConnectionFactory database = ProbeConnectionFactory.of()
                    .on("work", () -> calls.getAndIncrement() == 0 ? first.get() : Mono.just(1));
            ConnectionScopes scopes = ConnectionScopes.of(database).transactions(OPTIONS);
            Probe<Integer> probe = Probe.unbounded();
            scopes.inTransaction(c -> Rows.ints(c, "work")).subscribe(probe);

            RaceTestUtils.race(probe::cancel, () -> first.fail(new R2dbcRollbackException("conflict", "40001")));

            Settling.assertSettled(scopes, database);
            probe.assertSound();
            assertThat(probe.error()).isNull();
            assertThat(calls).hasValueBetween(1, 2);
        }
    }

    @Test
    void emitsOrDiscardsEachElementOnceWhenCancelRacesTheCommit() {
        List<Integer> all = IntStream.rangeClosed(1, 3).boxed().toList();
        for (int i = 0; i < Settling.RACES; i++) {
            Step<Integer> commit = new Step<>();
            ProbeConnectionFactory database = ProbeConnectionFactory.of().on("commit", commit);
            ConnectionScopes scopes = ConnectionScopes.of(database).transactions(OPTIONS);
            Probe<Integer> probe = Probe.unbounded();
            scopes.inTransactionMany(c -> Flux.fromIterable(all)).subscribe(probe);

            RaceTestUtils.race(probe::cancel, commit::complete);

            Settling.assertSettled(scopes, database);
            probe.assertSound();
            List<Object> seen = new ArrayList<>(probe.values());
            seen.addAll(probe.drops().values());
            assertThat(seen).containsExactlyInAnyOrderElementsOf(all);
        }
    }
}
