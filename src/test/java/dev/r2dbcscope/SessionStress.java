package dev.r2dbcscope;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import java.util.concurrent.atomic.AtomicInteger;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.II_Result;
import org.openjdk.jcstress.infra.results.L_Result;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.util.context.Context;

/** The state word of a session: whoever wins, the connection is given back once, and BEGIN is not cut in two. */
public class SessionStress {

    private static final ScopeLabel LABEL = ScopeLabel.here("stress");

    /** A transaction's session that has asked for its connection. */
    static class Stage {
        final ProbeConnectionFactory database = ProbeConnectionFactory.of();
        final ScopeRoot root = new ScopeRoot(database);
        final Session session = Session.ownConnection(
                new ScopeSpec(
                        root,
                        ScopeOptions.defaults(),
                        TransactionOptions.defaults(),
                        TransactionOptions.defaults(),
                        LABEL),
                TransactionOptions.defaults(),
                null,
                false);
        final AtomicInteger signals = new AtomicInteger();
        final AtomicInteger opened = new AtomicInteger();
        Connection connection;

        Stage() {
            database.on("create", Mono::never);
            connection = database.newConnection();
        }

        Stage opening() {
            open();
            return this;
        }

        void open() {
            session.open(Context.empty())
                    .subscribe(
                            s -> {
                                opened.incrementAndGet();
                                signals.incrementAndGet();
                            },
                            e -> signals.incrementAndGet());
        }

        void exit() {
            session.exit(ScopeOutcome.CANCELLED, null, Context.empty()).subscribe();
        }

        /** What was done, how many were told, and what is left. */
        String story() {
            return String.join(" ", database.log()) + ", told " + signals + ", live "
                    + root.live().snapshot().size();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "create close#1, told 1, live 0", expect = Expect.ACCEPTABLE, desc = "given back untouched")
    @Outcome(
            id = "create begin#1 rollback#1 close#1, told 1, live 0",
            expect = Expect.ACCEPTABLE,
            desc = "begun, rolled back, given back")
    @Outcome(expect = Expect.FORBIDDEN, desc = "lost, cut in two or given back twice")
    public static class ExitRacesReceived {
        private final Stage stage = new Stage().opening();

        @Actor
        public void receive() {
            stage.session.entry().received(stage.connection, Context.empty());
        }

        @Actor
        public void exit() {
            stage.exit();
        }

        @Arbiter
        public void see(L_Result result) {
            result.r1 = stage.story();
        }
    }

    @JCStressTest
    @State
    @Outcome(
            id = "create begin#1 rollback#1 close#1, told 1, live 0",
            expect = Expect.ACCEPTABLE,
            desc = "begun, rolled back, given back")
    @Outcome(expect = Expect.FORBIDDEN, desc = "lost, cut in two or given back twice")
    public static class ExitRacesPrepared {
        private final Sinks.Empty<Void> begin = Sinks.empty();
        private final Stage stage = new Stage();

        public ExitRacesPrepared() {
            stage.database.on("begin", begin::asMono);
            stage.open();
            stage.session.entry().received(stage.connection, Context.empty());
        }

        @Actor
        public void prepare() {
            begin.tryEmitEmpty();
        }

        @Actor
        public void exit() {
            stage.exit();
        }

        @Arbiter
        public void see(L_Result result) {
            result.r1 = stage.story();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "create close#1, told 1, live 0", expect = Expect.ACCEPTABLE, desc = "too late, given back untouched")
    @Outcome(
            id = "create begin#1 rollback#1 close#1, told 1, live 0",
            expect = Expect.ACCEPTABLE,
            desc = "in time, used and given back by the exit that follows")
    @Outcome(expect = Expect.FORBIDDEN, desc = "lost, cut in two or given back twice")
    public static class AcquireTimeoutRacesReceived {
        private final Stage stage = new Stage().opening();

        @Actor
        public void receive() {
            stage.session.entry().received(stage.connection, Context.empty());
        }

        @Actor
        public void timeOut() {
            stage.session.entry().acquireTimedOut();
        }

        @Arbiter
        public void see(L_Result result) {
            stage.exit();
            result.r1 = stage.story();
        }
    }

    @JCStressTest
    @State
    @Outcome(id = "1, 2", expect = Expect.ACCEPTABLE, desc = "one connection for both")
    @Outcome(expect = Expect.FORBIDDEN, desc = "two connections, or somebody was forgotten")
    public static class TwoOpen {
        private final Stage stage = new Stage();

        public TwoOpen() {
            stage.database.on("create", () -> Mono.just(stage.connection));
        }

        @Actor
        public void open() {
            stage.open();
        }

        @Actor
        public void openToo() {
            stage.open();
        }

        @Arbiter
        public void see(II_Result result) {
            result.r1 =
                    (int) stage.database.log().stream().filter("create"::equals).count();
            result.r2 = stage.opened.get();
            stage.exit();
        }
    }
}
