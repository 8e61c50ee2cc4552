package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Sinks;

/** The result of a query with a fetch size that is not read when it is handed out. */
class UnreadPagesTest {

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of().knowingCursors());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database));
    private final Sinks.Empty<Void> end = Sinks.empty();
    private final Probe<Void> scope = Probe.unbounded();
    private final AtomicReference<Connection> current = new AtomicReference<>();

    @BeforeEach
    void open() {
        scopes.inTransaction(c -> {
                    current.set(c);
                    return end.asMono();
                })
                .subscribe(scope);
    }

    private Probe<Result> execute(Probe<Result> results) {
        Flux.<Result>from(Objects.requireNonNull(current.get())
                        .createStatement("query")
                        .fetchSize(4)
                        .execute())
                .subscribe(results);
        return results;
    }

    private static Probe<Integer> read(Result result) {
        Probe<Integer> rows = Probe.unbounded();
        Flux.from(result.map(row -> row.get(0, Integer.class))).subscribe(rows);
        return rows;
    }

    private void finish() {
        end.tryEmitEmpty().orThrow();
        scope.awaitEnd();
        assertThat(scope.isCompleted()).isTrue();
    }

    @Test
    void sendsNothingBeforeItIsReadIfItsSubscriberMayStillReadIt() {
        Probe<Result> results = execute(Probe.requesting(1));
        assertThat(results.isCompleted()).isTrue();
        assertThat(database.log()).containsExactly("create", "begin#1");
        assertThat(read(results.values().get(0)).awaitEnd().values()).containsExactly(1);
        finish();
    }

    @Test
    void isExecutedForWhoeverWantsEverythingAndCanBeReadThen() {
        Probe<Result> results = execute(Probe.unbounded());
        assertThat(results.isCompleted()).isTrue();
        assertThat(database.log()).containsExactly("create", "begin#1", "query#1");
        assertThat(read(results.values().get(0)).awaitEnd().values()).containsExactly(1);
        finish();
    }

    @Test
    void doesNotLetItsReaderWaitForAnExecutionThatWasCancelled() {
        Step<Integer> answer = new Step<>();
        database.on("query", ProbeFault.delayUntil(answer));
        Probe<Result> results = execute(Probe.unbounded());
        results.cancel();
        Probe<Integer> rows = read(results.values().get(0)).awaitEnd();
        assertThat(rows.error()).isInstanceOf(IllegalStateException.class).hasMessageContaining("cancelled");
        answer.complete(1);
        finish();
        assertThat(results.isTerminated()).isFalse();
    }

    @Test
    void tellsItsReaderOfAnExecutionThatFailed() {
        IllegalStateException failure = new IllegalStateException("the database");
        database.on("query", ProbeFault.fail(() -> failure));
        Probe<Result> results = execute(Probe.unbounded());
        assertThat(results.error()).isSameAs(failure);
        assertThat(read(results.values().get(0)).awaitEnd().error()).isSameAs(failure);
        finish();
    }

    @Test
    void cancelsAnExecutionThatStillWaitsForItsTurn() {
        Step<Integer> begun = new Step<>();
        database.on("savepoint", begun);
        Probe<Void> first = Probe.unbounded();
        Flux.from(Objects.requireNonNull(current.get()).createSavepoint("s")).subscribe(first);
        Probe<Result> results = execute(Probe.unbounded());
        results.cancel();
        begun.complete();
        first.awaitEnd();
        finish();
        assertThat(database.log()).doesNotContain("query#1");
    }
}
