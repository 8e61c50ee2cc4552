package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;

import ch.qos.logback.classic.Level;
import ch.qos.logback.classic.Logger;
import ch.qos.logback.classic.spi.ILoggingEvent;
import ch.qos.logback.classic.spi.ThrowableProxyUtil;
import ch.qos.logback.core.AppenderBase;
import dev.r2dbcscope.postgresql.AdvisoryLock;
import dev.r2dbcscope.postgresql.CopyIn;
import dev.r2dbcscope.postgresql.CopyType;
import dev.r2dbcscope.postgresql.UnnestWriter;
import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.slf4j.LoggerFactory;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/**
 * Scopes of every kind that end in every way, with values that can be recognised: what the library says by itself, in its log
 * at the finest level, in events, in the live view and in its own exceptions, holds SQL text and none of the values. What the
 * database says in its own errors may, and goes to the subscriber alone.
 */
class SecretsIT {

    private static final Duration LONG = Duration.ofSeconds(60);
    private static final String SECRET = "S3CRET";
    private static final int SECRET_NUMBER = 871_330_871;
    private static final String SQL = "/* shown */ ";

    private final Queue<String> said = new ConcurrentLinkedQueue<>();
    private final Queue<Throwable> errors = new ConcurrentLinkedQueue<>();
    private final Logger logger = (Logger) LoggerFactory.getLogger("dev.r2dbcscope");
    private final AppenderBase<ILoggingEvent> appender = new AppenderBase<>() {
        @Override
        protected void append(ILoggingEvent event) {
            said.add("log: " + event.getFormattedMessage() + "\n"
                    + ThrowableProxyUtil.asString(event.getThrowableProxy()));
        }
    };
    private final WatchedPool pool = WatchedPool.of(4);

    /** Whatever is told is also logged, because a listener fails. */
    private final ScopeOptions options = ScopeOptions.defaults()
            .withLeakThreshold(Duration.ofMillis(1))
            .withListener(event -> said.add("event: " + event))
            .withListener(event -> said.add("live: " + pool.scopes.live()))
            .withListener(event -> {
                throw new IllegalStateException("the listener fails");
            });

    private final ConnectionScopes scopes = pool.scopes.with(options);

    @BeforeAll
    static void tables() {
        Postgres.execute("create table secrets (id int primary key, note text check (note <> 'S3CRET-check'));"
                + " create table late_secrets (note text unique deferrable initially deferred);"
                + " create function tell(secret text) returns int language plpgsql as"
                + " $$ begin raise exception 'the function tells %', secret; end $$");
    }

    @BeforeEach
    void listen() {
        Postgres.execute("truncate secrets, late_secrets; insert into secrets values (" + SECRET_NUMBER + ", 'x')");
        appender.start();
        logger.setLevel(Level.TRACE);
        logger.setAdditive(false);
        logger.addAppender(appender);
    }

    @AfterEach
    void noSecretWasTold() {
        pool.awaitQuiet();
        logger.detachAppender(appender);
        logger.setAdditive(true);
        logger.setLevel(null);
        Set<Throwable> seen = Collections.newSetFromMap(new IdentityHashMap<>());
        errors.forEach(error -> addOwn(error, seen));
        assertThat(said).isNotEmpty().noneMatch(text -> text.contains(SECRET));
        assertThat(said).noneMatch(text -> text.contains(String.valueOf(SECRET_NUMBER)));
        pool.assertWhole();
        pool.close();
    }

    /** The messages of those of the library's own, wherever they hang. */
    private void addOwn(Throwable error, Set<Throwable> seen) {
        if (error == null || !seen.add(error)) {
            return;
        }
        if (error.getClass().getName().startsWith("dev.r2dbcscope.")) {
            said.add("exception: " + error);
        }
        addOwn(error.getCause(), seen);
        for (Throwable suppressed : error.getSuppressed()) {
            addOwn(suppressed, seen);
        }
    }

    private void run(Flux<?> scope) {
        scope.doOnError(errors::add).onErrorComplete().blockLast(LONG);
        pool.awaitQuiet();
    }

    private <E extends Throwable> void assertFailedWith(Class<E> type) {
        assertThat(errors).anyMatch(type::isInstance);
    }

    private static Statement bound(Connection connection, String sql) {
        return connection.createStatement(SQL + sql).bind("$1", SECRET + "-bound");
    }

    private static Flux<Object> rows(Statement statement) {
        return Flux.from(statement.execute()).concatMap(SecretsIT::rows);
    }

    private static Flux<Object> rows(Result result) {
        return Flux.from(result.map((row, metadata) -> String.valueOf(row.get(0))));
    }

    private enum Failing {
        NOT,
        UNIQUE,
        CHECK,
        CAST,
        FUNCTION,
        SYNTAX,
        MAPPING,
        CANCEL,
        CANCEL_WHILE_IT_RUNS;

        Flux<Object> in(Connection c) {
            return switch (this) {
                case NOT -> rows(bound(c, "select $1::text"));
                case UNIQUE ->
                    rows(c.createStatement(SQL + "insert into secrets values ($1, $2) returning note")
                            .bind(0, SECRET_NUMBER)
                            .bind(1, SECRET));
                case CHECK ->
                    rows(c.createStatement(SQL + "insert into secrets values (1, $1) returning note")
                            .bind(0, SECRET + "-check"));
                case CAST -> rows(bound(c, "select $1::text::int"));
                case FUNCTION -> rows(bound(c, "select tell($1)"));
                case SYNTAX -> rows(bound(c, "select $1::text from"));
                case MAPPING ->
                    Flux.from(bound(c, "select $1::text").execute())
                            .concatMap(result -> result.map((row, metadata) -> {
                                throw new IllegalStateException("the user says " + row.get(0));
                            }));
                case CANCEL ->
                    rows(bound(c, "select $1::text from generate_series(1, 1000)"))
                            .take(1);
                case CANCEL_WHILE_IT_RUNS ->
                    rows(bound(c, "select $1::text, pg_sleep(60)")).takeUntilOther(Mono.delay(Duration.ofMillis(50)));
            };
        }
    }

    @ParameterizedTest
    @EnumSource(Failing.class)
    void ofStatements(Failing how) {
        run(scopes.withConnectionMany(how::in));
        run(scopes.inTransactionMany(how::in));
        run(scopes.inTransactionMany(c -> how.in(c).concatWith(Mono.never()))
                .takeUntilOther(Mono.delay(Duration.ofMillis(20))));
        run(scopes.inTransactionMany(
                outer -> scopes.transactions(Propagation.NESTED).inTransactionMany(how::in)));
        run(Flux.usingWhen(scopes.connectionFactory().create(), how::in, Connection::close)
                .as(scopes::transactional));
        if (how != Failing.MAPPING) {
            assertThat(said).as("SQL is shown").anyMatch(text -> text.contains(SQL));
        }
    }

    @Test
    void ofOverflows() {
        ConnectionScopes narrow = pool.scopes.with(options.withMaxBufferedRows(10));
        run(narrow.withConnectionMany(c -> rows(bound(c, "select $1::text from generate_series(1, 1000)"))
                .concatMap(row -> rows(bound(c, "select $1::text || '2'")), 1)));
        assertFailedWith(NestedReadOverflowException.class);
        run(scopes.transactions(TransactionOptions.defaults().withEmitAfterCommit(10))
                .inTransactionMany(c -> rows(bound(c, "select $1::text from generate_series(1, 1000)"))));
        assertFailedWith(HeldBackOverflowException.class);
        ConnectionScopes few =
                pool.scopes.with(options.withMaxStatementsInFlight(1).withMaxStatementsWaiting(1));
        run(few.withConnectionMany(c ->
                Flux.range(0, 10).flatMap(i -> rows(bound(c, "select $1::text, pg_sleep(0.1)")), 10)));
        assertFailedWith(StatementQueueOverflowException.class);
    }

    @Test
    void ofTimeLimits() {
        run(pool.scopes
                .with(options.withStatementTimeout(Duration.ofMillis(50)))
                .withConnectionMany(c -> rows(bound(c, "select $1::text, pg_sleep(60)"))));
        run(pool.scopes
                .with(options.withMaxHold(Duration.ofMillis(50)))
                .inTransactionMany(c -> rows(bound(c, "select $1::text, pg_sleep(60)"))));
        run(pool.scopes
                .with(options.withMaxIdle(Duration.ofMillis(50)))
                .inTransactionMany(c -> rows(bound(c, "select $1::text")).concatWith(Mono.never())));
        assertThat(errors).hasSize(3).allMatch(ScopeTimeoutException.class::isInstance);
    }

    @Test
    void ofACommitThatFails() {
        run(scopes.inTransactionMany(c -> rows(bound(c, "insert into late_secrets values ($1), ($1) returning note"))));
        assertThat(errors).hasSize(1);
    }

    @Test
    void ofHooksThatFail() {
        run(scopes.inTransactionMany(c -> CurrentScope.get()
                .doOnNext(scope -> scope.afterCommit(
                        scopes.withConnectionMany(other -> rows(bound(other, "select $1::text::int")))))
                .thenMany(rows(bound(c, "select $1::text")))));
        assertThat(said).anyMatch(text -> text.startsWith("log: A hook of the scope failed"));
        assertThat(said).anyMatch(text -> text.startsWith("event: HookFailed"));
    }

    @Test
    void ofTriesThatAreRepeated() {
        run(scopes.transactions(TransactionOptions.defaults().withRetry(RetryPolicy.serialization(2)))
                .inTransaction(c -> rows(bound(c, "select $1::text"))
                        .then(Mono.error(new io.r2dbc.spi.R2dbcRollbackException("it was " + SECRET, "40001"))))
                .flux());
        assertThat(said).anyMatch(text -> text.startsWith("event: Retrying"));
    }

    @Test
    void ofHandlesThatAreUsedTooLate() {
        Statement late = scopes.withConnection(c -> Mono.just(bound(c, "select $1::text")))
                .blockOptional(LONG)
                .orElseThrow();
        run(Flux.defer(() -> rows(late)));
        assertFailedWith(ScopeClosedException.class);
    }

    @ParameterizedTest
    @ValueSource(strings = {"role", "work_mem", "search_path", "app.tenant"})
    void ofSessionSettings(String key) {
        SessionSettings settings = SessionSettings.none().with(key, SECRET + "-setting\0");
        run(pool.scopes
                .with(options.withSettings(settings))
                .withConnectionMany(c -> rows(bound(c, "select $1::text"))));
        run(pool.scopes
                .with(options.withSettings(SessionSettings.none().with(key, SECRET + "-setting")))
                .inTransactionMany(c -> rows(bound(c, "select $1::text, pg_sleep(0.01)"))));
        run(pool.scopes
                .with(options.withSettings(SessionSettings.none().fromContext(key, context -> {
                    throw new IllegalStateException(SECRET);
                })))
                .inTransactionMany(c -> rows(bound(c, "select $1::text"))));
        assertFailedWith(SessionSettingException.class);
    }

    private record Item(int id, String note) {}

    private static List<Item> items(String note) {
        return List.of(new Item(1, "fine"), new Item(SECRET_NUMBER, SECRET + note));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "-check", "\0", "\ud800"})
    void ofRowsThatAreWrittenInBulk(String note) {
        CopyIn<Item> copy = CopyIn.<Item>into("secrets")
                .column("id", CopyType.INTEGER, Item::id)
                .column("note", CopyType.TEXT, Item::note);
        UnnestWriter<Item> unnest =
                UnnestWriter.<Item>into("secrets").column("id", "int", Item::id).column("note", "text", Item::note);
        run(copy.write(scopes, Flux.fromIterable(items(note))).flux());
        run(unnest.write(scopes, Flux.fromIterable(items(note))).flux());
        run(scopes.inTransactionMany(c -> copy.write(c, Flux.fromIterable(items(note)))));
        run(scopes.inTransactionMany(c -> unnest.write(c, Flux.fromIterable(items(note)))));
        assertThat(errors).hasSize(4);
    }

    @Test
    void ofAdvisoryLocks() {
        AdvisoryLock lock = AdvisoryLock.of(SECRET_NUMBER);
        AdvisoryLock named = AdvisoryLock.of(SECRET + "-lock");
        ConnectionScopes impatient = pool.scopes.with(options.withLockWaitTimeout(Duration.ofMillis(50)));
        run(lock.during(
                        scopes,
                        c -> impatient.withOwnConnectionMany(
                                other -> lock.acquire(other).thenReturn(1)))
                .flux());
        run(named.during(scopes, c -> rows(bound(c, "select $1::text")).then(Mono.just(1)))
                .flux());
        assertFailedWith(ScopeTimeoutException.class);
    }
}
