package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.assertThatNullPointerException;

import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import io.r2dbc.spi.R2dbcTransientResourceException;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.springframework.dao.PessimisticLockingFailureException;

/** Which errors are retried, and after which wait. */
class RetryPolicyTest {

    private static final ScopeLabel LABEL = ScopeLabel.here("retried");

    private final RetryPolicy policy = RetryPolicy.serialization(5);

    private static R2dbcException of(String sqlState) {
        return new R2dbcTransientResourceException("scripted", sqlState);
    }

    @Nested
    class Decides {

        @ParameterizedTest
        @ValueSource(strings = {"40000", "40001", "40002", "40P01"})
        void onSerializationFailuresAndDeadlocks(String sqlState) {
            assertThat(policy.retries(of(sqlState))).isTrue();
            assertThat(policy.retries(new PessimisticLockingFailureException("translated", of(sqlState))))
                    .isTrue();
            assertThat(policy.retries(new IllegalStateException(new IllegalStateException(of(sqlState)))))
                    .isTrue();
        }

        @ParameterizedTest
        @ValueSource(strings = {"23505", "08006", "57014", "55P03", "25P02", "4", "", "14000"})
        void againstOtherErrors(String sqlState) {
            assertThat(policy.retries(of(sqlState))).isFalse();
            assertThat(policy.retries(new IllegalStateException(of(sqlState)))).isFalse();
        }

        @Test
        void againstErrorsWithoutASqlState() {
            assertThat(policy.retries(new IllegalStateException("40001"))).isFalse();
            assertThat(policy.retries(new R2dbcRollbackException("40001"))).isFalse();
        }

        @Test
        void againstAnUnknownCompletionWhereverItIsInTheChain() {
            R2dbcException unknown = of("40003");

            assertThat(policy.retries(unknown)).isFalse();
            assertThat(policy.retries(new IllegalStateException(unknown))).isFalse();
            assertThat(policy.retries(new R2dbcRollbackException("outer", "40001", unknown)))
                    .isFalse();
            assertThat(policy.alsoOn(error -> true).retries(unknown)).isFalse();
        }

        @Test
        void againstAnUnknownOutcomeWhereverItIsInTheChain() {
            Throwable unknown = new CommitOutcomeUnknownException("lost", LABEL, of("40001"));

            assertThat(policy.retries(unknown)).isFalse();
            assertThat(policy.retries(new R2dbcRollbackException("outer", "40001", unknown)))
                    .isFalse();
            assertThat(policy.retries(new ScopeRolledBackException("joined", LABEL, unknown)))
                    .isFalse();
            assertThat(policy.alsoOn(error -> true).retries(unknown)).isFalse();
            assertThat(policy.alsoOn(error -> true).retries(new IllegalStateException(unknown)))
                    .isFalse();
        }

        @Test
        void againstTheErrorsOfScopes() {
            RetryPolicy eager = policy.alsoOn(error -> true);

            assertThat(eager.retries(new HeldBackOverflowException("too many", LABEL)))
                    .isFalse();
            assertThat(eager.retries(new ScopeReleaseException("not answered", LABEL, of("40001"))))
                    .isFalse();
            assertThat(eager.retries(new ScopeAcquisitionException("none", LABEL, null)))
                    .isFalse();
            assertThat(eager.retries(new ScopeRolledBackException("asked for", LABEL, null)))
                    .isFalse();
        }

        @Test
        void onTheFailureOfAJoinedScope() {
            Throwable joined = new ScopeRolledBackException("joined", LABEL, new IllegalStateException(of("40001")));

            assertThat(policy.retries(joined)).isTrue();
            assertThat(policy.retries(new ScopeRolledBackException("joined", LABEL, joined)))
                    .isTrue();
            assertThat(policy.retries(new ScopeRolledBackException("joined", LABEL, of("23505"))))
                    .isFalse();
        }

        @Test
        void onWhateverThePredicatesSay() {
            RetryPolicy more = policy.alsoOn(IllegalStateException.class::isInstance)
                    .alsoOn(error -> error instanceof R2dbcException known && "55P03".equals(known.getSqlState()));

            assertThat(more.retries(of("40001"))).isTrue();
            assertThat(more.retries(of("55P03"))).isTrue();
            assertThat(more.retries(new ScopeRolledBackException("joined", LABEL, of("55P03"))))
                    .isTrue();
            assertThat(more.retries(new IllegalStateException("own"))).isTrue();
            assertThat(more.retries(new IllegalArgumentException("own"))).isFalse();
            assertThat(policy.retries(new IllegalStateException("own"))).isFalse();
        }

        @Test
        void inTheFaceOfCircularCauses() {
            IllegalStateException first = new IllegalStateException("first");
            first.initCause(new IllegalStateException("second", first));

            assertThat(policy.retries(first)).isFalse();
        }

        @Test
        void whatIsBehindAnErrorThatSaysOnlyThatTheTransactionFailed() {
            AbortReason reason = new AbortReason();
            R2dbcException conflict = of("40001");
            R2dbcException refused = of("25P02");

            assertThat(reason.behind(refused)).isNull();
            reason.failed(of("23505"));
            reason.failed(conflict);
            reason.failed(refused);
            reason.failed(new IllegalStateException("of a mapper"));

            assertThat(reason.behind(refused)).isSameAs(conflict);
            assertThat(reason.behind(new IllegalStateException(refused))).isSameAs(conflict);
            assertThat(reason.behind(new R2dbcRollbackException("answered with ROLLBACK")))
                    .isSameAs(conflict);
            assertThat(reason.behind(new R2dbcRollbackException("answered with ROLLBACK", "99999")))
                    .isSameAs(conflict);
            assertThat(reason.behind(new R2dbcRollbackException("own", "40001")))
                    .isNull();
            assertThat(reason.behind(new R2dbcNonTransientResourceException("gone")))
                    .isNull();
            assertThat(reason.behind(new IllegalStateException("own"))).isNull();
        }
    }

    @Nested
    class Waits {

        private final RetryPolicy exact = policy.withBackoff(Duration.ofMillis(100), Duration.ofMillis(700))
                .withJitter(0);

        @Test
        void twiceAsLongEachTimeUpToTheLongest() {
            assertThat(List.of(1, 2, 3, 4, 5, 63, 64, 1000, Integer.MAX_VALUE))
                    .extracting(retry -> exact.backoff(retry).toMillis())
                    .containsExactly(100L, 200L, 400L, 700L, 700L, 700L, 700L, 700L, 700L);
        }

        @Test
        void forEverWithoutAnOverflow() {
            RetryPolicy patient = exact.withBackoff(Duration.ofNanos(1), Duration.ofSeconds(Long.MAX_VALUE));

            assertThat(patient.backoff(1)).isEqualTo(Duration.ofNanos(1));
            assertThat(patient.backoff(62)).isPositive();
            assertThat(patient.backoff(Integer.MAX_VALUE)).isPositive();
        }

        @ParameterizedTest
        @ValueSource(doubles = {0.1, 0.5, 1.0})
        void upToTheJitterShorter(double jitter) {
            long[] waits = new long[20_000];
            Arrays.setAll(waits, i -> exact.withJitter(jitter).backoff(2).toNanos());
            double full = 200_000_000;

            assertThat(Arrays.stream(waits).min().orElseThrow())
                    .isBetween((long) (full * (1 - jitter)), (long) (full * (1 - jitter * 0.9)));
            assertThat(Arrays.stream(waits).max().orElseThrow())
                    .isBetween((long) (full * (1 - jitter * 0.1)), (long) full);
            assertThat(Arrays.stream(waits).average().orElseThrow())
                    .isBetween(full * (1 - jitter * 0.55), full * (1 - jitter * 0.45));
        }

        @Test
        void byDefaultFromFiveMillisecondsToASecond() {
            for (int i = 0; i < 1_000; i++) {
                assertThat(policy.backoff(1)).isBetween(Duration.ofMillis(5), Duration.ofMillis(10));
                assertThat(policy.backoff(2)).isBetween(Duration.ofMillis(10), Duration.ofMillis(20));
                assertThat(policy.backoff(100)).isBetween(Duration.ofMillis(500), Duration.ofSeconds(1));
            }
        }
    }

    @Nested
    @SuppressWarnings("NullAway")
    class RefusesBadInput {

        @ParameterizedTest
        @ValueSource(ints = {0, -1, Integer.MIN_VALUE})
        void asNumberOfRetries(int maxRetries) {
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> RetryPolicy.serialization(maxRetries))
                    .withMessage("maxRetries must be positive: " + maxRetries);
        }

        @Test
        void asBackoff() {
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> policy.withBackoff(Duration.ZERO, Duration.ofSeconds(1)))
                    .withMessage("first must be positive: PT0S");
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> policy.withBackoff(Duration.ofSeconds(2), Duration.ofSeconds(1)))
                    .withMessage("max must not be shorter than first: PT1S");
            assertThatNullPointerException()
                    .isThrownBy(() -> policy.withBackoff(null, Duration.ofSeconds(1)))
                    .withMessage("first");
            assertThatNullPointerException()
                    .isThrownBy(() -> policy.withBackoff(Duration.ofSeconds(1), null))
                    .withMessage("max");
        }

        @ParameterizedTest
        @ValueSource(doubles = {-0.01, 1.01, Double.NaN, Double.POSITIVE_INFINITY})
        void asJitter(double jitter) {
            assertThatIllegalArgumentException()
                    .isThrownBy(() -> policy.withJitter(jitter))
                    .withMessage("jitter must be from 0.0 to 1.0: " + jitter);
        }

        @Test
        void asPredicate() {
            assertThatNullPointerException()
                    .isThrownBy(() -> policy.alsoOn(null))
                    .withMessage("predicate");
        }
    }

    @Test
    void isACopyAtEveryChange() {
        RetryPolicy changed = policy.withBackoff(Duration.ofSeconds(3), Duration.ofSeconds(4))
                .withJitter(0.25)
                .alsoOn(error -> true);

        assertThat(policy).hasToString("RetryPolicy[maxRetries=5, firstBackoff=PT0.01S, maxBackoff=PT1S, jitter=0.5]");
        assertThat(changed).hasToString("RetryPolicy[maxRetries=5, firstBackoff=PT3S, maxBackoff=PT4S, jitter=0.25]");
        assertThat(changed.maxRetries()).isEqualTo(5);
    }
}
