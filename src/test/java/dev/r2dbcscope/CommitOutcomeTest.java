package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.R2dbcNonTransientResourceException;
import io.r2dbc.spi.R2dbcRollbackException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;
import org.junit.jupiter.params.provider.ValueSource;
import reactor.core.publisher.Mono;

/** Which failures of a COMMIT leave its outcome unknown, and which are the database's refusal. */
@Tag("lifecycle-63")
class CommitOutcomeTest {

    static final List<Throwable> REFUSALS = List.of(
            new R2dbcRollbackException("conflict", "40001"),
            new R2dbcRollbackException("deadlock", "40P01"),
            new R2dbcRollbackException("answered with ROLLBACK"),
            new R2dbcRollbackException("answered with ROLLBACK", "99999"),
            new R2dbcNonTransientResourceException("duplicate", "23505"),
            new R2dbcNonTransientResourceException("cancelled by the server", "57014"),
            new IllegalStateException("of the driver"));

    @RegisterExtension
    final Witness witness = new Witness();

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final ProbeConnectionFactory database = witness.watch(ProbeConnectionFactory.of());
    private final List<ScopeEvent> events = new CopyOnWriteArrayList<>();
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database)
            .with(ScopeOptions.defaults().withName("payment").withListener(events::add)));

    private Throwable commitFails(Throwable error) {
        database.on("commit", () -> Mono.error(error));
        Probe<Integer> probe = Probe.unbounded();
        scopes.inTransaction(c -> Mono.just(1)).subscribe(probe);
        Throwable met = probe.awaitEnd().error();
        assertThat(met).isNotNull();
        assertThat(probe.values()).isEmpty();
        assertThat(probe.drops().values()).containsExactly(1);
        return met;
    }

    private ScopeEvent.Released released() {
        return (ScopeEvent.Released) events.get(events.size() - 1);
    }

    private void assertUnknown(Throwable met, Throwable cause) {
        assertThat(met)
                .isInstanceOf(CommitOutcomeUnknownException.class)
                .hasCause(cause)
                .hasMessageContaining("whether the transaction was committed is not known")
                .hasMessageContaining("scope 'payment' assembled at ")
                .hasNoSuppressedExceptions();
        assertThat(database.log()).startsWith("create", "begin#1", "commit#1").endsWith("close#1");
        assertThat(database.log()).doesNotContain("rollback#1");
        assertThat(released().destroyed()).isTrue();
        assertThat(released().error()).isSameAs(met);
    }

    @ParameterizedTest
    @ValueSource(strings = {"08000", "08003", "08006", "08007", "40003"})
    void isUnknownWhenTheErrorIsTheConnections(String sqlState) {
        Throwable lost = new R2dbcNonTransientResourceException("gone", sqlState);

        assertUnknown(commitFails(lost), lost);
    }

    @Test
    void isUnknownWhenTheConnectionIsNoLongerAlive() {
        IllegalStateException closed = new IllegalStateException("channel closed");
        database.on("validate", () -> Mono.error(new IllegalStateException("not connected")));

        assertUnknown(commitFails(closed), closed);
    }

    @ParameterizedTest
    @FieldSource("REFUSALS")
    void isARefusalWhenTheDatabaseAnswered(Throwable refusal) {
        assertThat(commitFails(refusal)).isSameAs(refusal).hasNoSuppressedExceptions();

        assertThat(database.log()).containsExactly("create", "begin#1", "commit#1", "rollback#1", "close#1");
        assertThat(released().destroyed()).isFalse();
    }

    @Test
    @Tag("lifecycle-70")
    void namesTheSwallowedErrorUnderACommitThatWasAnsweredWithRollback() {
        R2dbcNonTransientResourceException swallowed = new R2dbcNonTransientResourceException("duplicate", "23505");
        R2dbcRollbackException answered = new R2dbcRollbackException("answered with ROLLBACK");
        database.on("work", () -> Mono.error(swallowed)).on("commit", () -> Mono.error(answered));
        Probe<Integer> probe = Probe.unbounded();

        scopes.inTransaction(c -> Rows.ints(c, "work").onErrorReturn(-1)).subscribe(probe);

        assertThat(probe.awaitEnd().error()).isSameAs(answered);
        assertThat(answered.getSuppressed()).containsExactly(swallowed);
    }

    @Test
    void isKnownWhenTheCommitCouldNotBeSent() {
        database.on("endless", Mono::never);
        Probe<Integer> probe = Probe.unbounded();

        scopes.with(ScopeOptions.defaults().withReleaseTimeout(Duration.ofMillis(20)))
                .inTransaction(c -> {
                    Rows.ints(c, "endless").subscribe(Probe.unbounded());
                    return Mono.just(1);
                })
                .subscribe(probe);

        assertThat(probe.awaitEnd().error()).isInstanceOf(ScopeReleaseException.class);
        assertThat(database.log()).doesNotContain("commit#1");
    }
}
