package dev.r2dbcscope;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.r2dbc.spi.Connection;
import io.r2dbc.spi.Result;
import io.r2dbc.spi.Row;
import io.r2dbc.spi.Statement;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import reactor.core.Disposable;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

/** What happens at the end of a scope, and to what tries to outlive it. */
class EndOfScopeIT {

    private static final Duration LONG = Duration.ofSeconds(60);

    private final WatchedPool pool = WatchedPool.of(1);
    private final ConnectionScopes scopes = pool.scopes;

    @BeforeAll
    static void createTable() {
        Postgres.execute("create table outliving (id int)");
    }

    @BeforeEach
    void emptyTable() {
        Postgres.execute("truncate outliving");
    }

    @AfterEach
    void theConnectionSurvivedAndIsClean() {
        pool.awaitQuiet();
        assertThat(pool.destroyed()).isZero();
        assertThat(pool.backends()).hasSizeLessThanOrEqualTo(1);
        pool.assertWhole();
        pool.close();
    }

    private static long rows() {
        return Postgres.number("select count(*) from outliving");
    }

    private static Statement insert(Connection connection, int id) {
        return connection.createStatement("insert into outliving values ($1)").bind(0, id);
    }

    @Test
    @Tag("lifecycle-12")
    void closingTheConnectionInsideIsLeftToTheScope() {
        List<Integer> after = scopes.withConnectionMany(
                        c -> Mono.from(c.close()).then(Mono.from(c.close())).thenMany(Rows.ints(c, "select 3")))
                .collectList()
                .block(LONG);
        assertThat(after).containsExactly(3);
        assertThat(pool.events(ScopeEvent.Released.class)).hasSize(1);
    }

    @Test
    @Tag("lifecycle-52")
    void keptHandlesFailAfterTheEndAndTouchNothing() {
        AtomicReference<Connection> connection = new AtomicReference<>();
        AtomicReference<Statement> statement = new AtomicReference<>();
        AtomicReference<Result> result = new AtomicReference<>();
        AtomicReference<Row> row = new AtomicReference<>();
        scopes.withConnection(c -> {
                    connection.set(c);
                    statement.set(insert(c, 1));
                    return Flux.from(c.createStatement("select 1").execute())
                            .doOnNext(result::set)
                            .flatMap(r -> r.map((kept, metadata) -> {
                                row.set(kept);
                                return 1;
                            }));
                })
                .block(LONG);
        pool.borrow(c -> Flux.from(c.beginTransaction())
                .thenMany(Flux.defer(() -> statement.get().execute()))
                .onErrorResume(ScopeClosedException.class, e -> Flux.empty())
                .thenMany(c.commitTransaction()));
        assertThat(rows()).isZero();
        assertThatThrownBy(() -> connection.get().createStatement("select 1"))
                .isInstanceOf(ScopeClosedException.class)
                .hasMessageContaining("EndOfScopeIT");
        assertThatThrownBy(() -> Flux.from(result.get().getRowsUpdated()).blockLast(LONG))
                .isInstanceOf(ScopeClosedException.class);
        assertThatThrownBy(() -> row.get().get(0)).isInstanceOf(ScopeClosedException.class);
    }

    @Test
    @Tag("lifecycle-61")
    void exitWaitsForADetachedStatementThatWasAdmitted() {
        scopes.withConnection(
                        c -> Mono.fromRunnable(() -> Rows.update(c, "insert into outliving select 1 from pg_sleep(0.3)")
                                .subscribe()))
                .block(LONG);
        assertThat(rows()).isEqualTo(1);
    }

    @Test
    @Tag("lifecycle-61")
    void exitDoesNotWaitForeverForADetachedStatement() {
        AtomicReference<Throwable> detached = new AtomicReference<>();
        try (WatchedPool impatient = WatchedPool.of(1, options -> options.withReleaseTimeout(Duration.ofMillis(300)))) {
            impatient
                    .scopes
                    .withConnection(c -> Mono.fromRunnable(
                            () -> Rows.ints(c, "select 1 from pg_sleep(20)").subscribe(n -> {}, detached::set)))
                    .block(LONG);
            assertThat(impatient.destroyed()).isEqualTo(1);
            Await.until(() -> detached.get() != null, () -> "the detached statement was never told");
            Postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like '%sleep(20)'"
                    + " and pid <> pg_backend_pid()");
            impatient.assertWhole();
        }
    }

    @Test
    @Tag("lifecycle-61")
    @Tag("lifecycle-52")
    void detachedStatementThatComesAfterTheEndIsRefused() {
        AtomicReference<Connection> kept = new AtomicReference<>();
        AtomicReference<Flux<Long>> late = new AtomicReference<>();
        scopes.inTransaction(c -> {
                    kept.set(c);
                    late.set(Rows.update(insert(c, 1)));
                    return Mono.just(1);
                })
                .block(LONG);
        assertThatThrownBy(() -> late.get().blockLast(LONG)).isInstanceOf(ScopeClosedException.class);
        assertThat(rows()).isZero();
    }

    @Test
    @Tag("lifecycle-26")
    void cancelDuringCommitLetsItFinishAndDiscardsTheValue() {
        Postgres.execute("create or replace function nap() returns trigger language plpgsql as"
                + " $$ begin perform pg_sleep(0.5); return null; end $$");
        Postgres.execute("create table naps (id int)");
        Postgres.execute("create constraint trigger nap after insert on naps deferrable initially deferred"
                + " for each row execute function nap()");
        AtomicReference<Object> delivered = new AtomicReference<>();
        Disposable subscription = scopes.inTransaction(
                        c -> Rows.update(c, "insert into naps values (1)").then(Mono.just("value")))
                .subscribe(delivered::set, delivered::set);
        Await.until(() -> !pool.events(ScopeEvent.Exiting.class).isEmpty(), () -> "no exit: " + pool.events);
        subscription.dispose();
        pool.awaitQuiet();
        assertThat(delivered.get()).isNull();
        assertThat(pool.events(ScopeEvent.Released.class)).hasSize(1);
        assertThat(pool.events(ScopeEvent.Released.class).get(0).outcome()).isEqualTo(ScopeOutcome.COMPLETED);
        assertThat(Postgres.number("select count(*) from naps")).isEqualTo(1);
    }
}
