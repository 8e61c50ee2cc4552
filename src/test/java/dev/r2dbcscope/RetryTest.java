package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.EnumSource.Mode;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;

/** Transactions that are tried again. */
class RetryTest {

    private static final Duration WAIT = Duration.ofMillis(100);

    private static final RetryPolicy THREE_TIMES =
            RetryPolicy.serialization(3).withBackoff(WAIT, WAIT.multipliedBy(3)).withJitter(0);

    private static final TransactionOptions RETRYING =
            TransactionOptions.defaults().withRetry(THREE_TIMES).withEmitAfterCommit(100);

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final VirtualTimeScheduler time = witness.virtualTime();
    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes plain = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withName("transfer").withListener(events::add)));
    private final ConnectionScopes scopes = plain.transactions(RETRYING);

    private static R2dbcException conflict() {
        return new R2dbcRollbackException("could not serialize access", "40001");
    }

    /** The step fails the first times, and succeeds then. */
    private void failing(String step, Throwable... errors) {
        AtomicInteger calls = new AtomicInteger();
        database.on(step, () -> {
            int call = calls.getAndIncrement();
            return call < errors.length ? Mono.error(errors[call]) : Mono.just(1);
        });
    }

    private static Flux<Integer> work(Connection connection) {
        return Rows.ints(connection, "work");
    }

    private Probe<Integer> run(Publisher<Integer> scope) {
        Probe<Integer> probe = Probe.unbounded();
        scope.subscribe(probe);
        return probe;
    }

    private Probe<Integer> runToEnd(Publisher<Integer> scope) {
        Probe<Integer> probe = run(scope);
        time.advanceTimeBy(Duration.ofHours(1));
        assertThat(probe.isTerminated()).isTrue();
        probe.assertSound();
        assertThat(probe.drops().errors()).isEmpty();
        return probe;
    }

    private static List<String> attempts(int number, String... ending) {
        List<String> log = new ArrayList<>();
        IntStream.rangeClosed(1, number).forEach(attempt -> {
            log.addAll(List.of("create", "begin#" + attempt, "work#" + attempt));
            log.add((attempt == number ? ending[0] : "rollback") + "#" + attempt);
            log.add("close#" + attempt);
        });
        return log;
    }

    private <E extends ScopeEvent> List<E> events(Class<E> type) {
        return events.stream().filter(type::isInstance).map(type::cast).toList();
    }

    @Nested
    class AFailedTransaction {

        @ParameterizedTest
        @EnumSource(
                value = Form.Shape.class,
                mode = Mode.MATCH_ANY,
                names = {"IN_.*", "TRANSACTIONAL_.*"})
        @Tag("lifecycle-55")
        void isTriedAgainOnAFreshOneAfterItsExit(Form.Shape shape) {
            failing("work", conflict(), conflict());

            Probe<Integer> probe = runToEnd(shape.of(scopes, RetryTest::work));

            assertThat(probe.values()).containsExactly(1);
            assertThat(probe.isCompleted()).isTrue();
            assertThat(database.log()).isEqualTo(attempts(3, "commit"));
        }

        @Test
        void waitsLongerEachTime() {
            failing("work", conflict(), conflict(), conflict());

            Probe<Integer> probe = run(scopes.inTransaction(RetryTest::work));
            for (int attempt = 1; attempt <= 3; attempt++) {
                assertThat(database.log()).isEqualTo(attempts(attempt, "rollback"));
                Duration wait = WAIT.multipliedBy(attempt == 3 ? 3 : attempt);
                time.advanceTimeBy(wait.minusNanos(1));
                assertThat(database.log()).isEqualTo(attempts(attempt, "rollback"));
                time.advanceTimeBy(Duration.ofNanos(1));
            }

            assertThat(database.log()).isEqualTo(attempts(4, "commit"));
            assertThat(probe.values()).containsExactly(1);
        }

        @Test
        void holdsNothingWhileItWaits() {
            failing("work", conflict());

            run(scopes.inTransaction(RetryTest::work));

            assertThat(database.live()).isZero();
            assertThat(scopes.live()).isEmpty();
            time.advanceTimeBy(WAIT);
        }

        @Test
        void isTriedAgainWhenItsCommitWasRefused() {
            failing("commit", conflict());

            Probe<Integer> probe = runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(probe.values()).containsExactly(1);
            assertThat(database.log())
                    .containsExactly(
                            "create",
                            "begin#1",
                            "work#1",
                            "commit#1",
                            "rollback#1",
                            "close#1",
                            "create",
                            "begin#2",
                            "work#2",
                            "commit#2",
                            "close#2");
        }

        @Test
        void isTriedAgainWhenItCouldNotBegin() {
            failing("begin", conflict());

            Probe<Integer> probe = runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(probe.values()).containsExactly(1);
            assertThat(events(ScopeEvent.Retrying.class)).hasSize(1);
        }

        @Test
        void isTriedAgainWhenAJoinedOneFailedAndWasSwallowed() {
            failing("work", conflict());

            Probe<Integer> probe = runToEnd(scopes.inTransaction(
                    c -> plain.inTransaction(RetryTest::work).onErrorReturn(-1)));

            assertThat(probe.values()).containsExactly(1);
            assertThat(database.log()).isEqualTo(attempts(2, "commit"));
        }

        @Test
        @Tag("lifecycle-70")
        void isTriedAgainWhenTheConflictWasSwallowedAndTheCommitAnsweredWithRollback() {
            failing("work", conflict());
            failing("commit", new R2dbcRollbackException("answered with ROLLBACK", "99999"));

            Probe<Integer> probe = runToEnd(scopes.inTransaction(c -> work(c).onErrorReturn(-1)));

            assertThat(probe.values()).containsExactly(1);
            assertThat(events(ScopeEvent.Retrying.class)).hasSize(1);
        }

        @Test
        @Tag("lifecycle-70")
        void isNotTriedAgainWhenAnotherErrorWasSwallowedAndIsNamedUnderTheCommits() {
            R2dbcException duplicate = new R2dbcRollbackException("duplicate", "23505");
            R2dbcException answered = new R2dbcRollbackException("answered with ROLLBACK");
            failing("work", conflict(), duplicate);
            failing("commit", answered);

            Probe<Integer> probe =
                    runToEnd(scopes.inTransaction(c -> work(c).onErrorReturn(-1).thenMany(work(c).onErrorReturn(-1))));

            assertThat(probe.error()).isSameAs(answered).hasSuppressedException(duplicate);
            assertThat(events(ScopeEvent.Retrying.class)).isEmpty();
        }

        @Test
        void isTriedAgainWhenTheConflictWasSwallowedAndAStatementRefusedAfterIt() {
            failing("work", conflict());
            failing("fallback", new R2dbcRollbackException("in failed transaction", "25P02"));

            Probe<Integer> probe =
                    runToEnd(scopes.inTransaction(c -> work(c).onErrorResume(e -> Rows.ints(c, "fallback"))));

            assertThat(probe.values()).containsExactly(1);
            assertThat(database.log()).contains("fallback#1").doesNotContain("fallback#2");
        }

        @Test
        void isNotTriedAgainForAnyOtherError() {
            IllegalStateException own = new IllegalStateException("own");
            failing("work", own);

            Probe<Integer> probe = runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(probe.error()).isSameAs(own).hasNoSuppressedExceptions();
            assertThat(database.log()).isEqualTo(attempts(1, "rollback"));
        }

        @Test
        void isTriedAgainForWhatThePredicateNames() {
            failing("work", new IllegalStateException("own"));
            ConnectionScopes eager = plain.transactions(TransactionOptions.defaults()
                    .withRetry(THREE_TIMES.alsoOn(IllegalStateException.class::isInstance)));

            Probe<Integer> probe = runToEnd(eager.inTransaction(RetryTest::work));

            assertThat(probe.values()).containsExactly(1);
            assertThat(database.log()).isEqualTo(attempts(2, "commit"));
        }

        @Test
        @Tag("lifecycle-63")
        void isNotTriedAgainWhenItsOutcomeIsUnknown() {
            failing("commit", new R2dbcNonTransientResourceException("gone", "08006"));

            Probe<Integer> probe = runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(probe.error()).isInstanceOf(CommitOutcomeUnknownException.class);
            assertThat(database.log()).isEqualTo(attempts(1, "commit"));
        }

        @Test
        @Tag("lifecycle-63")
        void isNotTriedAgainWhenItsCommitIsNotAnswered() {
            database.on("commit", Mono::never);

            Probe<Integer> probe = runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(probe.error()).isInstanceOf(CommitOutcomeUnknownException.class);
            assertThat(database.log()).isEqualTo(attempts(1, "commit"));
        }

        @Test
        void isNotTriedAgainByAnOuterOneWhenTheOutcomeOfAnInnerOneIsUnknown() {
            ProbeConnectionFactory other = witness.watch(ProbeConnectionFactory.of())
                    .on("commit", () -> Mono.error(new R2dbcNonTransientResourceException("gone", "40003")));
            ConnectionScopes inner = witness.watch(ConnectionScopes.of(other));

            Probe<Integer> probe = runToEnd(scopes.inTransaction(c ->
                    work(c).thenMany(inner.inTransaction(RetryTest::work)).onErrorMap(IllegalStateException::new)));

            assertThat(probe.error()).hasCauseInstanceOf(CommitOutcomeUnknownException.class);
            assertThat(database.log()).isEqualTo(attempts(1, "rollback"));
        }
    }

    @Nested
    class UsedUpRetries {

        private final R2dbcException last = conflict();

        @Test
        void passOnTheLastErrorWithANoteOfTheAttempts() {
            failing("work", conflict(), conflict(), conflict(), last);

            Probe<Integer> probe = runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(probe.error()).isSameAs(last);
            assertThat(last.getSuppressed())
                    .singleElement()
                    .isInstanceOfSatisfying(ScopeRolledBackException.class, note -> {
                        assertThat(note).hasMessageContaining("in each of 4 attempts");
                        assertThat(note.scopeName()).isEqualTo("transfer");
                        assertThat(note.scopeOrigin()).contains("passOnTheLastErrorWithANoteOfTheAttempts");
                    });
            assertThat(database.log()).isEqualTo(attempts(4, "rollback"));
        }

        @Test
        void areCountedForEachSubscription() {
            database.on("work", () -> Mono.error(conflict()));
            Mono<Integer> scope = scopes.inTransaction(RetryTest::work);

            runToEnd(scope);
            runToEnd(scope);

            assertThat(database.log().stream().filter("create"::equals)).hasSize(8);
        }

        @Test
        void areNotHiddenByAnOnErrorContinueDownstream() {
            failing("work", conflict(), conflict(), conflict(), last);
            List<Throwable> continued = new ArrayList<>();

            Probe<Integer> probe = run(Flux.from(scopes.inTransaction(c -> work(c).onErrorStop()))
                    .onErrorContinue((error, value) -> continued.add(error)));
            time.advanceTimeBy(Duration.ofHours(1));

            assertThat(probe.error()).isSameAs(last);
            assertThat(continued).isEmpty();
        }
    }

    @Nested
    class ACancel {

        @Test
        void duringTheWaitEndsIt() {
            failing("work", conflict());

            Probe<Integer> probe = run(scopes.inTransaction(RetryTest::work));
            time.advanceTimeBy(WAIT.minusNanos(1));
            probe.cancel();
            time.advanceTimeBy(Duration.ofHours(1));

            assertThat(database.log()).isEqualTo(attempts(1, "rollback"));
            assertThat(probe.isTerminated()).isFalse();
            assertThat(probe.drops().errors()).isEmpty();
        }

        @Test
        void duringASecondAttemptRollsItBack() {
            AtomicInteger calls = new AtomicInteger();
            database.on("work", () -> calls.getAndIncrement() == 0 ? Mono.error(conflict()) : Mono.just(1));

            Probe<Integer> probe = run(scopes.inTransaction(c -> work(c).thenMany(Flux.<Integer>never())));
            time.advanceTimeBy(WAIT);
            probe.cancel();
            time.advanceTimeBy(Duration.ofHours(1));

            assertThat(database.log()).isEqualTo(attempts(2, "rollback"));
            assertThat(probe.isTerminated()).isFalse();
        }
    }

    @Nested
    class InsideAnotherScope {

        @Test
        void aTransactionThatJoinsIsNotTriedAgain() {
            R2dbcException conflict = conflict();
            failing("work", conflict);

            Probe<Integer> probe = runToEnd(plain.inTransaction(c -> scopes.inTransaction(RetryTest::work)));

            assertThat(probe.error()).isSameAs(conflict).hasNoSuppressedExceptions();
            assertThat(database.log()).isEqualTo(attempts(1, "rollback"));
            assertThat(events(ScopeEvent.Retrying.class)).isEmpty();
        }

        @Test
        void onlyTheOutermostOfTwoIsTriedAgain() {
            database.on("work", () -> Mono.error(conflict()));

            runToEnd(scopes.inTransaction(c -> scopes.inTransaction(RetryTest::work)));

            assertThat(database.log()).isEqualTo(attempts(4, "rollback"));
        }

        @Test
        void aTransactionInAPlainOneIsTriedAgainOnTheSameConnection() {
            failing("work", conflict());

            Probe<Integer> probe = runToEnd(plain.withConnection(c -> scopes.inTransaction(RetryTest::work)));

            assertThat(probe.values()).containsExactly(1);
            assertThat(database.log())
                    .containsExactly(
                            "create", "begin#1", "work#1", "rollback#1", "begin#1", "work#1", "commit#1", "close#1");
        }

        @Test
        void aTransactionOfAnotherDatabaseIsTriedAgainByItself() {
            ProbeConnectionFactory other = witness.watch(ProbeConnectionFactory.of());
            ConnectionScopes outer = witness.watch(ConnectionScopes.of(other));
            failing("work", conflict());

            Probe<Integer> probe = runToEnd(outer.inTransaction(c -> scopes.inTransaction(RetryTest::work)));

            assertThat(probe.values()).containsExactly(1);
            assertThat(database.log()).isEqualTo(attempts(2, "commit"));
            assertThat(other.log()).containsExactly("create", "begin#1", "commit#1", "close#1");
        }
    }

    @Nested
    class AListener {

        @Test
        void hearsOfARetryAfterTheReleaseOfTheFailedAttempt() {
            R2dbcException first = conflict();
            R2dbcException second = conflict();
            failing("work", first, second);

            runToEnd(scopes.inTransaction(RetryTest::work));

            List<ScopeEvent> told = events.stream()
                    .filter(event -> event instanceof ScopeEvent.Opened
                            || event instanceof ScopeEvent.Released
                            || event instanceof ScopeEvent.Retrying)
                    .toList();
            assertThat(told)
                    .extracting(Object::getClass)
                    .containsExactly(
                            ScopeEvent.Opened.class,
                            ScopeEvent.Released.class,
                            ScopeEvent.Retrying.class,
                            ScopeEvent.Opened.class,
                            ScopeEvent.Released.class,
                            ScopeEvent.Retrying.class,
                            ScopeEvent.Opened.class,
                            ScopeEvent.Released.class);
            List<ScopeEvent.Retrying> retries = events(ScopeEvent.Retrying.class);
            assertThat(retries).extracting(ScopeEvent.Retrying::attempt).containsExactly(1, 2);
            assertThat(retries).extracting(ScopeEvent.Retrying::backoff).containsExactly(WAIT, WAIT.multipliedBy(2));
            assertThat(retries).extracting(ScopeEvent.Retrying::error).containsExactly(first, second);
            assertThat(retries)
                    .extracting(retry -> retry.scope().id())
                    .containsExactly(
                            told.get(1).scope().id(), told.get(4).scope().id());
            assertThat(told.get(1).scope().id())
                    .isNotEqualTo(told.get(4).scope().id());
        }

        @Test
        void hearsOfARetryAfterAFailedOpening() {
            failing("begin", conflict());

            runToEnd(scopes.inTransaction(RetryTest::work));

            assertThat(events)
                    .extracting(Object::getClass)
                    .startsWith(ScopeEvent.Waiting.class, ScopeEvent.OpenFailed.class, ScopeEvent.Retrying.class);
        }
    }

    @Nested
    class AFluxThatEmitsAsItComes {

        @ParameterizedTest
        @ValueSource(booleans = {true, false})
        void isRefusedAtAssembly(boolean closure) {
            ConnectionScopes streaming =
                    plain.transactions(TransactionOptions.defaults().withRetry(THREE_TIMES));
            Function<ConnectionScopes, Flux<Integer>> assemble = closure
                    ? these -> these.inTransactionMany(RetryTest::work)
                    : these -> these.transactional(Flux.just(1));

            assertThatIllegalArgumentException()
                    .isThrownBy(() -> assemble.apply(streaming))
                    .withMessageContaining("withEmitAfterCommit")
                    .withMessageContaining("scope 'transfer' assembled at " + RetryTest.class.getName());
            assertThat(runToEnd(assemble.apply(plain)).values()).containsExactly(1);
            assertThat(runToEnd(assemble.apply(scopes)).values()).containsExactly(1);
            assertThat(runToEnd(streaming.withConnectionMany(RetryTest::work)).values())
                    .containsExactly(1);
        }
    }

    @Test
    void aDrainDuringTheWaitRefusesTheNextAttempt() {
        failing("work", conflict());

        Probe<Integer> probe = run(scopes.inTransaction(RetryTest::work));
        Probe<Void> drain = Probe.unbounded();
        scopes.drain(Duration.ofMinutes(1)).subscribe(drain);
        assertThat(drain.isCompleted()).isTrue();
        time.advanceTimeBy(WAIT);

        assertThat(probe.error()).isInstanceOf(ScopesDrainedException.class);
        assertThat(database.log()).isEqualTo(attempts(1, "rollback"));
    }
}
