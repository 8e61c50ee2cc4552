package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import dev.r2dbcscope.testkit.ProbeFault;
import java.time.Duration;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Nested;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.test.scheduler.VirtualTimeScheduler;
import reactor.test.subscriber.TestSubscriber;

/** When one of several scopes on a connection could not be ended, none of them sends anything on it any more. */
class LostConnectionTest {

    private static final Duration RELEASE = Duration.ofSeconds(5);

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @RegisterExtension
    final Witness witness = new Witness();

    private final ProbeConnectionFactory database =
            witness.watch(ProbeConnectionFactory.of().servingInOrder());
    private final ConnectionScopes scopes = witness.watch(ConnectionScopes.of(database))
            .with(ScopeOptions.defaults().withReleaseTimeout(RELEASE));
    private final ConnectionScopes nested = scopes.transactions(Propagation.NESTED);
    private VirtualTimeScheduler time;

    @BeforeEach
    void hang() {
        time = witness.virtualTime();
        database.on("stuck", ProbeFault.hang());
    }

    @Test
    void sendsNoRollbackWhenTheSavepointInsideCouldNotBeRolledBackTo() {
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.inTransactionMany(c -> nested.inTransactionMany(inner -> Rows.ints(inner, "stuck")))
                .subscribe(subscriber);

        subscriber.cancel();
        time.advanceTimeBy(RELEASE);

        assertThat(database.log()).containsExactly("create", "begin#1", "savepoint#1", "stuck#1", "close#1");
    }

    @Test
    void sendsNoCommitWhenTheSavepointInsideCouldNotBeRolledBackTo() {
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.inTransaction(c -> Mono.deferContextual(context -> {
                    Disposable inner = nested.inTransactionMany(n -> Rows.ints(n, "stuck"))
                            .contextWrite(context)
                            .subscribe();
                    inner.dispose();
                    return Mono.just(1);
                }))
                .subscribe(subscriber);

        time.advanceTimeBy(RELEASE);

        assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeReleaseException.class);
        assertThat(database.log()).containsExactly("create", "begin#1", "savepoint#1", "stuck#1", "close#1");
        assertThat(database.durable()).isEmpty();
    }

    @Test
    void sendsNoRollbackWhenTheScopeAroundHasGivenUp() {
        database.on("begin", ProbeFault.hang());
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.withConnectionMany(c -> scopes.inTransactionMany(inner -> Flux.just(1)))
                .subscribe(subscriber);

        subscriber.cancel();
        time.advanceTimeBy(RELEASE.multipliedBy(10));

        assertThat(database.log()).containsExactly("create", "begin#1", "close#1");
    }

    /** Of a transaction that the pipeline around it does not wait for, and which runs longer than that can wait. */
    @Test
    void sendsNoStatementWhenTheScopeAroundHasGivenUp() {
        TestSubscriber<Integer> inner = TestSubscriber.create();
        TestSubscriber<Integer> subscriber = TestSubscriber.create();
        scopes.withConnection(c -> Mono.deferContextual(context -> {
                    scopes.inTransactionMany(own -> Mono.delay(RELEASE.multipliedBy(2))
                                    .thenMany(Flux.defer(() -> Rows.ints(own, "late"))))
                            .contextWrite(context)
                            .subscribe(inner);
                    return Mono.just(1);
                }))
                .subscribe(subscriber);

        time.advanceTimeBy(RELEASE.multipliedBy(10));

        assertThat(subscriber.getReceivedOnNext()).containsExactly(1);
        assertThat(inner.expectTerminalError()).isInstanceOf(ScopeClosedException.class);
        assertThat(database.log()).containsExactly("create", "begin#1", "close#1");
    }

    /** As when something between the scope and the driver holds BEGIN up. */
    @Nested
    class WhoseBeginIsAnsweredTooLate {

        private final ProbeConnectionFactory late =
                witness.watch(ProbeConnectionFactory.of()).on("begin", ProbeFault.delay(Duration.ofMinutes(5)));
        private final TestSubscriber<Integer> subscriber = TestSubscriber.create();

        private void begin(ScopeOptions options) {
            witness.watch(ConnectionScopes.of(late))
                    .with(options)
                    .inTransaction(c -> Mono.just(1))
                    .subscribe(subscriber);
            time.advanceTimeBy(Duration.ofMinutes(10));
            assertThat(subscriber.expectTerminalError()).isInstanceOf(ScopeAcquisitionException.class);
        }

        @Test
        void getsNoSettingsAnyMore() {
            late.knowingSettings();

            begin(ScopeOptions.defaults().withSettings(SessionSettings.none().with("app.tenant", "1")));

            assertThat(late.log()).containsExactly("create", "begin#1", "set local app.tenant#1", "close#1");
        }

        /** What somebody left open on the connection is rolled back before, and that is answered too late. */
        @Test
        void isNotBegunAnyMoreBehindARollback() {
            late.on("rollback", ProbeFault.delay(Duration.ofMinutes(5)));
            new NotingDriver(late).withoutAutoCommit();

            begin(ScopeOptions.defaults());

            assertThat(late.log()).containsExactly("create", "rollback#1", "close#1");
        }

        @Test
        void getsNoTimeoutsAnyMore() {
            begin(ScopeOptions.defaults().withStatementTimeout(Duration.ofSeconds(1)));

            assertThat(late.log()).containsExactly("create", "begin#1", "close#1");
        }
    }
}
