package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import dev.r2dbcscope.testkit.ProbeHold;
import java.time.Duration;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The examples of README.md about the probe. {@link ReadmeTest} checks that what is printed there is what runs here. */
class ReadmeTestkitProbeTest {

    /** Stands for a repository of the user. */
    private static final class Accounts {

        private final ConnectionScopes scopes;

        Accounts(ConnectionScopes scopes) {
            this.scopes = scopes;
        }

        Mono<Integer> deposit() {
            return scopes.inTransaction(
                    connection -> Rows.ints(connection, "update accounts").next());
        }

        Flux<String> names() {
            return scopes.withConnectionMany(connection -> Flux.from(connection
                            .createStatement("select name from accounts")
                            .execute())
                    .flatMap(result -> result.map((row, metadata) -> row.get("value", String.class))));
        }
    }

    // example: probe
    @Test
    void anUnknownOutcomeIsToldAndNotRetried() {
        ProbeConnectionFactory database = ProbeConnectionFactory.of()
                .on("select name from accounts", () -> Flux.just("ann", "bob"))
                .on("commit", ProbeFault.failAfter("08006")); // it commits, and the answer is lost
        Accounts accounts = new Accounts(ConnectionScopes.of(database));

        assertThat(accounts.names().collectList().block()).containsExactly("ann", "bob");
        assertThatThrownBy(() -> accounts.deposit().block()).isInstanceOf(CommitOutcomeUnknownException.class);

        assertThat(database.durable()).containsExactly("select name from accounts", "update accounts");
        assertThat(database.log()).endsWith("create", "begin#2", "update accounts#2", "commit#2", "close#2");
        assertThat(database.live()).isZero();
    }

    @Test
    void whoLeavesBeforeTheCommitHasChangedNothing() {
        ProbeHold hold = ProbeHold.of();
        ProbeConnectionFactory database = ProbeConnectionFactory.of().on("update accounts", ProbeFault.hold(hold));
        Accounts accounts = new Accounts(ConnectionScopes.of(database));

        Disposable request = accounts.deposit().subscribe();
        hold.reached().block(Duration.ofSeconds(10)); // the statement is on its way
        request.dispose();
        hold.release();

        assertThat(database.durable()).isEmpty();
        assertThat(database.log()).endsWith("update accounts#1", "rollback#1", "close#1");
    }
    // end
}
