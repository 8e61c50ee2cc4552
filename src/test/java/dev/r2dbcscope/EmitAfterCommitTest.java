package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Flux;

/** A Flux whose elements come after the COMMIT. */
@Tag("lifecycle-3")
class EmitAfterCommitTest {

    private static final int MAX = 4;

    private static final List<String> COMMITTED = List.of("create", "begin#1", "commit#1", "close#1");
    private static final List<String> ROLLED_BACK = List.of("create", "begin#1", "rollback#1", "close#1");

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final ConnectionScopes plain = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withName("report")));
    private final ConnectionScopes scopes =
            plain.transactions(TransactionOptions.defaults().withEmitAfterCommit(MAX));
    private final IllegalStateException failure = new IllegalStateException("own");

    private static <T> Probe<T> run(Flux<T> scope, Probe<T> probe) {
        scope.subscribe(probe);
        return probe;
    }

    @ParameterizedTest
    @EnumSource(
            value = Form.Shape.class,
            names = {"IN_TRANSACTION_MANY", "TRANSACTIONAL_FLUX"})
    void emitsNothingBeforeTheConnectionWasGivenBack(Form.Shape shape) {
        Step<Integer> close = new Step<>();
        database.on("close", close);

        Probe<Integer> probe = run(Flux.from(shape.of(scopes, c -> Flux.range(1, MAX))), Probe.unbounded());

        assertThat(close.isReached()).isTrue();
        assertThat(probe.values()).isEmpty();
        close.complete();
        assertThat(probe.values()).containsExactly(1, 2, 3, 4);
        assertThat(probe.isCompleted()).isTrue();
        assertThat(database.log()).isEqualTo(COMMITTED);
    }

    @Test
    void completesWithoutElements() {
        Probe<Integer> probe = run(scopes.inTransactionMany(c -> Flux.<Integer>empty()), Probe.unbounded());

        assertThat(probe.isCompleted()).isTrue();
        assertThat(database.log()).isEqualTo(COMMITTED);
    }

    @Test
    void emitsAsItIsAskedFor() {
        Probe<Integer> probe = run(scopes.inTransactionMany(c -> Flux.range(1, MAX)), Probe.requesting(0));

        assertThat(database.log()).isEqualTo(COMMITTED);
        assertThat(probe.values()).isEmpty();
        probe.request(1);
        assertThat(probe.values()).containsExactly(1);
        probe.request(2);
        assertThat(probe.values()).containsExactly(1, 2, 3);
        assertThat(probe.isTerminated()).isFalse();
        probe.request(1);
        assertThat(probe.isCompleted()).isTrue();
        assertThat(probe.drops().values()).isEmpty();
    }

    @Test
    @Tag("lifecycle-23")
    void isCommittedWhenOnlySomeElementsAreTaken() {
        Probe<Integer> probe =
                run(scopes.inTransactionMany(c -> Flux.range(1, MAX)).take(1), Probe.unbounded());

        assertThat(probe.values()).containsExactly(1);
        assertThat(probe.drops().values()).containsExactlyInAnyOrder(2, 3, 4);
        assertThat(database.log()).isEqualTo(COMMITTED);
    }

    @Nested
    class Overflow {

        @Test
        void rollsBackAndSaysWhatToDo() {
            AtomicLong requested = new AtomicLong();
            List<Integer> made = new ArrayList<>();

            Probe<Integer> probe = run(
                    scopes.inTransactionMany(c -> Flux.range(1, 1_000)
                            .doOnRequest(requested::addAndGet)
                            .doOnNext(made::add)),
                    Probe.unbounded());

            assertThat(probe.error())
                    .isInstanceOf(HeldBackOverflowException.class)
                    .hasMessageContaining("more than the 4 elements")
                    .hasMessageContaining("raise TransactionOptions.withEmitAfterCommit")
                    .hasMessageContaining("scope 'report' assembled at " + EmitAfterCommitTest.class.getName());
            assertThat(database.log()).isEqualTo(ROLLED_BACK);
            assertThat(requested).hasValue(MAX + 1);
            assertThat(made).containsExactly(1, 2, 3, 4, 5);
            assertThat(probe.values()).isEmpty();
            assertThat(probe.drops().values()).containsExactlyElementsOf(made);
            assertThat(probe.drops().errors()).isEmpty();
        }

        @Test
        void isNotHiddenByAnOnErrorContinueDownstream() {
            List<Throwable> continued = new ArrayList<>();

            Probe<Integer> probe = run(
                    scopes.inTransactionMany(c -> Flux.range(1, 1_000))
                            .onErrorContinue((error, value) -> continued.add(error)),
                    Probe.unbounded());

            assertThat(probe.error()).isInstanceOf(HeldBackOverflowException.class);
            assertThat(continued).isEmpty();
            assertThat(database.log()).isEqualTo(ROLLED_BACK);
        }

        @Test
        void neverComesOfALargeBound() {
            ConnectionScopes large =
                    plain.transactions(TransactionOptions.defaults().withEmitAfterCommit(Integer.MAX_VALUE));

            Probe<Integer> probe = run(large.inTransactionMany(c -> Flux.range(1, 10_000)), Probe.unbounded());

            assertThat(probe.values()).hasSize(10_000);
        }
    }

    @Nested
    class ElementsThatAreNeverEmitted {

        @Test
        void areDiscardedOneByOneWhenTheBodyFails() {
            Probe<String> probe = run(
                    scopes.inTransactionMany(c -> Flux.just("a", "b").concatWith(Flux.error(failure))),
                    Probe.unbounded());

            assertThat(probe.error()).isSameAs(failure);
            assertThat(probe.drops().values()).containsExactly("a", "b");
            assertThat(database.log()).isEqualTo(ROLLED_BACK);
        }

        @Test
        void areDiscardedOneByOneWhenTheCommitFails() {
            database.on("commit", () -> Flux.error(failure));

            Probe<String> probe = run(scopes.inTransactionMany(c -> Flux.just("a", "b")), Probe.unbounded());

            assertThat(probe.error()).isSameAs(failure);
            assertThat(probe.drops().values()).containsExactly("a", "b");
        }

        @ParameterizedTest
        @ValueSource(strings = {"commit", "close"})
        @Tag("lifecycle-26")
        void areDiscardedOneByOneOnACancelDuringTheExit(String step) {
            Step<Integer> reached = new Step<>();
            database.on(step, reached);
            List<String> typed = new ArrayList<>();

            Probe<String> probe = run(
                    scopes.inTransactionMany(c -> Flux.just("a", "b")).doOnDiscard(String.class, typed::add),
                    Probe.unbounded());
            probe.cancel();
            reached.complete();

            assertThat(probe.values()).isEmpty();
            assertThat(typed).containsExactly("a", "b");
            assertThat(probe.drops().values()).containsExactly("a", "b");
            assertThat(database.log()).isEqualTo(COMMITTED);
        }

        @Test
        void areDiscardedOneByOneOnACancelOfTheBody() {
            Probe<String> probe =
                    run(scopes.inTransactionMany(c -> Flux.just("a", "b").concatWith(Flux.never())), Probe.unbounded());
            probe.cancel();

            assertThat(probe.drops().values()).containsExactly("a", "b");
            assertThat(database.log()).isEqualTo(ROLLED_BACK);
        }

        @Test
        void areDiscardedOneByOneOnACancelInTheMiddle() {
            Probe<String> probe = run(scopes.inTransactionMany(c -> Flux.just("a", "b", "c")), Probe.requesting(1));
            probe.cancel();

            assertThat(probe.values()).containsExactly("a");
            assertThat(probe.drops().values()).containsExactly("b", "c");
        }
    }

    @Test
    @Tag("lifecycle-44")
    void emitsAfterTheInnerScopesOwnEndWhenItJoins() {
        Probe<Integer> probe = run(
                plain.inTransactionMany(outer -> scopes.inTransactionMany(
                                inner -> Rows.ints(inner, "first").concatWith(Rows.ints(inner, "second")))
                        .concatMap(element -> Rows.ints(outer, "after"))),
                Probe.unbounded());

        assertThat(probe.values()).containsExactly(1, 1);
        assertThat(database.log())
                .containsExactly(
                        "create", "begin#1", "first#1", "second#1", "after#1", "after#1", "commit#1", "close#1");
    }
}
