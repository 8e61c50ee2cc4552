package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.util.context.Context;

/** What is done right before a statement and right after it. */
class StatementGuardTest {

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture logged = new LogCapture();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of().knowingCursors());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(
            ConnectionScopes.of(database).with(ScopeOptions.defaults().withListener(events::add)));
    private final IllegalStateException failure = new IllegalStateException("of the guard");
    private final Guard guard = new Guard();
    private final Probe<Integer> probe = Probe.unbounded();

    /** Notes what it hears, and does what the test says. */
    private static final class Guard implements StatementGuard {

        private final Step<Void> before = new Step<>();
        private final Step<Void> after = new Step<>();
        private final List<@Nullable Throwable> heard = new ArrayList<>();

        @Override
        public Publisher<?> before() {
            return before.publisher();
        }

        @Override
        public Publisher<?> after(@Nullable Throwable error) {
            heard.add(error);
            return after.publisher();
        }
    }

    private Flux<Integer> guarded(Flux<Integer> rows) {
        return rows.contextWrite(context -> StatementGuard.write(context, guard));
    }

    private void twoStatements() {
        scopes.withConnectionMany(c -> Flux.merge(guarded(Rows.ints(c, "guarded")), Rows.ints(c, "next")))
                .subscribe(probe);
    }

    private boolean isDestroyed() {
        return events.stream().anyMatch(event -> event instanceof ScopeEvent.Released released && released.destroyed());
    }

    @Test
    void isFoundInTheContextThatItWasWrittenTo() {
        assertThat(StatementGuard.in(StatementGuard.write(Context.empty(), guard)))
                .isSameAs(guard);
        assertThat(StatementGuard.in(Context.empty())).isNull();
    }

    @Test
    void surroundsTheStatementAndNothingComesInBetween() {
        twoStatements();
        assertThat(database.log()).containsExactly("create");
        guard.before.complete();
        assertThat(database.log()).containsExactly("create", "guarded#1");
        assertThat(probe.values()).as("its rows come meanwhile").containsExactly(1);
        assertThat(guard.heard).hasSize(1).containsOnlyNulls();
        guard.after.complete();
        assertThat(database.log()).containsExactly("create", "guarded#1", "next#1", "close#1");
        assertThat(probe.isCompleted()).isTrue();
    }

    @Test
    void hearsTheErrorOfTheStatement() {
        IllegalStateException ofTheStatement = new IllegalStateException("of the statement");
        database.on("guarded", () -> Mono.error(ofTheStatement));
        twoStatements();
        guard.before.complete();
        assertThat(guard.heard).containsExactly(ofTheStatement);
        guard.after.complete();
        assertThat(probe.awaitEnd().error()).isSameAs(ofTheStatement);
        assertThat(isDestroyed()).isFalse();
    }

    @Test
    void thatFailsBeforeFailsTheStatementWhichIsNotSent() {
        twoStatements();
        guard.before.fail(failure);
        assertThat(probe.awaitEnd().error()).isSameAs(failure);
        assertThat(database.log()).doesNotContain("guarded#1");
        assertThat(guard.heard).isEmpty();
        assertThat(isDestroyed()).isFalse();
    }

    @Test
    void thatFailsAfterwardsCostsTheConnection() {
        scopes.withConnectionMany(c -> guarded(Rows.ints(c, "guarded"))
                        .concatWith(Mono.fromRunnable(() -> guard.after.fail(failure)))
                        .concatWith(Rows.ints(c, "next")))
                .subscribe(probe);
        guard.before.complete();
        assertThat(probe.awaitEnd().values()).containsExactly(1);
        assertThat(probe.error()).isInstanceOf(ScopeClosedException.class);
        assertThat(database.log()).containsExactly("create", "guarded#1", "close#1");
        assertThat(isDestroyed()).isTrue();
    }

    @Test
    void letsAQueryWithAFetchSizeBeReadAsTheDriverDoesIt() {
        guard.before.complete();
        guard.after.complete();
        scopes.inTransactionMany((Connection c) ->
                        guarded(Rows.ints(c.createStatement("query").fetchSize(4))))
                .subscribe(probe);
        assertThat(probe.awaitEnd().values()).containsExactly(1);
        assertThat(database.log()).containsExactly("create", "begin#1", "query#1", "commit#1", "close#1");
    }
}
