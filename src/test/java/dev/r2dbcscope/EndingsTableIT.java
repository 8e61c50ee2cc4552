package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.ConnectionFactory;
import io.r2dbc.spi.ConnectionFactoryMetadata;
import io.r2dbc.spi.R2dbcDataIntegrityViolationException;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Wrapped;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.publisher.Sinks;
import reactor.core.scheduler.Schedulers;

/** The README's table of endings, cell by cell, on PostgreSQL: the rows of the table are the constants of this test. */
class EndingsTableIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final String COMMITS = "yes, before the subscriber hears of it";
    private static final String BACK = "to the pool";
    private static final String DESTROYED = "destroyed, and replaced by the pool";

    /** One row: what ends the transaction, and what the README says of it. */
    enum Ending {
        COMPLETES("completes", COMMITS, BACK, "none"),
        FAILS("fails", "no", BACK, "its own error"),
        IS_CANCELLED("is cancelled", "no", BACK, "none; `drain`, `released()` and the listeners see the end"),
        TIMES_OUT_DOWNSTREAM("is cancelled by a `timeout` downstream", "no", BACK, "Reactor's `TimeoutException`"),
        EXCEEDS_MAX_HOLD("exceeds `withMaxHold` or `withMaxIdle`", "no", BACK, "`ScopeTimeoutException`"),
        EXCEEDS_STATEMENT_TIMEOUT(
                "exceeds `withStatementTimeout` or `withLockWaitTimeout`", "no", BACK, "`ScopeTimeoutException`"),
        COMMIT_IS_REFUSED("completes, and COMMIT is refused", "no", BACK, "the driver's error"),
        COMMIT_IS_NOT_ANSWERED(
                "completes, and COMMIT is not answered, or the connection is lost meanwhile",
                "unknown",
                DESTROYED,
                "`CommitOutcomeUnknownException`"),
        RELEASE_FAILS(
                "completes, and the release fails", COMMITS, "destroyed", "none; the listeners hear of the failure"),
        CONNECTION_IS_LOST("loses its connection", "no", DESTROYED, "the driver's error");

        final String ending;
        final String committed;
        final String released;
        final String error;

        Ending(String ending, String committed, String released, String error) {
            this.ending = ending;
            this.committed = committed;
            this.released = released;
            this.error = error;
        }

        String markdown() {
            return "| " + ending + " | " + committed + " | " + released + " | " + error + " |";
        }
    }

    @RegisterExtension
    final LogCapture log = new LogCapture();

    private final FaultyProxy network = Postgres.network();
    private final WatchedPool pool = WatchedPool.to(
            1, server -> server.port(network.port()), options -> options.withReleaseTimeout(Duration.ofSeconds(2)));

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table endings (id int, constraint one_end unique (id) deferrable initially deferred)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate endings");
    }

    @AfterEach
    void thePoolIsWhole() throws IOException {
        pool.assertWhole();
        pool.close();
        network.close();
    }

    private static Mono<Long> insert(Connection connection) {
        return Rows.update(connection, "insert into endings values (1)").next();
    }

    private ConnectionScopes scopes(Ending ending) {
        return switch (ending) {
            case EXCEEDS_MAX_HOLD -> pool.with(options -> options.withMaxHold(Duration.ofMillis(300)));
            case EXCEEDS_STATEMENT_TIMEOUT ->
                pool.with(options -> options.withStatementTimeout(Duration.ofMillis(300)));
            case RELEASE_FAILS ->
                ConnectionScopes.of(new FailingRelease(pool.pool))
                        .with(ScopeOptions.defaults().withListener(pool.events::add));
            default -> pool.scopes;
        };
    }

    /** What the transaction does after its INSERT. */
    private Mono<Long> rest(Ending ending, Connection connection) {
        return switch (ending) {
            case COMPLETES, RELEASE_FAILS -> Mono.just(1L);
            case FAILS -> Mono.error(new IllegalArgumentException("the user's"));
            case IS_CANCELLED, TIMES_OUT_DOWNSTREAM, EXCEEDS_MAX_HOLD -> Mono.never();
            case EXCEEDS_STATEMENT_TIMEOUT ->
                Rows.ints(connection, "select 1 from pg_sleep(60)").next().thenReturn(1L);
            case COMMIT_IS_REFUSED -> insert(connection);
            case COMMIT_IS_NOT_ANSWERED ->
                Mono.fromRunnable(
                                () -> network.strikeWhen(NetworkTrigger.clientSends("COMMIT"), NetworkFault.BLACK_HOLE))
                        .thenReturn(1L);
            case CONNECTION_IS_LOST ->
                Mono.fromRunnable(pool::terminateBackends)
                        .subscribeOn(Schedulers.boundedElastic())
                        .then(Rows.ints(connection, "select 1 from pg_sleep(60)")
                                .next())
                        .thenReturn(1L);
        };
    }

    private Mono<Long> run(Ending ending, Function<Function<Connection, Mono<Long>>, Mono<Long>> scope) {
        Sinks.Empty<Void> inserted = Sinks.empty();
        Mono<Long> work = scope.apply(c -> insert(c).flatMap(n -> {
            inserted.tryEmitEmpty();
            return rest(ending, c);
        }));
        return switch (ending) {
            case IS_CANCELLED -> work.takeUntilOther(inserted.asMono());
            case TIMES_OUT_DOWNSTREAM -> work.timeout(inserted.asMono().delaySubscription(Duration.ofMillis(1)));
            default -> work;
        };
    }

    /** How the pipeline ends; the check runs when its subscriber hears of the end. */
    private static @Nullable Throwable errorOf(Mono<Long> pipeline, Runnable check) {
        return pipeline.materialize()
                .publishOn(Schedulers.boundedElastic())
                .doOnNext(signal -> check.run())
                .blockOptional(LONG)
                .orElseThrow()
                .getThrowable();
    }

    @ParameterizedTest
    @EnumSource
    void ofATransaction(Ending ending) {
        ConnectionScopes scopes = scopes(ending);
        AtomicLong seenAtTheEnd = new AtomicLong(-1);
        Throwable error = errorOf(run(ending, scopes::inTransaction), () -> seenAtTheEnd.set(durable()));

        assertError(ending, error);
        ScopeEvent.Released released = released();
        assertThat(released.destroyed()).isEqualTo(!ending.released.equals(BACK));
        switch (ending.committed) {
            case COMMITS -> {
                assertThat(seenAtTheEnd).hasValue(1);
                assertThat(released.transaction()).isEqualTo(TransactionOutcome.COMMITTED);
            }
            case "no" -> {
                assertThat(durable()).isZero();
                assertThat(released.transaction()).isEqualTo(TransactionOutcome.ROLLED_BACK);
            }
            default -> {
                assertThat(released.transaction()).isEqualTo(TransactionOutcome.UNKNOWN);
                pool.terminateBackends(); // this one waits for ever for a COMMIT that was swallowed, and holds locks
            }
        }
    }

    /** The same without a transaction: what was done stays, and the rest is as the table says. */
    @ParameterizedTest
    @EnumSource(
            mode = EnumSource.Mode.EXCLUDE,
            names = {"COMMIT_IS_REFUSED", "COMMIT_IS_NOT_ANSWERED"})
    void ofAPlainScope(Ending ending) {
        ConnectionScopes scopes = scopes(ending);
        Throwable error = errorOf(run(ending, scopes::withConnection), () -> {});

        assertError(ending, error);
        ScopeEvent.Released released = released();
        assertThat(released.destroyed()).isEqualTo(!ending.released.equals(BACK));
        assertThat(released.transaction()).isEqualTo(TransactionOutcome.NONE);
        assertThat(durable()).isEqualTo(1);
    }

    @Test
    void isTheOneOfTheReadme() throws IOException {
        String rows = Arrays.stream(Ending.values()).map(Ending::markdown).collect(Collectors.joining("\n"));
        assertThat(Files.readString(Path.of("README.md"))).contains(rows);
    }

    private static void assertError(Ending ending, @Nullable Throwable error) {
        switch (ending) {
            case COMPLETES, IS_CANCELLED, RELEASE_FAILS -> assertThat(error).isNull();
            case FAILS -> assertThat(error).hasMessage("the user's");
            case TIMES_OUT_DOWNSTREAM -> assertThat(error).isInstanceOf(TimeoutException.class);
            case EXCEEDS_MAX_HOLD, EXCEEDS_STATEMENT_TIMEOUT ->
                assertThat(error).isInstanceOf(ScopeTimeoutException.class);
            case COMMIT_IS_REFUSED -> assertThat(error).isInstanceOf(R2dbcDataIntegrityViolationException.class);
            case COMMIT_IS_NOT_ANSWERED -> assertThat(error).isInstanceOf(CommitOutcomeUnknownException.class);
            case CONNECTION_IS_LOST ->
                assertThat(error).isInstanceOf(R2dbcException.class).isNotInstanceOf(ScopeException.class);
        }
    }

    /** After the last scope was left: that may be after its subscriber was told. */
    private ScopeEvent.Released released() {
        Await.until(() -> !pool.events(ScopeEvent.Released.class).isEmpty(), () -> "never released");
        return pool.events(ScopeEvent.Released.class).get(0);
    }

    private static long durable() {
        return Postgres.number("select count(*) from endings");
    }

    /** A pool whose connections come back to it, and which says that they did not. */
    private record FailingRelease(ConnectionFactory pool) implements ConnectionFactory {

        @Override
        public Publisher<? extends Connection> create() {
            return Flux.from(pool.create()).map(FailingRelease::failing);
        }

        private static Connection failing(Connection connection) {
            return (Connection) Proxy.newProxyInstance(
                    Connection.class.getClassLoader(),
                    new Class<?>[] {Connection.class, Wrapped.class},
                    (proxy, method, arguments) -> {
                        try {
                            Object result = method.getName().equals("unwrap") && arguments == null
                                    ? connection
                                    : method.invoke(connection, arguments);
                            return method.getName().equals("close")
                                    ? Mono.from((Publisher<?>) result)
                                            .then(Mono.error(new IllegalStateException("of the release")))
                                    : result;
                        } catch (InvocationTargetException e) {
                            throw e.getCause();
                        }
                    });
        }

        @Override
        public ConnectionFactoryMetadata getMetadata() {
            return pool.getMetadata();
        }
    }
}
