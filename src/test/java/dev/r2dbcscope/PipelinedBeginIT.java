package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.r2dbcscope.testkit.FaultyProxy;
import dev.r2dbcscope.testkit.NetworkFault;
import dev.r2dbcscope.testkit.NetworkTrigger;
import io.r2dbc.postgresql.PostgresqlConnectionFactory;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.IsolationLevel;
import io.r2dbc.spi.R2dbcException;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.UnaryOperator;
import java.util.stream.Collectors;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.reactivestreams.Publisher;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;
import reactor.core.scheduler.Schedulers;

/** Statements right behind BEGIN, on PostgreSQL. */
class PipelinedBeginIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    @RegisterExtension
    final LogCapture log = new LogCapture();

    @BeforeAll
    static void table() {
        Postgres.execute("create table begun (a int); create sequence begun_seq");
    }

    @BeforeEach
    void empty() {
        Postgres.execute("truncate begun");
    }

    private static long rows() {
        return Postgres.number("select count(*) from begun");
    }

    private static ScopeOptions always(ScopeOptions options) {
        return options.withPipelinedBegin(Duration.ZERO);
    }

    private static WatchedPool pool(FaultyProxy network, UnaryOperator<ScopeOptions> options) {
        return WatchedPool.to(1, c -> c.port(network.port()), o -> options.apply(always(o)));
    }

    private static Flux<Integer> insert(Connection connection, int value) {
        return Rows.ints(connection
                .createStatement("insert into begun values ($1) returning a")
                .bind(0, value));
    }

    // what is sent ---------------------------------------------------------------------------------------------------

    @Test
    void theServerHasTheStatementBeforeTheClientHasTheAnswerToBegin() {
        try (FaultyProxy network = Postgres.network();
                WatchedPool pool = pool(network, UnaryOperator.identity())) {
            pool.scopes.inTransaction(c -> insert(c, 1)).block(LONG);
            network.strikeWhen(NetworkTrigger.clientSends("BEGIN"), NetworkFault.ANSWERS_STALLED);
            AtomicBoolean committed = new AtomicBoolean();
            pool.scopes.inTransaction(c -> insert(c, 2)).subscribe(n -> {}, e -> {}, () -> committed.set(true));
            Await.until(
                    () -> Postgres.number("select count(*) from pg_stat_activity where state = 'idle in transaction'"
                                    + " and query like 'insert into begun%'")
                            == 1,
                    () -> "the statement has not come");
            assertThat(pool.events(ScopeEvent.Opened.class)).hasSize(1);
            assertThat(committed).isFalse();
            network.heal();
            Await.until(committed::get, () -> "not committed");
            assertThat(rows()).isEqualTo(2);
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
        }
    }

    /** The latency is long, so that no answer comes while the client is still busy with what it sends together. */
    @ParameterizedTest
    @CsvSource({"0, 1, 2", "0, 3, 4", "100000, 1, 3", "100000, 3, 5"})
    void aTransactionTakesOneRoundTripMoreThanItsStatements(long bound, int statements, long roundTrips) {
        try (FaultyProxy network = Postgres.network();
                WatchedPool pool = pool(
                        network,
                        o -> o.withPipelinedBegin(Duration.ofSeconds(bound))
                                .withSettings(SessionSettings.none()
                                        .with("app.tenant", "7")
                                        .withValuesInSql())
                                .withStatementTimeout(LONG))) {
            Mono<Void> transaction = pool.scopes
                    .inTransactionMany(c -> Flux.range(0, statements).concatMap(i -> insert(c, i)))
                    .then();
            for (int i = 0; i < 20; i++) {
                transaction.block(LONG);
            }
            network.latency(Duration.ofMillis(100), Duration.ofMillis(100));
            long before = network.roundTrips();
            transaction.block(LONG);
            assertThat(network.roundTrips() - before).isEqualTo(roundTrips);
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void allThatIsSetIsLocalToTheTransaction(boolean pipelined) {
        try (WatchedPool pool = WatchedPool.of(
                1,
                o -> (pipelined ? always(o) : o.withPipelinedBegin(Duration.ofDays(1)))
                        .withSettings(SessionSettings.none()
                                .with("app.tenant", "it's \\ 'E' $1 ? \u00e4\u2028 -- x")
                                .withSearchPath("public", "odd \"one\", two")
                                .withValuesInSql())
                        .withStatementTimeout(Duration.ofSeconds(7)))) {
            String settings = "select concat_ws('|', current_setting('transaction_isolation'),"
                    + " current_setting('transaction_read_only'), current_setting('app.tenant', true),"
                    + " current_setting('search_path'), current_setting('statement_timeout'),"
                    + " current_setting('lock_timeout'))";
            Function<Connection, Flux<String>> ask = c -> Flux.from(c.createStatement(settings + " where 1 = $1")
                            .bind(0, 1)
                            .execute())
                    .flatMap(result -> result.map(row -> Objects.requireNonNull(row.get(0, String.class))));
            for (int i = 0; i < 2; i++) {
                assertThat(pool.scopes
                                .transactions(TransactionOptions.defaults()
                                        .withIsolation(IsolationLevel.SERIALIZABLE)
                                        .withReadOnly(true)
                                        .withLockWaitTimeout(Duration.ofSeconds(3)))
                                .inTransactionMany(ask)
                                .collectList()
                                .block(LONG))
                        .containsExactly(
                                "serializable|on|it's \\ 'E' $1 ? \u00e4\u2028 -- x|\"public\", \"odd \"\"one\"\", two\"|7s|3s");
                assertThat(pool.borrow(ask)).containsExactly("read committed|off|" + "|\"$user\", public|0|0");
            }
            assertThat(pool.destroyed()).isZero();
        }
    }

    @Test
    void noValueThatIsPartOfTheTextBecomesSql() {
        String[] pieces = {
            "'",
            "''",
            "\\",
            "\\'",
            "\"",
            "$1",
            "$$",
            ";",
            "--",
            "/*",
            "*/",
            "E'",
            "?",
            ":a",
            "\n",
            "\u00e4",
            "\ud83d\ude00",
            "a"
        };
        Random random = new Random(7);
        try (WatchedPool pool = WatchedPool.of(1)) {
            for (int i = 0; i < 500; i++) {
                String value = random.ints(random.nextInt(8), 0, pieces.length)
                        .mapToObj(piece -> pieces[piece])
                        .collect(Collectors.joining());
                assertThat(pool.with(o -> always(o)
                                        .withSettings(SessionSettings.none()
                                                .with("app.tenant", value)
                                                .withValuesInSql()))
                                .inTransactionMany(c -> Flux.from(
                                                c.createStatement("select current_setting('app.tenant')")
                                                        .execute())
                                        .flatMap(result -> result.map(row -> row.get(0, String.class))))
                                .collectList()
                                .block(LONG))
                        .containsExactly(value);
            }
            assertThat(rows()).isZero();
            assertThat(pool.destroyed()).isZero();
        }
    }

    /** The snapshot of a transaction is that of its first query, so that a lock can be waited for before. */
    @Test
    void aLockComesBeforeTheSnapshot() {
        try (WatchedPool pool = WatchedPool.of(2, PipelinedBeginIT::always)) {
            Mono<Integer> count = pool.scopes
                    .transactions(TransactionOptions.defaults().withIsolation(IsolationLevel.REPEATABLE_READ))
                    .inTransaction(c -> Rows.update(c, "lock table begun in share mode")
                            .thenMany(Rows.ints(c, "select count(*)::int from begun")));
            AtomicInteger seen = new AtomicInteger(-1);
            pool.scopes
                    .inTransaction(c -> insert(c, 1)
                            .publishOn(Schedulers.boundedElastic())
                            .doOnNext(n -> {
                                count.subscribe(seen::set);
                                Await.until(
                                        () -> Postgres.number("select count(*) from pg_locks where not granted") == 1,
                                        () -> "nobody waits for the lock");
                            }))
                    .block(LONG);
            Await.until(() -> seen.get() >= 0, () -> "not counted");
            assertThat(seen).hasValue(1);
        }
    }

    // BEGIN that fails -----------------------------------------------------------------------------------------------

    /** Ways to have an effect. */
    private enum Effect {
        BOUND("insert into begun values ($1)"),
        SIMPLE("insert into begun values (1)"),
        CTE("with w as (insert into begun values ($1) returning a) select a from w"),
        SEQUENCE("select nextval('begun_seq') + $1"),
        SETTING("select set_config('application_name', 'begun' || $1::int, false)"),
        BATCH("");

        private final String sql;

        Effect(String sql) {
            this.sql = sql;
        }

        private Publisher<? extends Result> on(Connection connection) {
            if (this == BATCH) {
                return connection
                        .createBatch()
                        .add("insert into begun values (1)")
                        .add("insert into begun values (2)")
                        .execute();
            }
            Statement statement = connection.createStatement(sql);
            return (sql.contains("$1") ? statement.bind(0, 1) : statement).execute();
        }

        private static long seen() {
            return rows()
                    + Postgres.number("select is_called::int from begun_seq")
                    + Postgres.number("select count(*) from pg_stat_activity where application_name = 'begun1'");
        }
    }

    private static Mono<Void> done(Publisher<? extends Result> execution) {
        return Flux.from(execution).flatMap(Result::getRowsUpdated).then();
    }

    /** Sends all three before any of them is answered; the error of the last. */
    private static Throwable behindABeginThatFails(Connection connection, Effect effect, boolean guarded) {
        PipelinedBegin mode = Objects.requireNonNull(Dialect.of(connection).pipelinedBegin(connection));
        // whatever the reason: the server runs nothing of a message that it cannot read
        Mono<Void> begin = done(connection.createStatement("BEGIM").execute())
                .onErrorComplete()
                .cache();
        Mono<Void> guard =
                guarded ? Mono.from(mode.guard(connection)).onErrorComplete().cache() : Mono.empty();
        Mono<Void> last = done(effect.on(connection)).cache();
        begin.subscribe();
        guard.subscribe();
        last.subscribe(null, e -> {});
        return last.materialize().blockOptional(LONG).orElseThrow().getThrowable();
    }

    @ParameterizedTest
    @EnumSource
    void withoutTheGuardTheStatementTakesEffect(Effect effect) {
        Postgres.execute("alter sequence begun_seq restart");
        Connection connection =
                Postgres.connectionFactory().create().blockOptional(LONG).orElseThrow();
        try {
            assertThat(behindABeginThatFails(connection, effect, false)).isNull();
            assertThat(Effect.seen()).isPositive();
        } finally {
            Mono.from(connection.close()).block(LONG);
        }
    }

    @ParameterizedTest
    @EnumSource
    void behindTheGuardItNeverDoes(Effect effect) {
        Postgres.execute("alter sequence begun_seq restart");
        PostgresqlConnectionFactory factory = Postgres.connectionFactory();
        for (int i = 0; i < 50; i++) {
            Connection connection = factory.create().blockOptional(LONG).orElseThrow();
            assertThat(behindABeginThatFails(connection, effect, true)).isInstanceOf(R2dbcException.class);
            Mono.from(connection.close()).onErrorComplete().block(LONG);
        }
        assertThat(Effect.seen()).isZero();
    }

    /** Who logs in may act as a role that has no rights over whoever has logged in, and find operators of others first. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "set role begun_owner",
                "set session authorization begun_owner",
                "set session authorization begun_owner; set role begun_other",
                "set search_path to begun_tricks, pg_catalog, public"
            })
    void behindTheGuardItNeverDoesWhateverTheSessionHasSet(String set) {
        Postgres.execute("drop schema if exists begun_tricks cascade; create schema begun_tricks;"
                + " create function begun_tricks.same(text, text) returns boolean language sql as 'select true';"
                + " create operator begun_tricks.= (leftarg = text, rightarg = text, function = begun_tricks.same);"
                + " create operator begun_tricks.<> (leftarg = text, rightarg = text, function = begun_tricks.same);"
                + " do $$ begin create role begun_other; create role begun_owner in role begun_other;"
                + " exception when duplicate_object then null; end $$;"
                + " grant all on begun to begun_owner, begun_other; grant usage on schema begun_tricks to public");
        Connection connection =
                Postgres.connectionFactory().create().blockOptional(LONG).orElseThrow();
        done(connection
                        .createStatement("begin; set local r2dbc_scope.begun to 'on'; commit; " + set)
                        .execute())
                .block(LONG);
        Throwable error = behindABeginThatFails(connection, Effect.BOUND, true);
        Mono.from(connection.close()).onErrorComplete().block(LONG);
        assertThat(rows()).isZero();
        assertThat(error).isInstanceOf(R2dbcException.class);
    }

    @Test
    void theFetchSizeOfTheFactoryMakesNoDifference() {
        PostgresqlConnectionFactory factory = new PostgresqlConnectionFactory(
                Postgres.configuration().fetchSize(10).build());
        Connection connection = factory.create().blockOptional(LONG).orElseThrow();
        try {
            PipelinedBegin mode = Objects.requireNonNull(Dialect.of(connection).pipelinedBegin(connection));
            assertThat(Mono.from(mode.isAvailable(connection)).block(LONG)).isTrue();
        } finally {
            Mono.from(connection.close()).block(LONG);
        }
    }

    @Test
    void whoMayNotCallTheGuardIsServedWithoutIt() {
        Postgres.execute("create role begun_role login; grant insert, select on begun to begun_role;"
                + " revoke execute on function pg_terminate_backend(int, bigint) from public");
        try (FaultyProxy network = Postgres.network();
                WatchedPool pool = WatchedPool.to(
                        1, c -> c.username("begun_role").port(network.port()), PipelinedBeginIT::always)) {
            Mono<Void> guarded = network.await(NetworkTrigger.clientSends("r2dbc_scope.begun"));
            for (int i = 0; i < 3; i++) {
                pool.scopes.inTransaction(c -> insert(c, 1)).block(LONG);
            }
            guarded.block(LONG);
            assertThat(rows()).isEqualTo(3);
            assertThat(pool.destroyed()).isZero();
        } finally {
            Postgres.execute("grant execute on function pg_terminate_backend(int, bigint) to public");
        }
    }

    /** Requests to cancel that come from outside, at any moment, may hit BEGIN as well as any other statement. */
    @Test
    void requestsToCancelThatHitWhateverTheyHitLeaveNothingBehind() {
        AtomicInteger cancelled = new AtomicInteger();
        AtomicBoolean over = new AtomicBoolean();
        try (WatchedPool pool = WatchedPool.of(2, PipelinedBeginIT::always)) {
            Thread storm = new Thread(() -> {
                while (!over.get()) {
                    Postgres.execute("do $$ begin for i in 1..200 loop perform pg_cancel_backend(pid)"
                            + " from pg_stat_activity where application_name like 'watched-%';"
                            + " perform pg_stat_clear_snapshot(), pg_sleep(0.0005); end loop; end $$");
                }
            });
            storm.start();
            Flux.range(0, 3_000)
                    .flatMap(
                            i -> pool.scopes
                                    .inTransactionMany(c -> insert(c, i)
                                            .concatWith(Mono.error(new IllegalStateException("rolled back"))))
                                    .onErrorResume(e -> {
                                        cancelled.addAndGet(e instanceof R2dbcException ? 1 : 0);
                                        return Flux.empty();
                                    }),
                            2)
                    .blockLast(Duration.ofMinutes(5));
            over.set(true);
            Await.until(() -> !storm.isAlive(), () -> "the storm does not end");
            System.out.println("PipelinedBeginIT: " + cancelled + " of 3000 transactions cancelled from outside, "
                    + pool.destroyed() + " connections destroyed");
            assertThat(rows()).isZero();
            pool.assertWhole();
        }
        log.clear();
    }

    @Test
    void aSettingThatIsRefusedIsToldAndTheConnectionStays() {
        try (WatchedPool pool = WatchedPool.of(
                1,
                o -> always(o)
                        .withSettings(SessionSettings.none()
                                .with("work_mem", "banana")
                                .withValuesInSql()))) {
            for (int i = 0; i < 2; i++) {
                assertThatThrownBy(() ->
                                pool.scopes.inTransaction(c -> insert(c, 1)).block(LONG))
                        .isInstanceOf(SessionSettingException.class)
                        .hasMessageContaining("work_mem")
                        .hasCauseInstanceOf(R2dbcException.class);
            }
            assertThat(rows()).isZero();
            pool.assertWhole();
            assertThat(pool.destroyed()).isZero();
        }
    }
}
