package dev.r2dbcscope;

import static dev.r2dbcscope.Settling.RACES;
import static dev.r2dbcscope.Settling.assertSettled;
import static dev.r2dbcscope.Settling.races;
import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.ProbeConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Wrapped;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.test.util.RaceTestUtils;

/** Opening, using and ending a scope from several threads at once. */
@Tag("race")
class ScopeRaceTest {

    @ParameterizedTest
    @EnumSource(names = {"CONNECTED_FLUX", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-46")
    void opensOneConnectionWhenTwoThreadsAskFirst(ScopeShape shape) {
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Sinks.Empty<Void> left = Sinks.empty();
            Sinks.Empty<Void> right = Sinks.empty();
            List<Object> physical = new CopyOnWriteArrayList<>();
            Mono<Integer> use = Mono.from(scopes.connectionFactory().create()).flatMap(connection -> {
                physical.add(((Wrapped<?>) connection).unwrap());
                return Rows.ints(connection, "select 1").next();
            });
            Flux<Integer> work =
                    Flux.merge(left.asMono().then(use), right.asMono().then(use));
            Probe<Integer> probe = Probe.unbounded();
            (shape.transactional ? scopes.transactional(work) : scopes.connected(work)).subscribe(probe);

            RaceTestUtils.race(left::tryEmitEmpty, right::tryEmitEmpty);

            assertThat(probe.awaitEnd().error()).isNull();
            probe.assertSound();
            assertThat(probe.values()).containsExactly(1, 1);
            assertThat(database.log()).filteredOn("create"::equals).hasSize(1);
            assertThat(physical).hasSize(2);
            assertThat(physical.get(0)).isSameAs(physical.get(1));
            assertSettled(scopes, database);
        }
    }

    /** The statement that it waits behind ends as the scope around it completes. */
    @Test
    @Tag("lifecycle-61")
    void runsATransactionThatWaitedBeforeTheExitOrRefusesIt() {
        for (int i = 0; i < RACES; i++) {
            Sinks.One<Integer> before = Sinks.one();
            ProbeConnectionFactory database = ProbeConnectionFactory.of().on("before", () -> before.asMono());
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Sinks.Empty<Integer> end = Sinks.empty();
            Probe<Integer> probe = Probe.unbounded();
            Probe<Integer> running = Probe.unbounded();
            Probe<Integer> waiting = Probe.unbounded();
            scopes.withConnection(c -> Mono.deferContextual(context -> {
                        Rows.ints(c, "before").subscribe(running);
                        scopes.inTransactionMany(t -> Rows.ints(t, "inner"))
                                .contextWrite(own -> own.putAll(context))
                                .subscribe(waiting);
                        return end.asMono();
                    }))
                    .subscribe(probe);

            RaceTestUtils.race(() -> before.tryEmitValue(1), end::tryEmitEmpty);

            assertSettled(scopes, database);
            probe.awaitEnd().assertSound();
            running.awaitEnd().assertSound();
            waiting.awaitEnd().assertSound();
            assertThat(probe.error()).isNull();
            assertThat(running.error()).isNull();
            if (database.log().contains("begin#1")) {
                assertThat(waiting.error()).isNull();
                assertThat(database.log())
                        .containsExactly("create", "before#1", "begin#1", "inner#1", "commit#1", "close#1");
            } else {
                assertThat(waiting.error()).isInstanceOf(ScopeClosedException.class);
                assertThat(database.log()).containsExactly("create", "before#1", "close#1");
            }
        }
    }

    /** How a scope ends while somebody else uses its connection. */
    enum Ending {
        COMPLETE("commit#1"),
        ERROR("rollback#1"),
        CANCEL("rollback#1");

        final String sent;

        Ending(String sent) {
            this.sent = sent;
        }
    }

    @ParameterizedTest
    @EnumSource
    @Tag("lifecycle-52")
    @Tag("lifecycle-61")
    void runsAStatementBeforeTheExitOrRefusesIt(Ending ending) {
        for (int i = 0; i < races(8); i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            AtomicReference<Connection> current = new AtomicReference<>();
            Sinks.Empty<Integer> end = Sinks.empty();
            Probe<Integer> probe = Probe.unbounded();
            scopes.inTransaction(connection -> {
                        current.set(connection);
                        return end.asMono();
                    })
                    .subscribe(probe);
            var statement = Objects.requireNonNull(current.get()).createStatement("detached");
            Probe<Integer> detached = Probe.unbounded();

            RaceTestUtils.race(
                    () -> {
                        switch (ending) {
                            case COMPLETE -> end.tryEmitEmpty();
                            case ERROR -> end.tryEmitError(new IllegalStateException("body"));
                            case CANCEL -> probe.cancel();
                        }
                    },
                    () -> Flux.defer(() -> Rows.ints(statement)).subscribe(detached));

            assertSettled(scopes, database);
            detached.awaitEnd().assertSound();
            probe.assertSound();
            if (database.log().contains("detached#1")) {
                assertThat(database.log()).containsExactly("create", "begin#1", "detached#1", ending.sent, "close#1");
            } else {
                assertThat(database.log()).containsExactly("create", "begin#1", ending.sent, "close#1");
                assertThat(detached.error()).isInstanceOf(ScopeClosedException.class);
            }
        }
    }

    /** The timer fires between the delivery of the connection and the answer to BEGIN, or about then. */
    @ParameterizedTest
    @EnumSource(names = {"WITH_CONNECTION_MANY", "IN_TRANSACTION", "TRANSACTIONAL_FLUX"})
    @Tag("lifecycle-41")
    @Tag("lifecycle-57")
    void releasesOnceWhenTheAcquireTimeoutRacesDelivery(ScopeShape shape) {
        for (int i = 0; i < races(3); i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database)
                    .with(ScopeOptions.defaults().withAcquireTimeout(Duration.ofNanos(1 + i * 7919L % 400_000)));
            Sinks.Empty<Void> arrival = Sinks.empty();
            database.on("create", () -> arrival.asMono().then(Mono.<Connection>fromSupplier(database::newConnection)));
            Probe<Integer> probe = Probe.unbounded();
            shape.around(scopes, connection -> Rows.ints(connection, "select 1").next())
                    .subscribe(probe);
            arrival.tryEmitEmpty();

            probe.awaitEnd().assertSound();
            assertSettled(scopes, database);
            if (probe.error() != null) {
                assertThat(probe.error()).isInstanceOf(ScopeAcquisitionException.class);
                assertThat(database.log()).doesNotContain("select 1#1");
            } else {
                assertThat(probe.values()).containsExactly(1);
            }
        }
    }

    @Test
    @Tag("lifecycle-30")
    void drainsOrRefusesAScopeThatOpensMeanwhile() {
        for (int i = 0; i < RACES; i++) {
            ProbeConnectionFactory database = ProbeConnectionFactory.of();
            ConnectionScopes scopes = ConnectionScopes.of(database);
            Probe<Integer> probe = Probe.unbounded();
            Probe<Void> drained = Probe.unbounded();

            RaceTestUtils.race(
                    () -> scopes.inTransaction(connection -> Mono.just(1)).subscribe(probe),
                    () -> scopes.drain(Duration.ofSeconds(60)).subscribe(drained));

            assertThat(drained.awaitEnd().error()).isNull();
            probe.awaitEnd().assertSound();
            if (probe.error() != null) {
                assertThat(probe.error()).isInstanceOf(ScopesDrainedException.class);
                assertThat(database.opened()).isZero();
            }
            assertSettled(scopes, database);
        }
    }
}
