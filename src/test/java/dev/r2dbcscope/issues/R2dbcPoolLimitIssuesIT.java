package dev.r2dbcscope.issues;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.Await;
import dev.r2dbcscope.ConnectionScopes;
import dev.r2dbcscope.NestedAcquireDeadlockException;
import dev.r2dbcscope.Postgres;
import dev.r2dbcscope.Propagation;
import dev.r2dbcscope.Rows;
import dev.r2dbcscope.ScopeAcquisitionException;
import dev.r2dbcscope.ScopeOptions;
import dev.r2dbcscope.WatchedPool;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.reactivestreams.Publisher;
import org.springframework.r2dbc.connection.R2dbcTransactionManager;
import org.springframework.r2dbc.core.DatabaseClient;
import org.springframework.transaction.TransactionDefinition;
import org.springframework.transaction.reactive.TransactionalOperator;
import org.springframework.transaction.support.DefaultTransactionDefinition;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Signal;
import reactor.core.publisher.Sinks;

/** Issues of r2dbc/r2dbc-pool about connections that come late, not at all, or go twice. */
class R2dbcPoolLimitIssuesIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    /**
     * A limit on the time to connect gave up waiting, but the connections came all the same and stayed open, more than the
     * pool may have. Here a connection that comes after the acquire timeout is closed.
     */
    @Test
    @Tag("r2dbc-pool#165")
    void aConnectionThatComesAfterTheTimeLimitIsClosed() {
        Duration limit = Duration.ofMillis(10);
        SlowFactory byHand = new SlowFactory("late-by-hand");
        Mono<Object> bare = Mono.usingWhen(
                Mono.from(byHand.create()).timeout(limit), connection -> Mono.empty(), Connection::close);
        assertThatThrownBy(() -> bare.block(LONG)).hasCauseInstanceOf(TimeoutException.class);
        byHand.comeNow();
        assertThat(byHand.onTheServer())
                .as("what comes late is closed by timeout itself")
                .isEqualTo(1);
        byHand.closeAll();

        SlowFactory slow = new SlowFactory("late-in-scope");
        ConnectionScopes scopes =
                ConnectionScopes.of(slow).with(ScopeOptions.defaults().withAcquireTimeout(limit));
        assertThatThrownBy(
                        () -> scopes.withConnection(connection -> Mono.just(1)).block(LONG))
                .isInstanceOf(ScopeAcquisitionException.class);
        slow.comeNow();
        Await.until(() -> slow.onTheServer() == 0, () -> "the late connection is still open");
        assertThat(scopes.live()).isEmpty();
    }

    /** Connects, and keeps the connection back until it is told to deliver it. */
    private static final class SlowFactory implements ConnectionFactory {

        private final String application;
        private final PostgresqlConnectionFactory factory;
        private final Sinks.Empty<Void> gate = Sinks.empty();
        private final List<Connection> delivered = new CopyOnWriteArrayList<>();

        SlowFactory(String application) {
            this.application = application;
            this.factory = new PostgresqlConnectionFactory(
                    Postgres.configuration().applicationName(application).build());
        }

        /** Like a socket that is being opened, it takes no notice of a cancel. */
        @Override
        public Publisher<? extends Connection> create() {
            Sinks.One<Connection> arrival = Sinks.one();
            return arrival.asMono()
                    .doOnSubscribe(s -> factory.create()
                            .delayUntil(connection -> gate.asMono())
                            .subscribe(connection -> {
                                arrival.tryEmitValue(connection);
                                delivered.add(connection);
                            }));
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return factory.getMetadata();
        }

        long onTheServer() {
            return Postgres.number(
                    "select count(*) from pg_stat_activity where application_name = '" + application + "'");
        }

        void comeNow() {
            gate.tryEmitEmpty();
            Await.until(() -> !delivered.isEmpty(), () -> "does not connect");
        }

        void closeAll() {
            Flux.fromIterable(delivered).flatMap(Connection::close).blockLast(LONG);
            Await.until(() -> onTheServer() == 0, () -> "still open");
        }
    }

    /**
     * Transactions that each needed a second, independent one, as many as the pool has connections, all waited for ever for a
     * connection of the others. Here one gives way at once with an error that says so, and the others go on.
     */
    @Test
    @Tag("r2dbc-pool#213")
    void transactionsThatNeedASecondConnectionDoNotWaitForEachOther() {
        int size = 4;
        try (WatchedPool raw = WatchedPool.of(size)) {
            R2dbcTransactionManager manager = new R2dbcTransactionManager(raw.pool);
            DatabaseClient client = DatabaseClient.create(raw.pool);
            Mono<Void> meeting = meeting(size);
            Mono<Integer> request = client.sql("select 1")
                    .then()
                    .then(meeting)
                    .then(
                            client.sql("select 2")
                                    .then()
                                    .as(TransactionalOperator.create(
                                            manager,
                                            new DefaultTransactionDefinition(
                                                    TransactionDefinition.PROPAGATION_REQUIRES_NEW))::transactional))
                    .thenReturn(1)
                    .as(TransactionalOperator.create(manager)::transactional);
            assertThat(Flux.range(0, size)
                            .flatMap(i -> request.timeout(Duration.ofSeconds(2)).onErrorResume(e -> Mono.empty()), size)
                            .count()
                            .block(LONG))
                    .as("Spring or the pool were repaired")
                    .isZero();
            raw.terminateBackends();
        }

        try (WatchedPool pool = WatchedPool.of(size, options -> options.withAcquireTimeout(Duration.ofHours(1)))) {
            Mono<Void> meeting = meeting(size);
            Mono<Integer> request = pool.scopes.inTransaction(outer -> Rows.ints(outer, "select 1")
                    .then(meeting)
                    .then(pool.scopes
                            .transactions(Propagation.REQUIRES_NEW)
                            .inTransaction(inner -> Rows.ints(inner, "select 2"))));
            List<Signal<Integer>> ends = Flux.range(0, 3 * size)
                    .flatMap(i -> request.materialize(), 3 * size)
                    .collectList()
                    .blockOptional(LONG)
                    .orElseThrow();
            assertThat(ends).hasSize(3 * size).anyMatch(Signal::isOnNext).anyMatch(Signal::isOnError);
            assertThat(ends)
                    .filteredOn(Signal::isOnError)
                    .allMatch(end -> end.getThrowable() instanceof NestedAcquireDeadlockException);
            pool.assertWhole();
        }
    }

    /** Lets nobody pass until a number of pipelines are there; whoever comes later passes at once. */
    private static Mono<Void> meeting(int number) {
        AtomicInteger missing = new AtomicInteger(number);
        Sinks.Empty<Void> complete = Sinks.empty();
        return Mono.defer(() -> {
            if (missing.decrementAndGet() == 0) {
                complete.tryEmitEmpty();
            }
            return complete.asMono();
        });
    }

    /**
     * A second {@code close()} of a pooled connection threw an exception, though the SPI says that it does nothing. Here
     * {@code close()} leaves the connection to the scope however often it is called, inside and after it.
     */
    @Test
    @Tag("r2dbc-pool#221")
    void closingTwiceDoesNothing() {
        try (WatchedPool pool = WatchedPool.of(1)) {
            Connection bare = pool.pool.create().blockOptional(LONG).orElseThrow();
            Mono.from(bare.close()).block(LONG);
            assertThatThrownBy(() -> Mono.from(bare.close()).block(LONG))
                    .as("the pool was repaired")
                    .isInstanceOf(IllegalStateException.class);

            Connection handle = pool.scopes
                    .withConnection(c -> Mono.from(c.close())
                            .then(Mono.from(c.close()))
                            .thenMany(Rows.ints(c, "select 1"))
                            .then(Mono.just(c)))
                    .blockOptional(LONG)
                    .orElseThrow();
            Mono.from(handle.close()).then(Mono.from(handle.close())).block(LONG);
            pool.assertWhole();
            assertThat(pool.backends()).hasSize(1);
        }
    }
}
