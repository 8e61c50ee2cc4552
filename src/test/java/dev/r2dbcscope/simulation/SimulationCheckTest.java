package dev.r2dbcscope.simulation;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.OnCancel;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.simulation.Node.Reading;
import dev.r2dbcscope.simulation.Node.Shape;
import dev.r2dbcscope.simulation.Plan.Mishap;
import dev.r2dbcscope.testkit.ProbeCall;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.Wrapped;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.List;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** The simulation finds what is wrong: each of these is broken on purpose. */
class SimulationCheckTest {

    private static final Node.Query WRITE = new Node.Query(Reading.ROWS, 1, 0, true);

    private static Plan plan(Node body, Plan.Subscriber subscriber, Plan.Fault... faults) {
        Node.Scope root =
                new Node.Scope(Propagation.REQUIRED, Shape.FLUX_CLOSURE, OnCancel.ROLLBACK, 0, 0, 0, false, body);
        return new Plan(
                root,
                subscriber,
                new Plan.Database(true, true, false, false, false, false),
                1,
                new Plan.Options(1_000, 1_000, 50, 1_000, 64, 0),
                List.of(faults));
    }

    private static Plan plan(Node body) {
        return plan(body, Plan.Subscriber.unbounded());
    }

    /** Something that a call to a connection is replaced with. */
    private interface Instead {
        Object call(Connection connection);
    }

    /** A factory whose connections do something else than what a method of that name says. */
    private static UnaryOperator<ConnectionFactory> breaking(String method, Instead instead) {
        return factory -> new ConnectionFactory() {
            @Override
            public Publisher<? extends Connection> create() {
                return Flux.from(factory.create()).map(connection -> broken(connection, method, instead));
            }

            @Override
            public ConnectionFactoryMetadata getMetadata() {
                return factory.getMetadata();
            }
        };
    }

    private static Connection broken(Connection connection, String method, Instead instead) {
        return (Connection) Proxy.newProxyInstance(
                Connection.class.getClassLoader(),
                new Class<?>[] {Connection.class, Wrapped.class},
                (proxy, called, arguments) -> {
                    if (called.getName().equals(method)) {
                        return instead.call(connection);
                    }
                    try {
                        return called.invoke(connection, arguments);
                    } catch (InvocationTargetException e) {
                        throw e.getCause();
                    }
                });
    }

    @Test
    void nothingWhenNothingIsBroken() {
        assertThat(Simulation.run(plan(WRITE)).offences()).isEmpty();
    }

    @Test
    void aConnectionThatIsNotGivenBack() {
        assertThat(Simulation.runThrough(breaking("close", connection -> Mono.empty()), plan(WRITE))
                        .offences())
                .contains("1 connections are lent at the end");
    }

    @Test
    void aConnectionThatIsGivenBackTwice() {
        assertThat(Simulation.runThrough(
                                breaking(
                                        "close",
                                        connection -> Mono.from(connection.close())
                                                .then(Mono.defer(() -> Mono.from(connection.close())))),
                                plan(WRITE))
                        .offences())
                .contains("given back twice: #1");
    }

    @Test
    void aCommitThatIsARollback() {
        assertThat(Simulation.runThrough(breaking("commitTransaction", Connection::rollbackTransaction), plan(WRITE))
                        .offences())
                .containsExactly("write 1 of scope1 is missing");
    }

    @Test
    void aRollbackThatIsACommit() {
        Node failing = new Node.Many(Node.Joint.CONCAT, List.of(WRITE, new Node.Fail()));

        assertThat(Simulation.runThrough(breaking("rollbackTransaction", Connection::commitTransaction), plan(failing))
                        .offences())
                .containsExactly("write 1 of scope1 should not be there");
    }

    @Test
    void aTransactionThatIsNotBegun() {
        assertThat(Simulation.runThrough(breaking("beginTransaction", connection -> Mono.empty()), plan(WRITE))
                        .offences())
                .contains("write 1#1 of scope1 without a transaction");
    }

    @Test
    void aStatementAfterTheEnd() {
        UnaryOperator<ConnectionFactory> late = breaking(
                "close",
                connection -> Mono.from(connection.close())
                        .thenMany(Flux.defer(
                                () -> connection.createStatement("late").execute())));

        assertThat(Simulation.runThrough(late, plan(WRITE)).offences())
                .contains("late#1 after the connection was given back");
    }

    @Test
    void aPipelineThatHangs() {
        assertThat(Simulation.runBare(plan(WRITE), connections -> Flux.never()).offences())
                .anySatisfy(offence -> assertThat(offence).startsWith("hangs"));
    }

    /** As people write it without the library, with a subscriber who leaves while the transaction begins. */
    @Test
    void bareUsingWhenThatIsCancelledWhileItBegins() {
        Plan cancelled = plan(
                WRITE,
                new Plan.Subscriber(Integer.MAX_VALUE, 0, 1, 5, -1),
                new Plan.Fault(ProbeCall.Kind.BEGIN, 0, -1, Mishap.DELAY, 10));

        assertThat(Simulation.runBare(cancelled, SimulationCheckTest::bare).offences())
                .contains("begin#1 was cancelled");
        assertThat(Simulation.run(cancelled).offences()).isEmpty();
    }

    private static Flux<Integer> bare(ConnectionFactory connections) {
        return Flux.usingWhen(
                connections.create(),
                connection -> Mono.from(connection.beginTransaction())
                        .thenMany(Flux.from(connection.createStatement("write").execute()))
                        .concatMap(result -> result.map((row, metadata) -> 1)),
                connection -> Mono.from(connection.commitTransaction()).then(Mono.from(connection.close())),
                (connection, error) ->
                        Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())),
                connection -> Mono.from(connection.rollbackTransaction()).then(Mono.from(connection.close())));
    }

    @Test
    void theSmallestPlanThatFailsAlike() {
        Plan large = plan(
                new Node.Many(
                        Node.Joint.CONCAT,
                        List.of(
                                new Node.Op(Node.Operator.RETRY, 2, WRITE),
                                new Node.Each(Node.Mapping.FLAT_MAP, 2, new Node.Values(3), WRITE),
                                new Node.Pause(5))),
                new Plan.Subscriber(2, 1, 7, -1, -1),
                new Plan.Fault(ProbeCall.Kind.CANCEL, 3, -1, Mishap.HANG, 1));

        Plan smallest = Shrinker.shrink(
                large,
                plan ->
                        Simulation.runThrough(breaking("commitTransaction", Connection::rollbackTransaction), plan)
                                .offences()
                                .stream()
                                .anyMatch(offence -> offence.endsWith("is missing")));

        assertThat(smallest.faults()).isEmpty();
        assertThat(smallest.subscriber()).isEqualTo(Plan.Subscriber.unbounded());
        assertThat(smallest.root().children()).containsExactly(WRITE);
    }
}
